"""The library of public tasks: every YAML has the keys of params.yaml, and reads its publisher's rows."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from pipelines.contracts.prepared import SPLITS, Rejection, Row
from pipelines.errors import PipelineError
from pipelines.intake.library import (
    KINDS,
    LIBRARY,
    Sources,
    hub_sources,
    measure_of,
    mixture_keys,
    prepare_keys,
    read_task_file,
    split_files,
    task_changes,
    task_names,
)
from pipelines.intake.proposal import apply_changes
from pipelines.params.whole import check_params, load_params
from pipelines.sources.raw_row import RawRow
from pipelines.sources.rows import Reader
from pipelines.tasks.family import family_of
from pipelines.tasks.keys.mixture import MixtureParams
from pipelines.tasks.reader import RowReader
from pipelines.yaml_file import parse_yaml
from tests.arrows import ROOT
from tests.tiny import tiny_tokenizer

COMMIT = "0" * 40
NAMED = [
    "boolq", "piqa", "social-iqa", "hellaswag", "winogrande", "arc-easy", "arc-challenge", "openbookqa",
    "gsm8k", "svamp", "aqua", "mawps", "asdiv", "mathqa", "addsub", "multiarith",
    "singleeq", "alpaca", "ultrafeedback", "seed-tasks", "alpaca-eval", "cola", "sst2", "mrpc",
    "stsb", "qqp", "mnli", "qnli", "rte", "trec",
]  # fmt: skip
MEASURES = {
    "cola": "matthews",
    "mrpc": "f1",
    "qqp": "f1",
    "stsb": "pearson",
    "gsm8k": "exact_match",
    "boolq": "accuracy",
}
# A row each as the hub's data sets type it (their cards, and the tasks of lm-evaluation-harness 0.4.13 that read them),
# with other words; and the answer that it is to be read as.
FOUR = {"text": ["a", "b", "c", "d"], "label": ["A", "B", "C", "D"]}
PAIR = {"sentence1": "It rains.", "sentence2": "It is wet.", "idx": 0}
HUB_ROWS: dict[str, tuple[dict[str, Any], str]] = {
    "boolq": ({"question": "is it wet", "answer": True, "passage": "It rains."}, " true"),
    "piqa": ({"goal": "To dry", "sol1": "wring it", "sol2": "wet it", "label": 1}, " wet it"),
    "social-iqa": (
        {"context": "Al left.", "question": "Why?", "answerA": "x", "answerB": "y", "answerC": "z", "label": "2"}, " y",
    ),
    "hellaswag": ({"ctx": "A man", "endings": ["w", "x", "y", "z"], "source_id": "v", "label": "3"}, " z"),
    "winogrande": ({"sentence": "It was _ .", "option1": "wet", "option2": "dry", "answer": "2"}, " dry"),
    "arc-easy": ({"id": "1", "question": "What?", "choices": FOUR, "answerKey": "C"}, " c"),
    "arc-challenge": (
        {"question": "What?", "answerKey": "2", "choices": {"text": ["a", "b", "c"], "label": ["1", "2", "3"]}}, " b",
    ),
    "openbookqa": ({"id": "1", "question_stem": "It is", "choices": FOUR, "answerKey": "D"}, " d"),
    "gsm8k": ({"question": "2 and 2?", "answer": "2+2=<<2+2=4>>4\n#### 4"}, "2+2=<<2+2=4>>4\n#### 4"),
    "svamp": ({"ID": "c-1", "Body": "Al has 2.", "Question": "And 1?", "Equation": "2+1", "Answer": "3.0"}, "3.0"),
    "aqua": (
        {"question": "2x = 4", "options": ["A)1", "B)2", "C)3", "D)4", "E)5"], "rationale": "", "correct": "B"}, "B",
    ),
    "cola": ({"sentence": "It rain.", "label": 0, "idx": 0}, " no"),
    "sst2": ({"sentence": "a fine film", "label": 1, "idx": 0}, " positive"),
    "mrpc": ({**PAIR, "label": 1}, " yes"),
    "stsb": ({**PAIR, "label": 3.0}, " 3"),
    "qqp": ({"question1": "Is it wet?", "question2": "Wet?", "label": 1, "idx": 0}, " yes"),
    "mnli": ({"premise": "It rains.", "hypothesis": "It is dry.", "label": 2, "idx": 0}, " False"),
    "qnli": ({"question": "Is it wet?", "sentence": "It rains.", "label": 1, "idx": 0}, " no"),
    "rte": ({**PAIR, "label": 0}, " True"),
    "alpaca": ({"instruction": "Say it.", "input": "It rains.", "output": "Wet.", "text": "Say it."}, "Wet."),
}  # fmt: skip
FILES = Sources({split: f"file:data/own/{split}.x" for split in SPLITS}, {})


def test_the_library_has_the_tasks_of_the_literature_with_its_measures() -> None:
    assert sorted(task_names()) == sorted(NAMED)
    assert {name: measure_of(read_task_file(name)) for name in MEASURES} == MEASURES
    kinds = [read_task_file(name).kind for name in task_names()]
    assert kinds == sorted(kinds, key=KINDS.index)


@pytest.mark.parametrize("name", NAMED)
def test_each_task_is_a_section_of_params_for_files_and_for_the_hub(name: str, tmp_path: Path) -> None:
    task, shipped = read_task_file(name), load_params(ROOT / "params.yaml")
    forms = [FILES]
    if task.hub is not None:
        forms.append(hub_sources(task, f"hub:{task.hub.name}@{COMMIT}"))
    for form in forms:
        text = apply_changes(ROOT / "params.yaml", task_changes(shipped, prepare_keys(task, form)))
        params = check_params(parse_yaml(text, "params.yaml"), "params.yaml")
        assert params.prepare.source == form.addresses["train"]
        assert params.search.objectives[0] == params.prepare.measure_name()
        family_of(params.prepare)


def hub_reader(name: str) -> RowReader:
    """What reads the rows of a task in the form that the hub has them."""
    task = read_task_file(name)
    assert task.hub is not None
    keys = prepare_keys(task, hub_sources(task, f"hub:{task.hub.name}@{COMMIT}"))
    text = apply_changes(ROOT / "params.yaml", task_changes(load_params(ROOT / "params.yaml"), keys))
    section = check_params(parse_yaml(text, "params.yaml"), "params.yaml").prepare
    return RowReader(section, family_of(section), tiny_tokenizer(), "encoder")


@pytest.mark.parametrize("name", [name for name in NAMED if read_task_file(name).hub is not None])
def test_the_hubs_rows_are_read(name: str) -> None:
    """With the types that a hub's cells have: labels by number, true and false, options in an object."""
    reader = hub_reader(name)
    values, answer = HUB_ROWS[name]
    (row,) = reader.read_all(RawRow("f", 1, values))
    assert isinstance(row, Row), row
    assert row.completion.removesuffix(tiny_tokenizer().eos_token) == answer


