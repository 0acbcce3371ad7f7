"""What people read of an evaluation: the card of a run and the words of its verdict."""

from __future__ import annotations

import re
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from flows.commands.summary import summary
from flows.runs.cards import run_summary
from flows.runs.outcome import FlowResult, GateOutcome, StageRun
from flows.runs.titles import outcome_title
from pipelines.contracts.diagnostics import CommonAnswer, Diagnostics, Forgetting, SliceFigures
from pipelines.contracts.evaluation import Evaluation, read_evaluation, write_evaluation
from pipelines.contracts.interval import Interval
from pipelines.contracts.prepared import Row
from pipelines.contracts.registration import Registration, write_registration
from pipelines.contracts.search import SearchResult, write_search
from pipelines.contracts.task import TaskSpec
from pipelines.contracts.training import TrainResult, write_training
from pipelines.files import read_json, write_json
from pipelines.project.graph import read_graph
from pipelines.registry.history import evaluation_metrics
from pipelines.reports.evaluation import verdict_words, warning_words
from pipelines.reports.evaluation_markdown import evaluation_markdown
from pipelines.stages.evaluate import compare
from pipelines.tasks.family import open_family
from tests.arrows import ROOT
from tests.pipelines.stages.test_evaluate import SETTINGS, compared, labels

TRUTH = labels((0, 140), (1, 60))
ALTERNATING = np.arange(200) % 2
COMMONEST = np.zeros(200, dtype=np.int64)
FEW = 4

TRAINED = TrainResult("a", 1, 2, 3, 0.5, 0.25, {"rank": 4}, {"rank": 4}, "s", 0, "k")
VERSION = Registration("m", 2, None, "r", "a", "sqlite:///x", "models:/m/2")


def shown(root: Path, evaluation: Evaluation, *, store: str = "sqlite:///x", width: int = 200) -> str:
    """What `reft run` says at its end, of a project with this evaluation."""
    search = SearchResult(
        measure=evaluation.measure, study="s", input_hash="k", complete=1, pruned=0, failed=0, best_trial=0,
        best_origin="proposed by tpe", best_value=0.9, best_spread=None, first_value=0.9, base_value=0.0,
        seconds=1.0, fill_seconds=0.0, confirm_seconds=0.0, saved_seconds=0.0,
    )  # fmt: skip
    graph = read_graph(ROOT)
    for name, write, value in (
        ("evaluation", write_evaluation, evaluation),
        ("train_metrics", write_training, TRAINED),
        ("registration", write_registration, VERSION),
        ("search_metrics", write_search, search),
    ):
        (root / graph.paths[name]).parent.mkdir(exist_ok=True)
        write(root / graph.paths[name], value)  # type: ignore[operator]
    console = Console(width=width, record=True, file=StringIO())
    runs = [StageRun("train", "ran", 1.0)]
    console.print(summary(FlowResult(root, graph, runs, store, pushed=False, gate=GateOutcome(None, None))), crop=False)
    return console.export_text()


@pytest.mark.parametrize(
    ("truth", "edited", "frozen", "words"),
    [
        (TRUTH, TRUTH, ALTERNATING, "better than the base and than always giving the commonest answer"),
        (TRUTH, COMMONEST, ALTERNATING, "not better than always giving the commonest answer by more than chance"),
        (TRUTH, ALTERNATING, ALTERNATING, "not better than the base by more than chance"),
        (TRUTH[138:142], TRUTH[138:142], 1 - TRUTH[138:142], "no verdict: 4 rows are too few, it takes 15"),
    ],
)
def test_the_card_says_the_verdict_beside_the_baselines(
    truth: np.ndarray, edited: np.ndarray, frozen: np.ndarray, words: str, tmp_path: Path
) -> None:
    evaluation = compared(truth, edited, frozen)
    write_evaluation(tmp_path / "evaluation.json", evaluation)
    assert read_evaluation(tmp_path / "evaluation.json") == evaluation
    assert verdict_words(evaluation) == words
    card = evaluation_markdown(evaluation, [], seed=0)
    for said in (
        f"; {words}.",
        "| majority baseline |",
        "| chance baseline | 50.0 % |",
        "| macro F1 |",
        "p = ",
    ):
        assert said in card
    assert evaluation_metrics(evaluation) == evaluation.flat()


def looked_at(evaluation: Evaluation, **changes: Any) -> Evaluation:
    """The evaluation with diagnostics in which nothing is wrong, but for these changes."""
    plain = Forgetting("default", 24, 768, 20.0, 20.2, Interval(0.01, -0.01, 0.02))
    common = {system: CommonAnswer("negative", 0.7) for system in ("adapter", "base")}
    found = Diagnostics(plain, common, {}, 0, [])
    return replace(evaluation, diagnostics=replace(found, **changes))


