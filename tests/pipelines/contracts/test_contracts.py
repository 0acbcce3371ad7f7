"""What a stage leaves is written and read in contracts alone, and each reader gives what the writer got."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from dvc.fs import localfs
from dvc.repo.metrics.show import _read_metric
from pyarrow import parquet

from pipelines.contracts.best import Best, read_chosen, write_best
from pipelines.contracts.card import DataCard, Domains, Overlap, SplitCard, read_card, write_card
from pipelines.contracts.confirmed import Confirmed, read_confirmed, write_confirmed
from pipelines.contracts.diagnostics import (
    Calibration,
    CommonAnswer,
    Diagnostics,
    Forgetting,
    ReliabilityBin,
    SliceFigures,
)
from pipelines.contracts.evaluation import Against, Evaluation, SystemFigures, read_evaluation, write_evaluation
from pipelines.contracts.interval import Interval
from pipelines.contracts.predictions import Prediction, Said, read_predictions, write_predictions
from pipelines.contracts.prepared import SPLITS, Row, read_rows, write_rows
from pipelines.contracts.registration import Registration, read_registration, write_registration
from pipelines.contracts.search import SearchResult, read_search, write_search
from pipelines.contracts.task import TaskSpec, prompt_task, read_task, write_task
from pipelines.contracts.training import TrainResult, read_training, write_training
from pipelines.contracts.trials import TrialRecord, read_trials, write_trials
from pipelines.errors import PipelineError
from pipelines.files import read_json, write_json
from pipelines.project.graph import read_graph
from tests.arrows import ROOT, modules

SPLIT = SplitCard(2, {"a": 1, "b": 1}, {"p50": 3.0, "max": 4}, Domains(1.0, 2.0, 2))
SYSTEM = SystemFigures(0.8, 0.7, 0.9, {"a": {"f1": 0.5, "support": 3}}, {"macro_f1": 0.5})
OVER = Against(Interval(0.1, 0.0, 0.2), 0.5, False)
WHOLE = Evaluation(
    "a",
    "exact_match",
    5,
    4,
    0.95,
    SYSTEM,
    SYSTEM,
    Interval(0.0, -0.1, 0.1),
    0.5,
    0.2,
    15,
    {"majority": 0.5},
    OVER,
    False,
    diagnostics=Diagnostics(
        Forgetting("default", 24, 768, 20.5, 21.0, Interval(0.02, -0.01, 0.05)),
        {"adapter": CommonAnswer("a", 0.75)},
        {"adapter": Calibration(0.25, [ReliabilityBin(0.5, 0.6, 4, 0.55, 0.8)])},
        1,
        [SliceFigures("label", "a", 3, 3, *[Interval(0.5, 0.25, 0.75)] * 3)],
    ),
)
TRIAL = TrialRecord(
    number=3, state="complete", value=0.5, values=(0.5, 7.0), params={"rank": 4, "layers": "all"}, seed=1,
    intermediate={1: 0.25, 2: 0.5}, parameters=7, seconds=1.5, fill_seconds=0.5, tokens=9, memory_mb=3.5,
    over=("seconds",), enqueued=None, error=None,
)  # fmt: skip
FILES: dict[str, tuple[Callable[[Path, Any], None], Callable[[Path], Any], Any]] = {
    "card": (
        write_card, read_card,
        DataCard(
            "file:x", None, "0", 9, {"a text is empty": 2}, 1, {"rows": 0}, 0, dict.fromkeys(SPLITS, SPLIT),
            overlap=Overlap(1, 2, 3, 4),
        ),
    ),
    "best": (write_best, read_chosen, Best({"rank": 4, "layers": "all"}, "search-1", 3, "proposed", 0.5, None)),
    "trials": (write_trials, read_trials, [TRIAL]),
    "confirmed": (write_confirmed, read_confirmed, [Confirmed(3, (1, 2), (0.5, None), None, None, 2.0)]),
    "search": (
        write_search, read_search,
        SearchResult("exact_match", "s", "k", 1, 2, 3, 4, "proposed", 0.5, None, None, 0.1, 1.0, 0.5, 0.0, 0.0),
    ),
    "training": (
        write_training, read_training, TrainResult("a", 1, 2, 3, 0.5, 0.25, {"rank": 4}, {"rank": 4}, "s", 0, "k")
    ),
    "evaluation": (
        write_evaluation, read_evaluation,
        WHOLE,
    ),
    "predictions": (
        write_predictions, read_predictions,
        [
            Prediction("f:1", "p", Said("a", {"probabilities": {"a": 0.75, "b": 0.25}}), Said("b"), "a", domain=0.0),
            Prediction("f:2", "p", Said(4.0), Said("four", {"logits": [1.0]}), references=("4", "four")),
        ],
    ),
    "registration": (
        write_registration, read_registration, Registration("m", 2, None, "r", "a", "sqlite:///x", "models:/m/2")
    ),
}  # fmt: skip
MADE = [name for name in FILES if name not in ("best", "predictions")]


@pytest.mark.parametrize("name", FILES)
def test_a_reader_gives_what_the_writer_got(name: str, tmp_path: Path) -> None:
    write, read, value = FILES[name]
    write(tmp_path / name, value)
    assert read(tmp_path / name) == value


@pytest.mark.parametrize("name", FILES)
def test_another_field_or_kind_of_file_is_refused_with_the_stage_to_run(name: str, tmp_path: Path) -> None:
    write, read, value = FILES[name]
    write(tmp_path / name, value)
    (tmp_path / "number").write_text("3", encoding="utf-8")
    with pytest.raises(PipelineError, match=r"Run: dvc repro -f -s \w+"):
        read(tmp_path / "number")
    if name in MADE:
        raw = read_json(tmp_path / name)
        strange = [{**raw[0], "strange": 1}] if isinstance(raw, list) else {**raw, "strange": 1}
        write_json(tmp_path / "strange", strange)
        with pytest.raises(PipelineError, match="strange"):
            read(tmp_path / "strange")


@pytest.mark.parametrize("name", ["card", "search", "training", "evaluation"])
def test_dvc_prints_the_figures_of_a_metrics_file_and_no_identity(name: str, tmp_path: Path) -> None:
    write, read, value = FILES[name]
    hashed = [field.name for field in fields(value) if field.name.endswith(("sha256", "hash")) or field.name == "study"]
    value = replace(value, **dict.fromkeys(hashed, "0" * 64))
    write(tmp_path / f"{name}.json", value)
    printed = _read_metric(localfs, str(tmp_path / f"{name}.json"))  # what `dvc metrics show` and `diff` print
    assert hashed
    assert "0" * 64 not in json.dumps(printed)
    assert len(printed) >= len(fields(value)) - len(hashed) - 3  # a null is no figure either
    raw = read_json(tmp_path / f"{name}.json")
    (identities,) = raw.pop("identities")
    write_json(tmp_path / "0.1.json", {**raw, **identities})
    assert read(tmp_path / "0.1.json") == read(tmp_path / f"{name}.json") == value


def test_a_row_keeps_what_it_has_and_its_file_has_nothing_else(tmp_path: Path) -> None:
    rows = [
        Row("f:1", "p", " a", "a"),
        Row("f:2", "p", " b", domain=0.0, choices=("a", "b"), references=("b",), group="g"),
    ]
    write_rows(tmp_path, "train", rows)
    assert read_rows(tmp_path, "train") == rows
    first = (tmp_path / "train.jsonl").read_text(encoding="utf-8").splitlines()[0]
    assert first == '{"id": "f:1", "prompt": "p", "completion": " a", "label": "a"}'


PREDICTED = [
    Prediction("f:1", "p", Said("a", {"probabilities": {"a": 0.75, "b": 0.25}}, 1.0), Said("b", {}, 0.0), "a"),
    Prediction("f:2", "q", Said("b", {"probabilities": {"a": 0.5, "b": 0.5}}, 0.0), Said("b", {}, 0.0), "a", domain=2),
]


def test_predictions_are_a_table_whose_columns_have_the_types_that_programs_expect(tmp_path: Path) -> None:
    path = tmp_path / "predictions.parquet"
    write_predictions(path, PREDICTED)
    columns = {field.name: str(field.type) for field in parquet.read_schema(path)}
    assert columns.pop("adapter_probabilities").startswith("map<string, double")
    texts = dict.fromkeys(("id", "task", "prompt", "second", "label", "adapter", "base"), "string")
    numbers = dict.fromkeys(("domain", "adapter_score", "base_score"), "double")
    lists = dict.fromkeys(("choices", "references"), "list<element: string>")
    assert columns == {**texts, **numbers, **lists}
    written = path.read_bytes()
    write_predictions(path, PREDICTED)
    assert path.read_bytes() == written


def test_a_column_of_a_mixture_whose_tasks_have_other_kinds_gives_each_row_its_own(tmp_path: Path) -> None:
    """A choice has its options' probabilities in a list, a classification by label; a number is a number."""
    kinds: list[tuple[str | float, dict[str, object]]] = [
        ("a", {"probabilities": {"a": 1.0}}), ("A", {"probabilities": [0.5, 0.5], "index": 1}), (2.5, {"answer": 3}),
    ]  # fmt: skip
    rows = [Prediction("f:1", "p", Said(value, details, 0.5), Said("b"), task="t") for value, details in kinds]
    write_predictions(tmp_path / "mixed", rows)
    assert read_predictions(tmp_path / "mixed") == rows


