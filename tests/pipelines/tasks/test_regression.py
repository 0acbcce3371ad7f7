"""A task whose answers are numbers: how rows are made, how words say a number, and what correlation says of them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from pipelines.contracts.evaluation import read_evaluation
from pipelines.contracts.predictions import read_predictions
from pipelines.contracts.prepared import Rejection, Row, read_rows
from pipelines.contracts.task import TaskSpec
from pipelines.errors import PipelineError
from pipelines.files import read_json
from pipelines.model.intervals import Resampling, against, each_alone, figure
from pipelines.params.whole import Params, check_params
from pipelines.serving.pyfunc import AdapterModel
from pipelines.sources.raw_row import RawRow
from pipelines.tasks.family import family_of, open_family
from pipelines.tasks.measures import Correlation
from pipelines.tasks.reader import RowReader
from tests.pipelines.staged import run_stages, write_json_rows
from tests.searching import FEW, raw_params
from tests.tiny import tiny_tokenizer, write_tiny_base

pytestmark = pytest.mark.usefixtures("same_home")

CHANGES: dict[str, Any] = FEW | {
    "prepare.task": "regression",
    "prepare.source": "file:data/own/rows.jsonl",
    "prepare.format": "jsonl",
    "prepare.template": "Review: {text}\nStars:",
    "search.objectives": ["pearson"],
    "search.trials": 1,
    "search.space.layers": ["all"],
    "search.enqueue": [{"layers": "all", "positions": "l4", "rank": 4, "learning_rate": 0.02}],
    "train.epochs": 8,
    "train.batch_size": 8,
}
KEYS: dict[str, Any] = {
    "number_column": "stars", "low": 1.0, "high": 5.0, "words": {" 1": 1.0, " 3": 3.0, " 5": 5.0}, "measure": "pearson"
}  # fmt: skip
SPEC = TaskSpec("regression", "{text}", False, settings={name: KEYS[name] for name in KEYS if name != "number_column"})


def make_params(**changes: Any) -> Params:
    raw = raw_params(CHANGES)
    for key in ("label_column", "labels", "measure"):
        del raw["prepare"][key]
    raw["prepare"] |= KEYS | changes
    return check_params(raw, "params.yaml")


def rows_of(numbers: list[float]) -> list[Row]:
    return [Row(f"f:{place}", "p", " 1", references=(repr(number),)) for place, number in enumerate(numbers)]


@pytest.fixture(scope="module")
def project(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    write_tiny_base(root / "models" / "own" / "tiny")
    words = {1.0: "awful", 2.5: "so so", 4.5: "lovely"}
    rows = [
        {"text": f"{word} film, number {place}.", "stars": stars}
        for place in range(14)
        for stars, word in words.items()
    ]
    write_json_rows(root, rows)
    run_stages(root, make_params())
    return root


def test_a_row_is_trained_on_the_word_of_the_nearest_number_and_keeps_its_own(project: Path) -> None:
    found = {(row.references, row.completion) for row in read_rows(project / "prepared", "train")}
    assert found == {(("1.0",), " 1"), (("2.5",), " 3"), (("4.5",), " 5")}


def test_the_figures_of_the_evaluation_are_those_of_its_predictions(project: Path) -> None:
    evaluation, rows = read_evaluation(project / "evaluation.json"), read_predictions(project / "predictions.parquet")
    right = [float(row.references[0]) for row in rows]
    for system, figures in (("adapter", evaluation.adapter), ("base", evaluation.base)):
        said = [getattr(row, system).value for row in rows]
        off = [getattr(row, system).score for row in rows]
        assert off == pytest.approx(-np.abs(np.subtract(said, right)), abs=2e-6)
        assert figures.value == pytest.approx(
            stats.pearsonr(said, right).statistic, abs=1e-3
        )  # six digits of close numbers
        assert figures.summary["spearman"] == pytest.approx(stats.spearmanr(said, right).statistic, abs=1e-3)
        assert figures.summary["mean_absolute_error"] == pytest.approx(np.abs(np.subtract(said, right)).mean())
        assert figures.low <= figures.value <= figures.high
    assert read_json(project / "search.json")["measure"] == "pearson"
    assert evaluation.difference.value == pytest.approx(evaluation.adapter.value - evaluation.base.value)


def test_the_served_model_says_what_the_evaluation_noted(project: Path) -> None:
    served = AdapterModel()
    served.load_context(SimpleNamespace(artifacts={"adapter": project / "adapter", "base": project / "base.json"}))
    rows = read_predictions(project / "predictions.parquet")[:3]
    texts = [row.prompt.removeprefix("Review: ").removesuffix("\nStars:") for row in rows]
    said = served.predict(texts)
    assert [set(one) for one in said] == [{"number"}] * 3
    assert [one["number"] for one in said] == pytest.approx([row.adapter.value for row in rows], abs=1e-4)


def test_the_answer_is_the_expected_value_of_the_words_numbers() -> None:
    said = np.log([0.2, 0.2, 0.1])  # half of the probability is of other words; of these it is 0.4, 0.4 and 0.2
    assert open_family(SPEC).read(rows_of([1.0])[0], said).value == pytest.approx(0.4 * 1 + 0.4 * 3 + 0.2 * 5)


def test_a_heads_number_is_read_and_scored_within_the_bounds() -> None:
    """Heads count low as 0 and high as 1, and may say less or more; of 1 to 5, 0.5 is 3."""
    task, rows = open_family(SPEC), rows_of([1.0, 3.0, 4.0])
    said = [-0.3, 0.5, 1.2]
    assert [task.read(row, answer).value for row, answer in zip(rows, said, strict=True)] == [1.0, 3.0, 5.0]
    assert task.scores(rows, said).tolist() == [[1.0, 1.0], [3.0, 3.0], [5.0, 4.0]]
    assert task.summary(rows, said)["mean_absolute_error"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(("value", "reason"), [("many", "not a number"), (None, "not a number"), (5.1, "not between")])
def test_what_is_no_number_between_the_bounds_is_rejected(value: object, reason: str) -> None:
    keys = make_params().prepare
    found = RowReader(keys, family_of(keys), tiny_tokenizer()).read(RawRow("f", 1, {"text": "t", "stars": value}))
    assert isinstance(found, Rejection)
    assert reason in found.reason


def test_rows_of_one_number_are_refused_since_nothing_goes_with_them() -> None:
    with pytest.raises(PipelineError, match="at least two numbers"):
        open_family(SPEC).check_split("train", rows_of([3.0, 3.0]))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"low": 5.0}, "low must be below high"),
        ({"words": {" 1": 1.0, " 9": 9.0}}, "words stand for numbers from low to high"),
        ({"words": {" 1": 1.0}}, "words are two or more"),
        ({"words": {" 1": 1.0, " one": 1.0}}, "words are two or more"),
    ],
)
def test_bounds_and_words_that_cannot_be_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(PipelineError, match=said):
        make_params(**changes)


@pytest.mark.parametrize(("name", "reference"), [("pearson", stats.pearsonr), ("spearman", stats.spearmanr)])
def test_correlations_are_those_of_scipy_also_of_equal_numbers(name: str, reference: Any) -> None:
    generator = np.random.default_rng(3)
    for _ in range(20):
        right = generator.integers(0, 5, 40).astype(float)  # with many ties
        scores = np.column_stack([np.round(right + generator.normal(0, 2, 40), 1), right])
        assert Correlation(name).add_up(scores) == pytest.approx(reference(*scores.T).statistic, abs=1e-12)


def test_answers_that_are_all_the_same_have_no_correlation() -> None:
    assert Correlation("pearson").add_up(np.array([[2.0, 1.0], [2.0, 4.0]])) == 0.0


def test_the_interval_by_value_and_rows_is_fishers() -> None:
    generator = np.random.default_rng(0)
    right = generator.normal(size=60)
    found = stats.pearsonr(said := right + generator.normal(size=60), right)
    measure = Correlation("pearson")
    expected = found.confidence_interval(0.9)
    value = measure.add_up(np.column_stack([said, right]))
    assert measure.interval(value, 60, 0.9) == pytest.approx((expected.low, expected.high))
    # One standard error of so many rows is about a quarter of the width of a 95 % interval.
    low, high = measure.interval(value, 60, 0.95)
    assert measure.error(value, 60) == pytest.approx((high - low) / (2 * 1.96), rel=0.05)


def test_the_interval_of_a_correlation_resamples_rows() -> None:
    generator = np.random.default_rng(1)
    right = generator.normal(size=80)
    said = right + generator.normal(size=80)
    found = figure(Correlation("pearson"), np.column_stack([said, right]), Resampling(0.95, 4000, 0, each_alone(80)))
    expected = stats.bootstrap(
        (said, right), lambda a, b: stats.pearsonr(a, b).statistic, paired=True, vectorized=False, method="percentile",
        n_resamples=4000, rng=np.random.default_rng(5),
    ).confidence_interval  # fmt: skip
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.02)


def test_better_is_what_the_paired_bootstrap_of_the_correlation_shows() -> None:
    generator = np.random.default_rng(2)
    right = generator.normal(size=100)
    near, far = right + generator.normal(0, 0.3, 100), right + generator.normal(0, 3.0, 100)
    measure, how = Correlation("spearman"), Resampling(0.95, 500, 0, each_alone(100))
    sides = [np.column_stack([said, right]) for said in (near, far)]
    won, lost = against(measure, sides[:1], sides[1:], how), against(measure, sides[1:], sides[:1], how)
    assert (won.better, lost.better) == (True, False)
    assert won.difference.value == pytest.approx(
        stats.spearmanr(near, right).statistic - stats.spearmanr(far, right).statistic
    )
    assert not against(measure, sides[:1], sides[:1], how).better
