"""The figures of an evaluation, against values worked out elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.contracts.evaluation import Evaluation
from pipelines.contracts.prepared import Row
from pipelines.contracts.task import TaskSpec
from pipelines.model.intervals import measured_difference, paired_difference
from pipelines.params.whole import EvaluateParams
from pipelines.stages.evaluate import compare
from pipelines.tasks.family import open_family
from pipelines.tasks.measures import Proportion

SETTINGS = EvaluateParams(batch_size=8, confidence=0.95, bootstrap=2000)
LABELS = ["negative", "positive"]
TASK = open_family(
    TaskSpec("classification", "{text}", False, settings={"labels": {label: f" {label}" for label in LABELS}})
)


def compared(truth: np.ndarray, edited: np.ndarray, frozen: np.ndarray) -> Evaluation:
    """What the stage says of two systems that give these labels, each with a probability of 0.9."""
    rows = [Row(f"f:{place}", "p", f" {LABELS[right]}", LABELS[right]) for place, right in enumerate(truth)]
    said = [[np.log([0.1, 0.9] if label else [0.9, 0.1]) for label in system] for system in (edited, frozen)]
    return compare(TASK, rows, *said, SETTINGS, seed=0, adapter_sha256="0" * 64)


def test_accuracy_has_the_wilson_interval() -> None:
    truth = np.zeros(100, dtype=np.int64)
    edited = np.array([0] * 80 + [1] * 20)
    figures = compared(truth, edited, edited).adapter
    # Wilson 1927 for 80 of 100 at 95 %: 0.7112 to 0.8666
    assert figures.value == 0.8
    assert figures.low == pytest.approx(0.7112, abs=1e-4)
    assert figures.high == pytest.approx(0.8666, abs=1e-4)


def test_the_paired_interval_is_that_of_the_normal_approximation_for_many_rows() -> None:
    rng = np.random.default_rng(3)
    one, other = rng.random(4000) < 0.9, rng.random(4000) < 0.8
    values = one.astype(float) - other.astype(float)
    half = 1.96 * values.std() / np.sqrt(len(values))
    interval = paired_difference(one, other, confidence=0.95, resamples=4000, seed=1)
    assert interval.value == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half, abs=0.002)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.002)


def test_equal_systems_are_not_better() -> None:
    truth = np.array([0, 1, 0, 1])
    evaluation = compared(truth, truth, truth)
    assert (evaluation.difference.low, evaluation.difference.high, evaluation.better) == (0.0, 0.0, False)


def test_a_gain_within_the_interval_is_not_better_and_a_clear_one_is() -> None:
    truth = np.zeros(200, dtype=np.int64)
    frozen = np.array([0] * 150 + [1] * 50)
    little = np.array([0] * 148 + [1] * 2 + [0] * 4 + [1] * 46)  # 2 lost, 4 won
    much = np.array([0] * 190 + [1] * 10)
    assert not compared(truth, little, frozen).better
    assert compared(truth, much, frozen).better


def test_the_same_seed_gives_the_same_interval() -> None:
    one, other = np.arange(50) % 3 == 0, np.arange(50) % 4 == 0
    first = paired_difference(one, other, confidence=0.9, resamples=500, seed=5)
    assert first == paired_difference(one, other, confidence=0.9, resamples=500, seed=5)


def test_per_class_figures_name_every_label_even_one_never_predicted() -> None:
    truth = np.array([0, 0, 1, 1])
    figures = compared(truth, np.zeros(4, dtype=np.int64), truth)
    assert figures.adapter.per_class["positive"]["recall"] == 0.0
    assert figures.adapter.per_class["negative"]["recall"] == 1.0
    assert figures.adapter.per_class["negative"]["precision"] == 0.5
    assert figures.base.per_class["positive"]["support"] == 2


class Slow(Proportion):
    """The share of right rows, as a measure that is not known to be a mean."""

    is_mean = False


def test_a_measure_that_is_no_mean_is_resampled_row_by_row_with_the_same_outcome() -> None:
    rng = np.random.default_rng(3)
    one, other = ([(rng.random(400) < share).astype(float) for _ in range(2)] for share in (0.9, 0.8))
    found = [
        measured_difference(measure, one, other, confidence=0.95, resamples=2000, seed=1)
        for measure in (Proportion("accuracy"), Slow("accuracy"))
    ]
    assert found[1].value == pytest.approx(found[0].value)
    assert found[1].low == pytest.approx(found[0].low, abs=0.005)
    assert found[1].high == pytest.approx(found[0].high, abs=0.005)