def test_predictions_that_release_0_1_wrote_are_read(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    line = '{"id": "f:1", "prompt": "p", "label": "a", "adapter": "a", "base": "b"'
    path.write_text(line + ', "adapter_probabilities": {"a": 0.75, "b": 0.25}}', encoding="utf-8")
    unscored = [replace(getattr(PREDICTED[0], name), score=None) for name in ("adapter", "base")]
    assert read_predictions(path) == [replace(PREDICTED[0], adapter=unscored[0], base=unscored[1])]
    path.write_text(line + ', "strange": 1}', encoding="utf-8")
    with pytest.raises(PipelineError, match="strange"):
        read_predictions(path)


@pytest.mark.parametrize("damage", ["cut", "other columns", "gone"])
def test_a_damaged_table_of_predictions_is_refused(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "predictions.parquet"
    write_predictions(path, PREDICTED)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-20])
    elif damage == "other columns":
        parquet.write_table(parquet.read_table(path).rename_columns({"label": "strange"}), path)
    else:
        path.unlink()
    with pytest.raises(PipelineError, match=r"Run: dvc repro -f -s evaluate|Run the stage that writes it"):
        read_predictions(path)


def test_a_task_is_read_as_it_was_written_from_its_file_and_from_an_adapter(tmp_path: Path) -> None:
    for name, settings in (
        ("classification", {"labels": {"b": " b", "a": " a"}}),
        ("generation", {"max_new_tokens": 3}),
    ):
        task = TaskSpec(name, "{text}", True, "year", settings)
        write_task(tmp_path, task)
        assert read_task(tmp_path) == task == prompt_task(task.prompt(reads_domain=True))
    assert "task" not in TaskSpec("classification", "{text}", True).prompt(
        reads_domain=False
    )  # as release 0.1 wrote it


