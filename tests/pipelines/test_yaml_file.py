"""One YAML for DVC and for the stages: what DVC compares is what a stage runs with."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.utils.hydra import apply_overrides
from dvc.utils.serialize import ParseError, parse_yaml_for_update
from dvc.utils.serialize import parse_yaml as dvc_parse_yaml

from pipelines.errors import PipelineError
from pipelines.params.whole import load_params
from pipelines.roundtrip import dump_document, load_document, set_section
from pipelines.yaml_file import MAX_DEPTH, dump_yaml, needs_quotes, parse_yaml, read_yaml

ROOT = Path(__file__).parents[2]
# What YAML 1.1 and 1.2 read differently, or one of them not at all, and their neighbours.
SCALARS = """
0 -0 +1 010 -010 +010 08 09 00 0_1 0o10 0O10 0o8 -0o7 0x1F 0X1F +0x1f 0xg 0b11 0b2 1_000 1__0 _1 1_ 1_0.5 0.1_0 1,000
1e-5 1e5 1E+5 1e+05 1.5e3 1.e5 1.e+5 -1e-3 1e400 e5 1e .5 5. -.5 +.5 ._1 1. .inf -.inf .INF .nan .NaN
on On off yes Yes no n y Y true True TRUE tRUE false ~ null Null NULL nUll
15:30 1:60:60 12:30:45.5 190:20:30 ::2 15: 2001-01-01 2001-1-1 2001-12-14t21:59:43.10-05:00 2001-01-01T00:00:00Z
= << - . + ! & * % @ ` ? | > !!int !!str word q_proj,v_proj f7+l7 3,9,18 a:b a#b a,b 'single' "double" '010' "yes"
""".split()  # noqa: SIM905  (a list would be a line for each)
FORMS = ("a: {}\n", "a: [{}]\n", "a: [l4, {}]\n", "a:\n- {}\n", "a: {{b: {}}}\n", "{}: a\n")
NUMBERS = [10, 8, 1e-5, 1e22, -0.5, 0.1, True, None]  # that a file may hold beside text


@pytest.mark.parametrize("scalar", SCALARS)
def test_a_scalar_is_read_as_dvc_reads_it_or_refused_as_dvc_refuses_it(scalar: str) -> None:
    for text in (form.format(scalar) for form in FORMS):
        try:
            read = dvc_parse_yaml(text, "params.yaml")
            for_update = parse_yaml_for_update(text, "params.yaml")  # what `dvc exp run -S` starts from
        except (ParseError, ValueError, LookupError, TypeError, AttributeError):
            read = None
        if read is None or scalar.startswith("!"):  # a tag, which files of parameters do without
            with pytest.raises(PipelineError, match=r"params\.yaml must be readable YAML"):
                parse_yaml(text, "params.yaml")
        else:
            ours = parse_yaml(text, "params.yaml")
            assert _typed(ours) == _typed(read)
            assert ours == for_update or str(ours) == str(for_update)  # NaN equals nothing


@pytest.mark.parametrize(
    ("scalar", "value"),  # by YAML 1.2.2, section 10.3.2, and its core schema's decimals with leading zeros
    [("010", 10), ("0o10", 8), ("1e-5", 1e-5), ("on", "on"), ("yes", "yes"), ("15:30", "15:30"), ("1_000", 1000)],
)
def test_values_that_the_two_versions_read_differently(scalar: str, value: object) -> None:
    assert parse_yaml(f"a: {scalar}", "params.yaml") == {"a": value}


def test_what_dvc_writes_for_set_param_is_a_sound_params_file(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes((ROOT / "params.yaml").read_bytes())
    # The machinery of `dvc exp run --set-param`.
    apply_overrides(path, ["train.weight_decay=1e-5", "search.space.learning_rate.low=1e-7", "run.wait_seconds=1e3"])
    assert "weight_decay: 1e-05" in path.read_text(encoding="utf-8")
    params = load_params(path)
    assert (params.train.weight_decay, params.run.wait_seconds) == (1e-5, 1e3)
    assert min(params.recipe_space().values("learning_rate")) == 1e-7


def test_a_part_of_another_method_is_set_by_set_param(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes((ROOT / "params.yaml").read_bytes())
    changes = [
        "search.space.lora.learning_rate.high=0.5",
        "+search.space.lora.rank=[3,5]",
        "method.lora.rank=searched",
        "search.enqueue=[{lora:{learning_rate:0.25,rank:3}}]",
        "+compare.methods.LoRA.parts.lora.alpha=2.0",
        "method.name=lora",
    ]
    apply_overrides(path, changes)
    found = load_params(path)
    space = found.recipe_space().space
    assert (space.extremes("lora.learning_rate"), space.root["lora.rank"]) == ([1e-4, 0.5], [3, 5])
    assert found.recipe_space().first == ({"lora.learning_rate": 0.25, "lora.rank": 3},)
    assert found.compare.methods["LoRA"].values() == {"lora.alpha": 2.0}


def test_seed_is_the_number_that_dvc_compares(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8").replace("seed: 42 ", "seed: 010 ", 1)
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    assert load_params(tmp_path / "params.yaml").seed == dvc_parse_yaml(text, "params.yaml")["seed"] == 10


@pytest.mark.parametrize("word", SCALARS)
def test_text_that_is_written_is_the_same_text_in_both_versions(word: str) -> None:
    for value in (word, [word], {"a": word}, {word: 1}):
        text = dump_yaml({"value": value})
        assert parse_yaml(text, "best.yaml") == yaml.safe_load(text) == {"value": value}
    document = load_document("a: {b: 1}\n")
    set_section(document["a"], {"b": word, "c": [word]})
    text = dump_document(document)
    assert parse_yaml(text, "params.yaml") == yaml.safe_load(text) == {"a": {"b": word, "c": [word]}}


def test_numbers_that_are_written_are_the_same_numbers_in_both_versions() -> None:
    text = dump_yaml(NUMBERS)
    assert _typed(parse_yaml(text, "best.yaml")) == _typed(yaml.safe_load(text)) == _typed(NUMBERS)


def test_a_word_needs_quotes_where_one_of_the_versions_takes_it_for_something_else() -> None:
    words = ["l4", "15:30", "0o10", "yes", "1e-5", "010", "upper-half", "f7+l7", "3,9", "a b", "- a", "::2", ""]
    assert [word for word in words if not needs_quotes(word)] == ["l4", "upper-half", "f7+l7", "a b"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("%YAML 1.1\n---\na: 010\n", "line 1: directives"),
        ("%TAG ! tag:x,2000:\n---\na: 1\n", "line 1: directives"),
        ("b: 1\na: &x 1\nc: *x\n", "line 3: aliases"),
        ("a: 1\nb: !!int '010'\n", "line 2: tags"),
        ("a: {b: 1, c: 2, b: 3}\n", "line 1: the key 'b' is given twice"),
        ("a: [{b: 1}, {b: 2}]\nb: 1\na: 3\n", "line 3: the key 'a' is given twice"),
        ("a: " + "[" * 300_000, f"more than {MAX_DEPTH} collections"),
        ("a: 1\n---\nb: 2\n", "single document"),
    ],
)
def test_what_is_refused_says_the_line(text: str, said: str) -> None:
    with pytest.raises(PipelineError, match=said):
        parse_yaml(text, "params.yaml")


@pytest.mark.parametrize("name", ["params.yaml", "dvc.yaml", "prefect.yaml"])
def test_the_files_of_this_repository_say_the_same_to_every_reader(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert _typed(read_yaml(ROOT / name)) == _typed(yaml.safe_load(text)) == _typed(dvc_parse_yaml(text, name))


def test_two_files_alone_know_a_yaml_library() -> None:
    names = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    code = [name for name in names.split() if not name.startswith(("tests/", "docs/"))]
    found = {name for name in code if (ROOT / name).is_file() and {"yaml", "ruamel"} & _imported(ROOT / name)}
    assert found == {"pipelines/yaml_file.py", "pipelines/roundtrip.py"}


def _imported(path: Path) -> set[str]:
    """The distributions that a file imports anywhere in it."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names}


def _typed(value: Any) -> Any:
    """The value with its types, in which 1, 1.0 and True are three, and NaN equals itself."""
    if isinstance(value, dict):
        return {_typed(key): _typed(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_typed(inner) for inner in value]
    return type(value).__name__, repr(value)
