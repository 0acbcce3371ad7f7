"""The library of public tasks: every YAML has the keys of params.yaml, and reads its publisher's rows."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
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