def test_an_evaluation_of_release_0_1_is_one_of_accuracy(tmp_path: Path) -> None:
    write_evaluation(tmp_path / "new", replace(WHOLE, measure="accuracy"))
    raw = read_json(tmp_path / "new")
    del raw["measure"]
    write_json(tmp_path / "old", raw)
    assert read_evaluation(tmp_path / "old").measure == "accuracy"


# --- nobody else reads them ------------------------------------------------------------------------------------

RAW_READERS = {"read_json", "read_jsonl", "read_yaml", "loads", "load"}
METRICS = {
    "evaluation",
    "train_metrics",
    "search_metrics",
    "card",
    "registration",
    "predictions",
}  # in dvc.yaml's paths
INSIDE = {"trials.json", "confirmed.json", "best.yaml", "task.json", "base.json"}


def raw_readings(tree: ast.Module) -> Iterator[str]:
    """The calls that read JSON or YAML as it stands, by a function of the same file or not, and name a stage's file."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    readers = RAW_READERS | {each.name for each in functions if RAW_READERS & set(map(called, calls_of(each)))}
    for call in calls_of(tree):
        if called(call) in readers and words_of(call) & (METRICS | INSIDE):
            yield ast.unparse(call)


def calls_of(tree: ast.AST) -> list[ast.Call]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def words_of(call: ast.Call) -> set[object]:
    """The names and texts in a call's arguments."""
    nodes = [node for argument in (*call.args, *call.keywords) for node in ast.walk(argument)]
    return {getattr(node, "id", getattr(node, "attr", getattr(node, "value", None))) for node in nodes
            if isinstance(node, ast.Name | ast.Attribute | ast.Constant)}  # fmt: skip


def test_nobody_reads_a_stages_file_as_a_mapping() -> None:
    assert set(read_graph(ROOT).paths) >= METRICS
    others = {name: file for name, file in modules().items() if not name.startswith("pipelines.contracts")}
    found = {
        (name, function)
        for name, file in others.items()
        if name.startswith(("pipelines", "flows"))
        for function in raw_readings(ast.parse(file.read_text(encoding="utf-8")))
    }
    assert found == set()


def test_a_planted_reading_is_found() -> None:
    code = "def read(path):\n    return json.loads(path.read_text())\n"
    assert list(raw_readings(ast.parse(code))) == []
    code += 'a = read(paths["evaluation"])["adapter"]\nb = read_yaml(f / "best.yaml")\n'
    found = list(raw_readings(ast.parse(code)))
    assert sorted(found) == ["read(paths['evaluation'])", "read_yaml(f / 'best.yaml')"]
