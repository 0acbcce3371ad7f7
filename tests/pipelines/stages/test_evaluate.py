"""The figures of an evaluation, against values worked out elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from pipelines.contracts.evaluation import Evaluation
from pipelines.contracts.prepared import Row
from pipelines.contracts.task import TaskSpec
from pipelines.model.intervals import least_rows
from pipelines.params.whole import EvaluateParams
from pipelines.reports.evaluation import verdict_words
from pipelines.stages.evaluate import compare
from pipelines.tasks.family import open_family

SETTINGS = EvaluateParams(batch_size=8, confidence=0.95, bootstrap=2000, neutral="default", slices=["length", "label"])
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


def test_equal_systems_are_not_better() -> None:
    truth = np.array([0, 1, 0, 1])
    evaluation = compared(truth, truth, truth)
    assert (evaluation.difference.low, evaluation.difference.high, evaluation.better) == (0.0, 0.0, False)


def test_a_gain_within_the_interval_is_not_better_and_a_clear_one_is() -> None:
    truth = np.array([0] * 100 + [1] * 100)
    frozen = np.array([0] * 150 + [1] * 50)
    little = np.array([0] * 98 + [1] * 2 + [0] * 46 + [1] * 54)  # 2 lost, 4 won
    much = np.array([0] * 110 + [1] * 90)
    assert not compared(truth, little, frozen).better
    assert compared(truth, much, frozen).better


def test_per_class_figures_name_every_label_even_one_never_predicted() -> None:
    truth = np.array([0, 0, 1, 1])
    figures = compared(truth, np.zeros(4, dtype=np.int64), truth)
    assert figures.adapter.per_class["positive"]["recall"] == 0.0
    assert figures.adapter.per_class["negative"]["recall"] == 1.0
    assert figures.adapter.per_class["negative"]["precision"] == 0.5
    assert figures.base.per_class["positive"]["support"] == 2


def labels(*counts: tuple[int, int]) -> np.ndarray:
    """Return an array of (label, how often), one after the other."""
    return np.repeat(*np.array(counts, dtype=np.int64).T)


def test_two_rows_won_of_two_are_too_few_for_a_verdict() -> None:
    """All differ alike, so every resample is the same and the bootstrap's interval is [1, 1]."""
    truth = np.array([0, 1])
    found = compared(truth, truth, 1 - truth)
    assert (found.difference.low, found.difference.high) == (1.0, 1.0)
    assert found.p_value == 0.5  # 2 (1/2)^2
    assert (found.rows, found.better) == (2, False)
    assert found.detectable == 1.0


def test_rows_of_one_group_count_once_for_a_verdict() -> None:
    """Forty rows won of a hundred are more than chance; of ten rows in each of ten groups, too few say so."""
    truth = np.array([0, 1] * 50)
    frozen = np.where(np.arange(100) < 40, 1 - truth, truth)
    rows = [Row(f"f:{place}", "p", " c", LABELS[right], group=f"{place // 10}") for place, right in enumerate(truth)]
    said = [[np.log([0.1, 0.9] if label else [0.9, 0.1]) for label in system] for system in (truth, frozen)]
    grouped = compare(TASK, rows, *said, SETTINGS, seed=0, adapter_sha256="0" * 64)
    assert compared(truth, truth, frozen).better
    assert (grouped.rows, grouped.groups, grouped.better) == (100, 10, False)
    assert grouped.p_value == 2 / 2**4  # four groups won: of sixteen signs, two are as far from 0
    assert verdict_words(grouped) == "no verdict: 100 rows in 10 groups are too few, it takes 15"


def test_below_the_least_rows_nothing_is_better_and_from_there_on_it_is() -> None:
    rows = least_rows(SETTINGS.confidence)
    for count, better in ((rows - 1, False), (rows, True)):
        truth = np.arange(count) % 2
        assert compared(truth, truth, 1 - truth).better == better


def test_the_exact_test_is_mcnemars() -> None:
    """Hand-made: 3 rows lost and 13 won of 16 that differ: 2 (C(16,0)+C(16,1)+C(16,2)+C(16,3)) / 2^16 = 0.02127."""
    truth = labels((0, 50), (1, 50))
    frozen, edited = truth.copy(), truth.copy()
    frozen[:13], edited[20:23] = 1, 1
    assert compared(truth, edited, frozen).p_value == pytest.approx(1394 / 2**16)


def test_both_the_interval_and_the_exact_test_must_hold() -> None:
    """Five rows won and none lost: the bootstrap's interval is above 0, and the exact test has p = 2 (1/2)^5."""
    truth = labels((0, 12), (1, 12))
    frozen = truth.copy()
    frozen[:5] = 1
    found = compared(truth, truth, frozen)
    assert found.difference.low > 0
    assert found.p_value == pytest.approx(0.0625)
    assert not found.better


def test_an_adapter_that_always_says_the_commoner_label_is_not_better() -> None:
    """It beats a base at 50 % by far, and has learned nothing."""
    truth = labels((0, 140), (1, 60))
    frozen, edited = np.arange(200) % 2, np.zeros(200, dtype=np.int64)
    found = compared(truth, edited, frozen)
    assert found.difference.low > 0.1
    assert (found.baselines, found.over_majority.difference.value) == ({"majority": 0.7, "chance": 0.5}, 0.0)
    assert not found.better
    assert compared(truth, truth, frozen).better


def test_macro_f1_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    truth, edited = rng.integers(2, size=(2, 80))
    assert compared(truth, edited, truth).adapter.summary["macro_f1"] == pytest.approx(
        f1_score(truth, edited, average="macro")
    )


def test_the_least_difference_shrinks_with_the_root_of_the_rows() -> None:
    """Of 400 rows and of 100 that differ in equal shares, to the bootstrap's noise; 2.8 standard errors are known."""
    found = {}
    for count in (100, 400):
        truth = labels((0, count // 2), (1, count // 2))
        frozen, edited = truth.copy(), truth.copy()
        frozen[: count // 5], edited[-count // 10 :] = 1, 0
        found[count] = compared(truth, edited, frozen).detectable
    spread = np.sqrt(0.3 - 0.1**2)
    assert found[400] == pytest.approx((1.96 + 0.8416) * spread / 20, rel=0.06)
    assert found[100] / found[400] == pytest.approx(2, rel=0.08)
