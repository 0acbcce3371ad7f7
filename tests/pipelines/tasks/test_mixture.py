"""A mixture's rows are asked, read and scored as their own tasks do, and its measure is the mean over tasks."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import matthews_corrcoef

from pipelines.contracts.evaluation import TaskFigures
from pipelines.contracts.prepared import Row
from pipelines.contracts.task import TaskSpec
from pipelines.errors import PipelineError
from pipelines.model.intervals import holm
from pipelines.params.whole import EvaluateParams, check_params
from pipelines.reports.evaluation import task_rows, verdict_words
from pipelines.stages.evaluate import by_task, compare
from pipelines.tasks.family import open_family
from pipelines.tasks.measures import MacroAverage, Mean, Proportion
from tests.searching import RAW

SETTINGS = EvaluateParams(batch_size=8, confidence=0.95, bootstrap=500, neutral="default", slices=[])
CHOICE: dict[str, Any] = {
    "task": "choice", "template": "{q}", "chat": False, "split": None, "option_columns": [], "options": ["a", "b"],
    "score": "sum", "train_on": "answer",
}  # fmt: skip
MATTHEWS: dict[str, Any] = {
    "task": "classification", "template": "{q}", "chat": False, "labels": {"no": " no", "yes": " yes"},
    "measure": "matthews",
}  # fmt: skip


def mixture(**tasks: dict[str, Any]) -> Any:
    return open_family(TaskSpec("mixture", "", chat=False, settings={"tasks": tasks}))


def choice_row(task: str, number: int, right: str) -> Row:
    return Row(
        f"{task}:{number}", "q", f" {right}", right.upper(), choices=(" a", " b"), choice_tokens=(1, 1), task=task
    )


def says(place: int) -> Any:
    return np.log([0.8, 0.2] if place == 0 else [0.2, 0.8])


def answered(sizes: dict[str, int], hits: dict[str, float], seed: int) -> tuple[list[Row], list[Any], dict[str, Any]]:
    """Rows of choice tasks in a random order, answers that are right as often as `hits` says, and which are right."""
    rng = np.random.default_rng(seed)
    rows = [
        choice_row(task, n, "a" if rng.random() < 0.5 else "b") for task, size in sizes.items() for n in range(size)
    ]
    rows = [rows[place] for place in rng.permutation(len(rows))]
    right = [rng.random() < hits[row.task] for row in rows]
    said = [says(int((row.label == "B") == good)) for row, good in zip(rows, right, strict=True)]
    found = {task: np.array([r for row, r in zip(rows, right, strict=True) if row.task == task]) for task in sizes}
    return rows, said, found


SIZES = {"one": 40, "two": 120, "three": 60, "four": 200}


def test_figures_of_tasks_and_their_mean_are_numpys() -> None:
    task = mixture(**dict.fromkeys(SIZES, CHOICE))
    rows, said, right = answered(SIZES, {"one": 0.9, "two": 0.6, "three": 0.7, "four": 0.8}, 0)
    frozen_said = answered(SIZES, dict.fromkeys(SIZES, 0.55), 0)[1]
    frozen = {
        name: np.array(
            [s.argmax() == (row.label == "B") for row, s in zip(rows, frozen_said, strict=True) if row.task == name]
        )
        for name in SIZES
    }
    whole = compare(task, rows, said, frozen_said, SETTINGS, seed=0, adapter_sha256="0" * 64)
    parts = by_task(task, rows, said, frozen_said, SETTINGS, seed=0)
    assert whole.measure == "macro_average"
    assert whole.adapter.value == pytest.approx(np.mean([right[name].mean() for name in SIZES]))
    assert whole.base.value == pytest.approx(np.mean([frozen[name].mean() for name in SIZES]))
    assert whole.baselines["chance"] == pytest.approx(0.5)
    majority = {n: np.mean([row.label == "A" for row in rows if row.task == n]) for n in SIZES}
    assert whole.baselines["majority"] == pytest.approx(np.mean([max(m, 1 - m) for m in majority.values()]))
    p_values = []
    for name, part in parts.items():
        assert (part.rows, part.measure) == (SIZES[name], "accuracy")
        assert (part.adapter.value, part.base.value) == (right[name].mean(), frozen[name].mean())
        won, lost = (right[name] & ~frozen[name]).sum(), (~right[name] & frozen[name]).sum()
        assert part.p_value == pytest.approx(stats.binomtest(int(won), int(won + lost)).pvalue)
        p_values.append(part.p_value)
    assert [part.adjusted_p_value for part in parts.values()] == holm(p_values)
    assert list(parts) == list(SIZES)


def test_the_interval_of_the_mean_is_that_of_independent_tasks() -> None:
    """The variance of a mean over T tasks is the sum of theirs, p (1 - p) / n each, over T squared."""
    task = mixture(**dict.fromkeys(SIZES, CHOICE))
    rows, said, right = answered(SIZES, {"one": 0.9, "two": 0.6, "three": 0.7, "four": 0.8}, 1)
    found = compare(task, rows, said, said, SETTINGS, seed=0, adapter_sha256="0" * 64).adapter
    variance = sum(right[name].mean() * (1 - right[name].mean()) / SIZES[name] for name in SIZES) / len(SIZES) ** 2
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * variance**0.5, rel=0.15)  # 500 resamples


def test_a_task_is_better_only_beyond_holm() -> None:
    """One task wins 9 rows and loses none, and the others change nothing: p = 2 / 2^9, twice that of two tasks, and
    forty times that of forty, where it is 0.16."""
    rows = [choice_row(f"t{task}", n, "ab"[n % 2]) for task in range(40) for n in range(60)]
    before = [9 <= int(row.id.split(":")[1]) < 50 for row in rows]
    after = [
        good or (row.task == "t0" and row.id in {f"t0:{n}" for n in range(9)})
        for row, good in zip(rows, before, strict=True)
    ]

    def found(count: int) -> TaskFigures:
        some = range(60 * count)
        said = [[says(int((rows[p].label == "B") == good[p])) for p in some] for good in (after, before)]
        task = mixture(**dict.fromkeys([f"t{n}" for n in range(count)], CHOICE))
        return by_task(task, rows[: 60 * count], *said, SETTINGS, seed=0)["t0"]

    assert found(2).adjusted_p_value == pytest.approx(2 * 2 / 2**9)
    assert found(2).better
    assert found(40).adjusted_p_value == pytest.approx(40 * 2 / 2**9)
    assert not found(40).better


def test_measures_of_several_kinds_are_averaged_each_by_its_own_rule() -> None:
    task = mixture(pairs=CHOICE, grammar=MATTHEWS)
    rng = np.random.default_rng(0)
    pairs = [choice_row("pairs", n, "a") for n in range(30)]
    grammar = [Row(f"g:{n}", "q", f" {w}", w, task="grammar") for n, w in enumerate(rng.choice(["no", "yes"], 50))]
    rows = [row for both in zip(pairs, grammar[:30], strict=True) for row in both] + grammar[30:]
    places = [int(rng.random() < 0.4) for _ in rows]
    scores = task.scores(rows, [says(place) for place in places])
    assert scores.shape == (80, 3)
    accuracy = np.mean([place == 0 for row, place in zip(rows, places, strict=True) if row.task == "pairs"])
    truth = [row.label for row in rows if row.task == "grammar"]
    said = [["no", "yes"][place] for row, place in zip(rows, places, strict=True) if row.task == "grammar"]
    expected = (accuracy + matthews_corrcoef(truth, said)) / 2
    assert task.measure.add_up(scores) == pytest.approx(expected)
    assert "chance" not in task.baselines(rows)  # Matthews correlation has none
    assert task.measure.add_up(task.baselines(rows)["majority"]) == pytest.approx((1.0 + 0.0) / 2)


def test_means_by_counting_are_those_by_each_tasks_rule() -> None:
    measure = MacroAverage("macro_average", width=2, tasks=(Proportion("x"), Mean("y"), Proportion("z")))
    slow = MacroAverage("macro_average", width=2, tasks=(Proportion("x", is_mean=False), Mean("y"), Proportion("z")))
    rng = np.random.default_rng(0)
    scores = np.column_stack([rng.choice([0, 2], 40), rng.random(40)])  # no row is of the second
    assert measure.add_up(scores) == pytest.approx(slow.add_up(scores))


def test_pages_say_the_tasks_and_that_the_verdict_is_of_their_mean() -> None:
    task = mixture(one=CHOICE, two=CHOICE)
    rows, said, _ = answered({"one": 100, "two": 100}, {"one": 1.0, "two": 0.5}, 0)
    frozen = answered({"one": 100, "two": 100}, {"one": 0.5, "two": 0.5}, 0)[1]
    whole = compare(task, rows, said, frozen, SETTINGS, seed=0, adapter_sha256="0" * 64)
    whole = replace(whole, tasks=by_task(task, rows, said, frozen, SETTINGS, seed=0))
    assert whole.better
    assert verdict_words(whole).endswith("as the mean over 2 tasks; by themselves 1 of them are better")
    lines = task_rows(whole)
    assert [(line[0], line[1], line[2], line[-1]) for line in lines] == [
        ("one", "accuracy", "100", "yes"), ("two", "accuracy", "100", "no"),
    ]  # fmt: skip
    flat = whole.flat()
    assert flat["task.one.adapter.accuracy"] == 1.0
    assert flat["task.two.difference.adjusted_p_value"] == whole.tasks["two"].adjusted_p_value


def section(**changes: Any) -> dict[str, Any]:
    raw = copy.deepcopy(RAW)
    one = raw["prepare"]
    raw["search"]["objectives"] = ["macro_average"]
    tasks = {"first": {**one, "train_rows": 400}, "second": {**one, "train_rows": 400}}
    raw["prepare"] = {"task": "mixture", "train_rows": 600, "weights": {"first": 1.0, "second": 2.0}, "tasks": tasks}
    raw["prepare"] |= changes
    return raw


def refused(raw: dict[str, Any], match: str) -> None:
    with pytest.raises(PipelineError, match=match):
        check_params(raw, "params.yaml")


def test_params_say_a_mixture_and_what_is_not_supported_is_refused() -> None:
    params = check_params(section(), "params.yaml")
    assert params.prepare.validation_rows == 2 * RAW["prepare"]["validation_rows"]
    refused(section(weights={"first": 1.0}), r"weights must name the tasks, each once; got first beside first, second")
    refused(section(train_rows=801), r"at most those of all tasks together, 800; got 801")
    raw = section()
    raw["prepare"]["tasks"]["second"]["domain_column"] = "year"
    raw["prepare"]["tasks"]["second"]["columns"] = None
    refused(raw, r"tasks.second.domain_column must be null: no task of a mixture has domains; got 'year'")
    raw = section()
    raw["prepare"]["tasks"]["second"]["growing"] = {"validation": 0.2, "test": 0.2}
    refused(raw, r"tasks.second.growing must be null: a text of one task may come to be another's test row")
    raw = section()
    raw["refresh"]["scheduled"] = True
    refused(raw, r"refresh.scheduled: new rows are taken in of one task. Got: prepare.task: mixture")
    raw = section()
    raw["prepare"]["tasks"]["second"] |= {"template": "{task}", "columns": None}
    refused(raw, r"tasks.second must read no column 'task'")
    raw = section()
    raw["base"]["kind"] = "encoder"
    refused(raw, r"prepare.task: mixture needs base.kind: decoder, since a head answers one task")
    raw = section()
    raw["search"]["objectives"] = ["accuracy"]
    refused(raw, r"search.objectives must begin with macro_average")
    raw = section()
    raw["prepare"]["tasks"]["second"]["temlate"] = "x"
    refused(raw, r"prepare.tasks.second.temlate: unknown key; did you mean 'template'")
    raw = section()
    raw["prepare"]["tasks"]["second"]["labels"]["negative"]["word"] = None
    refused(raw, r"prepare.tasks.second.labels.negative.word must not be null with base.kind: decoder")
