"""``reft upgrade``: files of earlier commits of this repository, brought up to date and not otherwise changed."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest

from pipelines.errors import PipelineError
from pipelines.params.whole import ALONE, check_params, load_params
from pipelines.project import code
from pipelines.project.graph import read_graph
from pipelines.roundtrip import dump_document, load_document
from pipelines.upkeep import upgrade as upgrading
from pipelines.upkeep.nesting import nested_parts
from pipelines.upkeep.upgrade import upgrade, upgraded_graph, upgraded_params, write_upgrade
from pipelines.upkeep.yaml_lines import mapping_at, span_of, value_at
from pipelines.yaml_file import parse_yaml

ROOT = Path(__file__).parents[3]
EARLIER = sorted((Path(__file__).parent / "earlier").iterdir())  # by commit, as git had them
GRAPH = "graph.yaml"  # dvc.yaml of that commit: under its own name, DVC would read it with this repository's
SHIPPED = (ROOT / "params.yaml").read_text(encoding="utf-8")


# Of one text the upgrade is the same each time, and takes a second.
upgraded_once = functools.cache(upgraded_params)


@pytest.fixture(autouse=True)
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upgrading, "upgraded_params", upgraded_once)


# The first and the last of them are tried at each change, the others in test-long.
TRIED = [
    pytest.param(folder, id=folder.name, marks=[] if folder in (EARLIER[0], EARLIER[-1]) else [pytest.mark.long])
    for folder in EARLIER
]


@pytest.fixture(params=TRIED)
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder without code as that commit's `reft init` would have made it, with values and comments of the user's."""
    text = (request.param / "params.yaml").read_text(encoding="utf-8")
    mine = text.replace("seed: 42 ", "seed: 7 ", 1).replace("  experiment: reft\n", "  experiment: mine  # ours\n", 1)
    assert mine != text
    (tmp_path / "params.yaml").write_text("# my project\n" + mine, encoding="utf-8")
    graph = code.without_code((request.param / GRAPH).read_text(encoding="utf-8"))
    (tmp_path / "dvc.yaml").write_text(graph.replace("models/adapter", "models/mine", 1), encoding="utf-8")
    return tmp_path


def test_an_earlier_project_is_refused_until_it_is_upgraded(project: Path) -> None:
    with pytest.raises(PipelineError, match=r"this key is missing.*reft upgrade"):
        load_params(project / "params.yaml")
    write_upgrade(project, upgrade(project))
    assert load_params(project / "params.yaml").tracking.experiment == "mine"
    code.check_graph(project)
    code.check_code(project, "search")


@pytest.mark.parametrize("commit", ["628b875", "11a4645", "4534b3d", "ae38a0b"])  # before stages had param `method`
def test_a_graph_of_an_earlier_release_runs_nothing(commit: str, tmp_path: Path) -> None:
    text = next(folder for folder in EARLIER if folder.name == commit).joinpath(GRAPH).read_text(encoding="utf-8")
    (tmp_path / "dvc.yaml").write_text(code.without_code(text), encoding="utf-8")
    for refused in (code.check_graph, code.refresh_code, lambda root: code.check_code(root, "search")):
        with pytest.raises(PipelineError, match=r"of the installed release.*search \(.*params.*Run: reft upgrade"):
            refused(tmp_path)
    assert not (tmp_path / code.CODE).exists()


def test_own_lines_stay_and_what_is_added_is_as_shipped(project: Path) -> None:
    text = (project / "params.yaml").read_text(encoding="utf-8")
    after = upgraded_once(text).splitlines()
    before = re.sub(r"^    (\w+)\.(\w+): (.*)$", r"    \1: {\2: \3}", text, flags=re.MULTILINE).splitlines()
    rest = iter(after)
    assert all(line in rest for line in before), "each line is there, in its order"
    added = list(after)
    for line in before:
        added.remove(line)
    assert {line for line in added if line} <= set(SHIPPED.splitlines())


def test_an_upgrade_of_what_is_upgraded_changes_nothing(project: Path) -> None:
    write_upgrade(project, upgrade(project))
    assert upgrade(project) == []


def test_the_graph_keeps_its_paths(project: Path) -> None:
    write_upgrade(project, upgrade(project))
    graph = read_graph(project)
    assert graph.paths == {**read_graph(ROOT).paths, "adapter": "models/mine"}
    assert "models/mine" in graph.stage("train").outs