def planted() -> dict[str, tuple[Evaluation, str]]:
    """By what is wrong, the evaluation and what is to be said."""
    good, half = compared(TRUTH, TRUTH, ALTERNATING), Interval(0.5, 0.4, 0.6)
    counts = {name: {"unreadable_answers": count} for name, count in (("adapter", 30), ("base", 2))}
    unreadable = replace(good, **{name: replace(good.adapter, summary=own) for name, own in counts.items()})
    near = [
        SliceFigures("near a training row", part, rows, rows, half, half, half)
        for part, rows in (("no", 191), ("yes", 9))
    ]
    return {
        "one class": (
            looked_at(good, common={"adapter": CommonAnswer("positive", 1.0)}),
            "The adapter gives 100.0 % of the rows the same answer, 'positive'.",
        ),
        "unreadable": (looked_at(unreadable), "Of the adapter's answers 15.0 % cannot be read, and count as wrong."),
        "broken": (
            looked_at(good, forgetting=Forgetting("default", 24, 768, 20.0, 340.0, Interval(16.0, 12.0, 20.0))),
            "The adapter breaks text that has nothing to do with the task: its perplexity rises from 20 to 340.",
        ),
        "leak": (
            looked_at(good, near_training=9, slices=near),
            "4.5 % of the test rows are nearly a training row; on the others the adapter has 50.0 %.",
        ),
    }


@pytest.mark.parametrize("name", planted())
def test_what_makes_a_figure_worth_less_is_warned_of_on_every_page(name: str, tmp_path: Path) -> None:
    evaluation, words = planted()[name]
    assert warning_words(evaluation) == [words]
    assert words in evaluation_markdown(evaluation, [], seed=0).replace("\\", "")
    assert words in " ".join(shown(tmp_path, evaluation).split())
    write_evaluation(tmp_path / "evaluation.json", evaluation)
    assert warning_words(read_evaluation(tmp_path / "evaluation.json")) == [words]


def test_nothing_is_warned_of_where_nothing_is_wrong() -> None:
    assert warning_words(looked_at(compared(TRUTH, TRUTH, ALTERNATING))) == []


def test_a_file_of_release_0_1_is_read_and_said(tmp_path: Path) -> None:
    evaluation = compared(TRUTH, TRUTH, ALTERNATING)
    write_evaluation(tmp_path / "evaluation.json", evaluation)
    raw = read_json(tmp_path / "evaluation.json")
    for key in ("p_value", "detectable", "least_rows", "baselines", "over_majority"):
        del raw[key]
    for system in ("adapter", "base"):
        del raw[system]["summary"]
    write_json(tmp_path / "evaluation.json", raw)
    old = read_evaluation(tmp_path / "evaluation.json")
    assert verdict_words(old) == "better than the base"
    assert "baseline" not in evaluation_markdown(old, [], seed=0)


def test_the_end_of_a_run_says_the_verdict_beside_the_baselines(tmp_path: Path) -> None:
    """Of 200 rows 140 have the commoner label."""
    said = " ".join(shown(tmp_path, compared(TRUTH, COMMONEST, ALTERNATING)).split())
    for words in (
        "majority baseline │ 70.0 %",
        "chance baseline │ 50.0 %",
        "verdict │ not better than always giving the commonest answer",
    ):
        assert words in said


def test_a_run_of_prefect_is_called_by_project_figure_and_recipe() -> None:
    """140 of 200 rows right, 100 of them without the adapter."""
    evaluation = compared(TRUTH, COMMONEST, ALTERNATING)
    assert outcome_title("films", evaluation, TRAINED) == "films: 70.0 %, +20.0 points, rank 4"


def test_what_is_copied_from_the_end_of_a_run_stands_on_one_line(tmp_path: Path) -> None:
    """In a table of 80 columns the first of these was cut into three."""
    store = f"sqlite:////home/somebody/{'folder/' * 9}mlflow/mlflow.db"
    lines = shown(tmp_path, compared(TRUTH, TRUTH, ALTERNATING), store=store, width=80).splitlines()
    for command in (
        f"mlflow ui --backend-store-uri {store}",
        "reft predict FILE --adapter models:/m/2",
        "git add dvc.lock metrics && git commit",
    ):
        assert any(line.endswith(f": {command}") for line in lines), command


def test_every_page_speaks_of_the_familys_own_measure(tmp_path: Path) -> None:
    """A family without classes and accuracy: 18 of 20 texts are the reference, and of the base none."""
    settings = {"max_new_tokens": 4, "reader": {"name": "exact"}, "measure": "exact_match", "conversation": False}
    task = open_family(TaskSpec("generation", "{text}", False, settings=settings))
    rows = [Row(f"f:{place}", "p", " yes", references=("yes",)) for place in range(20)]
    texts = ["yes"] * 18 + ["no", ""]
    evaluation = compare(task, rows, texts, ["no"] * 20, SETTINGS, seed=0, adapter_sha256="0" * 64)
    table = shown(tmp_path, evaluation)
    figures = {"card": evaluation_markdown(evaluation, [], seed=0), "run": run_summary([], evaluation, VERSION)}
    unreadable = re.compile(r"unreadable answers[^0-9]*0 \(0\.0 %\)[^0-9]+1 \(5\.0 %\)", re.IGNORECASE)  # base, adapter
    assert "proposed by tpe" in table  # where the recipe came from
    for page, text in {**figures, "summary": table}.items():
        assert "exact match" in text, page
        assert "90.0 %" in text, page
        assert "accuracy" not in text.lower(), page
        assert page == "run" or unreadable.search(text), page
    measured = evaluation_metrics(evaluation)
    assert (measured["adapter.exact_match"], measured["base.exact_match"]) == (0.9, 0.0)