def test_hub_names_are_those_of_lm_evaluation_harness() -> None:
    """Of the tasks that it reads from the same publisher; SuperGLUE's BoolQ is another form of it."""
    found = find_spec("lm_eval")
    if found is None:
        pytest.skip("lm-eval is not installed")
    folder = Path(str(found.origin)).parent / "tasks"
    glue = {name: f"glue/{name}/default" for name in ("cola", "sst2", "mrpc", "qqp", "mnli", "qnli", "rte")}
    others = {"piqa": "piqa/piqa", "social-iqa": "siqa/siqa", "hellaswag": "hellaswag/hellaswag",
              "winogrande": "winogrande/default", "arc-easy": "arc/arc_easy", "arc-challenge": "arc/arc_challenge",
              "openbookqa": "openbookqa/openbookqa", "gsm8k": "gsm8k/gsm8k"}  # fmt: skip
    ours, theirs = {}, {}
    for name, file in (glue | others).items():
        path = folder / f"{file}.yaml"
        said = path.read_text(encoding="utf-8")
        for included in re.findall(r"^include: (.+)$", said, re.MULTILINE):
            said = (path.parent / included).read_text(encoding="utf-8") + said
        words = dict(re.findall(r"^(dataset_path|dataset_name): (.+)$", said, re.MULTILINE))  # the file's own come last
        config = words.get("dataset_name", "null")
        theirs[name] = words["dataset_path"] + ("" if config == "null" else f":{config}")
        hub = read_task_file(name).hub
        ours[name] = None if hub is None else hub.name
    assert ours == theirs


def test_several_tasks_are_a_mixture_of_equal_weights_that_keeps_every_rule() -> None:
    named = ("boolq", "piqa", "gsm8k", "cola")
    keys = {name: prepare_keys(read_task_file(name), FILES) for name in named}
    shipped = load_params(ROOT / "params.yaml")
    text = apply_changes(ROOT / "params.yaml", task_changes(shipped, mixture_keys(keys)))
    params = check_params(parse_yaml(text, "params.yaml"), "params.yaml")
    assert isinstance(params.prepare, MixtureParams)
    assert params.prepare.weights == dict.fromkeys(named, 1.0)
    assert params.prepare.train_rows == 0.9 * 950 * 4  # PIQA has fewest, 950
    assert {name: section.template for name, section in params.prepare.tasks.items()} == {
        name: keys[name]["template"] for name in named
    }
    assert params.search.objectives[0] == "macro_average"
    family_of(params.prepare)
    lines = text[text.index("    piqa:") : text.index("    gsm8k:")].splitlines()
    assert len(lines) > len(keys["piqa"])  # a key a line, for people to change
    assert list(parse_yaml(text, "params.yaml")["prepare"]) == ["task", "train_rows", "weights", "tasks"]