def test_a_path_of_the_users_own_gets_the_ending_of_what_is_written_there_now(tmp_path: Path) -> None:
    """Predictions were JSON Lines; a file of that name that holds Parquet would be opened by the wrong program."""
    own = code.project_graph().replace("reports/predictions.parquet", "out/mine.jsonl")
    assert parse_yaml(upgraded_graph(own), "dvc.yaml") == parse_yaml(
        own.replace("out/mine.jsonl", "out/mine.parquet"), "dvc.yaml"
    )


def test_what_no_stage_reads_may_be_left_out_and_comes_when_it_is_asked_for(tmp_path: Path) -> None:
    shipped = load_document(SHIPPED)
    for name in ALONE:
        del shipped[name]
    left = dump_document(shipped)
    params = check_params(parse_yaml(left, "params.yaml"), "params.yaml")
    for name, command in ALONE.items():
        with pytest.raises(PipelineError, match=rf"{command} needs section {name} .* reft upgrade --add {name}"):
            getattr(params, name)
    (tmp_path / "params.yaml").write_text(left, encoding="utf-8")
    (tmp_path / "dvc.yaml").write_text(code.project_graph(), encoding="utf-8")
    assert upgrade(tmp_path) == []
    write_upgrade(tmp_path, upgrade(tmp_path, ["compare"]))
    found = load_params(tmp_path / "params.yaml")
    assert found.compare == load_params(ROOT / "params.yaml").compare
    assert found.align_ is None
    with pytest.raises(PipelineError, match=r"--add takes align or compare.*Got: search"):
        upgrade(tmp_path, ["search"])


def test_the_shipped_files_are_up_to_date() -> None:
    assert upgraded_params(SHIPPED) == SHIPPED
    assert upgraded_graph(code.project_graph()) == code.project_graph()


@pytest.mark.parametrize(
    ("place", "lines"),
    [
        (("search", "earlier"), ["  earlier: 0"]),  # the last of a section
        (("seed",), ["seed: 42"]),  # the first of the file
        (("run", "device"), ["  device: auto"]),  # the first of a section
        (("notify",), ["notify:", "  webhook: null", "  command: null"]),  # the last section
        (("method", "lora", "rank"), ["  lora: {"]),  # of a mapping on one line
        (("prepare", "labels", "negative", "values"), ["    negative: {"]),  # of an entry with a name of the user's
    ],
)
def test_a_key_that_is_taken_out_comes_back(place: tuple[str, ...], lines: list[str]) -> None:
    document = load_document(SHIPPED)
    parent = mapping_at(document, place[:-1])
    assert parent is not None
    if parent.fa.flow_style():
        del parent[place[-1]]
        text = dump_document(document)
    else:
        kept = SHIPPED.splitlines()
        start, end = span_of(kept, document, place)
        text = "\n".join([*kept[:start], *kept[end:]]) + "\n"
    missing = parse_yaml(text, "params.yaml")
    assert value_at(missing, place) is None
    again = upgraded_params(text)
    assert parse_yaml(again, "params.yaml") == parse_yaml(SHIPPED, "params.yaml")
    for line in lines:
        assert any(found.startswith(line) for found in again.splitlines())


def test_a_named_label_of_the_users_own_gets_what_the_shipped_ones_have() -> None:
    text = SHIPPED.replace("negative: {word:", "awful: {word:").replace(", max: -1.0, values: null}", ", max: -1.0}")
    labels = load(upgraded_params(text))["prepare"]["labels"]
    assert labels["awful"] == {"word": " negative", "min": None, "max": -1.0, "values": None}


DOTTED = """
  space:
    rank: [1, 4]   # mine
    lora.rank: [2, 4]    # first
    # a line of mine
    time_lora.learning_rate: {low: 1.0e-4, high: 5.0e-3, log: true}    # alone
    lora.learning_rate:    # of two
      low: 1.0e-4
      high: 5.0e-3   # the end
      log: true
    prompt: {init: [random]}
    prompt.virtual_tokens: [5]
    lora.alpha: {among: [8.0, 16.0], when: {lora.rank: [4]}, otherwise: 8.0}
  enqueue:       # my own
    - {lora.rank: 2, lora.learning_rate: 1.0e-3}    # small
    - commonsense
  earlier: 0
"""
NESTED = """
  space:
    rank: [1, 4]   # mine
    lora:
      rank: [2, 4]       # first
    # a line of mine
      learning_rate:       # of two
        low: 1.0e-4
        high: 5.0e-3 # the end
        log: true
      alpha: {among: [8.0, 16.0], when: {lora: {rank: [4]}}, otherwise: 8.0}
    time_lora: {learning_rate: {low: 1.0e-4, high: 5.0e-3, log: true}} # alone
    prompt: {init: [random], virtual_tokens: [5]}
  enqueue:       # my own
    - {lora: {rank: 2, learning_rate: 1.0e-3}}      # small
    - commonsense
  earlier: 0
"""


def test_parts_under_keys_with_dots_stand_under_their_methods() -> None:
    methods = """
compare:
  methods:
    LoRA, mine: {method: lora, parts: {lora.rank: 2, lora.alpha: 4.0}, learning_rates: [1.0e-3]}   # mine
    DoRA:   # in lines
      method: dora
      parts:
        dora.rank: 2
      learning_rates:   [1.0e-3]
"""
    methods_after = methods.replace("{lora.rank: 2, lora.alpha: 4.0}", "{lora: {rank: 2, alpha: 4.0}}")
    methods_after = methods_after.replace("]}   # mine", "]}     # mine")
    methods_after = methods_after.replace("        dora.rank: 2", "        dora: {rank: 2}").replace(":   [1", ": [1")
    text, top = f"search:{DOTTED}{methods}", "seed:   7\n"
    after = nested_parts(top + text)
    assert after.splitlines() == f"{top}search:{NESTED}{methods_after}".splitlines()
    assert nested_parts(after) == after


def test_a_key_with_a_dot_is_refused_with_the_form_that_can_be_set() -> None:
    text = SHIPPED.replace("    lora: {learning_rate: {low", "    lora.learning_rate: {low").replace(
        "    dora: {learning_rate: {low: 1.0e-4, high: 5.0e-3, log: true}}", "    dora: [1.0e-4]"
    )
    said = r"search.space: a part of lora stands under lora, as lora: {learning_rate: ...}, where `dvc exp run -S`"
    with pytest.raises(PipelineError, match=re.escape(said) + r".*got the key lora.learning_rate; `reft upgrade`"):
        check_params(parse_yaml(text.replace("log: true}}\n    dora", "log: true}\n    dora"), "p"), "params.yaml")
    with pytest.raises(PipelineError, match=r"search.space: dora must hold its parts, as dora: {PART: ...}; got \[0.0"):
        check_params(parse_yaml(text.replace("lora.learning_rate: {low", "lora: {learning_rate: {low"), "p"), "p")


def test_what_no_release_knew_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"train\.rang: unknown key; did you mean 'rank'"):
        upgraded_params(SHIPPED.replace("  rank: searched ", "  rang: searched ", 1))


def test_a_part_that_is_fixed_is_not_searched_again() -> None:
    text = SHIPPED.replace("  rank: searched ", "  rank: 8 ", 1).replace("    rank: [1, 4, 8]\n", "", 1)
    text = text.replace("rank: 8, learning_rate: 9.0e-4", "learning_rate: 9.0e-4", 1)
    text = text.replace("rank: 8, learning_rate: 6.0e-4}\n  earlier", "learning_rate: 6.0e-4}\n  earlier", 1)
    assert upgraded_params(text) == text


@pytest.mark.parametrize("change", ["cmd", "deps", "params", "outs"])
def test_any_difference_of_a_stage_is_refused(tmp_path: Path, change: str) -> None:
    document = load_document(code.project_graph())
    stage = document["stages"]["train"]
    stage[change] = f"{stage[change]} --more" if change == "cmd" else [*stage[change], "data/more"]
    (tmp_path / "dvc.yaml").write_text(dump_document(document), encoding="utf-8")
    with pytest.raises(PipelineError, match=rf"other train \({change}\)"):
        code.check_graph(tmp_path)


def test_paths_plots_and_descriptions_are_the_users(tmp_path: Path) -> None:
    document = load_document(code.project_graph())
    document["vars"][0]["paths"]["adapter"] = "models/mine"
    document["stages"]["train"]["desc"] = "mine"
    document["plots"] = []
    document["stages"]["train"]["deps"].reverse()
    (tmp_path / "dvc.yaml").write_text(dump_document(document), encoding="utf-8")
    code.check_graph(tmp_path)


def load(text: str) -> dict[str, dict[str, dict[str, object]]]:
    """What a params.yaml says."""
    found = parse_yaml(text, "params.yaml")
    assert isinstance(found, dict)
    return found