def test_what_is_wrong_is_said_before_a_folder_is_made(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"one of the library's.*Got: gsm9k"):
        read_task_file("gsm9k")
    with pytest.raises(PipelineError, match=r"must have train.jsonl, validation.jsonl, test.jsonl, or some of them"):
        split_files(read_task_file("gsm8k"), tmp_path)
    with pytest.raises(PipelineError, match=r"hub:openai/gsm8k:main@COMMIT"):
        hub_sources(read_task_file("gsm8k"), f"hub:openai/gsm8k@{COMMIT}#train")
    with pytest.raises(PipelineError, match=r"a folder, since the hub's form is not known"):
        hub_sources(read_task_file("mathqa"), f"hub:a/b@{COMMIT}")
    broken = read_task_file("gsm8k").model_copy(update={"prepare": {"format": "jsonl"}})
    with pytest.raises(PipelineError, match=r"keys of a task must be those of params\.yaml"):
        prepare_keys(broken, FILES)


def test_files_are_found_in_their_folder_and_in_one_of_several_data_sets(tmp_path: Path) -> None:
    (tmp_path / "ARC-Easy").mkdir()
    (tmp_path / "ARC-Easy" / "train.json").write_text("[]")
    found = {"train": tmp_path / "ARC-Easy" / "train.json"}
    assert split_files(read_task_file("arc-easy"), tmp_path) == found
    assert split_files(read_task_file("arc-easy"), tmp_path / "ARC-Easy") == found


@pytest.mark.skipif("REFT_BENCH_DATA" not in os.environ, reason="REFT_BENCH_DATA names no folder of public data")
@pytest.mark.parametrize("name", NAMED)
def test_the_publishers_rows_are_read(name: str) -> None:
    """Of forty rows nearly all; of Alpaca and the seed tasks those with an input."""
    task, tokenizer = read_task_file(name), tiny_tokenizer()
    params = load_params(ROOT / "params.yaml")
    keys = apply_changes(ROOT / "params.yaml", task_changes(params, prepare_keys(task, FILES)))
    section = check_params(parse_yaml(keys, "params.yaml"), "params.yaml").prepare
    section = section.model_copy(update={"max_new_tokens": 10_000})  # the tiny tokenizer's tokens are letters
    reader = RowReader(section, family_of(section), tokenizer, "encoder")
    source = next(iter(split_files(task, Path(os.environ["REFT_BENCH_DATA"])).values()))
    with source.open("rb") as stream:
        raws = list(
            islice(Reader(section.format, section.columns, section.quoting, reader.columns).parse(stream, "f"), 40)
        )
    read = [each for raw in raws for each in reader.read_all(raw)]
    rows, lost = (
        [each for each in read if isinstance(each, Row)],
        [each for each in read if isinstance(each, Rejection)],
    )
    few = name in ("alpaca", "seed-tasks")
    assert len(rows) >= (10 if few else 36), lost[:1]
    assert {each.reason for each in lost} <= {"a text is empty", "two options are the same"}, lost[:1]
    assert all(row.prompt.strip() and row.completion.strip() for row in rows)
    for raw in raws[:4]:
        check_damaged(reader, raw)


@pytest.mark.parametrize("name", HUB_ROWS)
def test_a_damaged_row_of_the_hub_is_rejected(name: str) -> None:
    reader = hub_reader(name)
    check_damaged(reader, RawRow("f", 1, HUB_ROWS[name][0]))


STRANGE: tuple[object, ...] = (
    None,
    "",
    "x" * 50,
    7,
    1.5,
    float("nan"),
    True,
    [],
    ["a"],
    [1, None],
    {},
    {"text": ["a"]},
)


def check_damaged(reader: RowReader, raw: RawRow) -> None:
    """Each column in turn is missing, or holds what it should not: rows or rejections with a reason, and no error."""
    for column in raw.values:
        others = {name: value for name, value in raw.values.items() if name != column}
        for values in (others, *({**raw.values, column: value} for value in STRANGE)):
            for each in reader.read_all(RawRow(raw.file, raw.line, values)):
                assert isinstance(each, Row) or each.reason, (column, values[column])


def test_a_column_may_be_a_path_into_a_json_row() -> None:
    rows = [{"a": [{"b": "x"}], "c": 1}, {"a": [], "c": 2}, {"a.0.b": "own", "a": [{"b": "x"}], "c": 3}]
    stream = io.BytesIO("".join(f"{json.dumps(row)}\n" for row in rows).encode())
    read = Reader("jsonl", None, False, ("a.0.b", "c")).parse(stream, "f")
    assert [row.values.get("a.0.b") for row in read] == ["x", None, "own"]


def test_the_library_makes_no_stage_stale() -> None:
    """Its folder is ignored by DVC, and the hash of the installed code is that of modules."""
    files = [path.relative_to(ROOT).as_posix() for path in LIBRARY.iterdir()]
    assert all(path.endswith(".yaml") for path in files)
    asked: Any = subprocess.run(
        [sys.executable, "-m", "dvc", "check-ignore", *files], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert sorted(asked.stdout.split()) == sorted(files)
