"""Intervals and exact tests of differences, against scipy and values worked out elsewhere, and by simulation."""

from __future__ import annotations

from math import comb, sqrt

import numpy as np
import pytest
from scipy import stats

from pipelines.contracts.prepared import Row
from pipelines.model.intervals import (
    Resampling,
    against,
    detectable,
    each_alone,
    exact_p_value,
    figure,
    group_numbers,
    holm,
    least_rows,
    measured_difference,
)
from pipelines.tasks.measures import Correlation, Mean, Proportion

ACCURACY = Proportion("accuracy")


def alone(rows: int, *, resamples: int = 2000, confidence: float = 0.95) -> Resampling:
    return Resampling(confidence, resamples, 1, each_alone(rows))


def test_the_paired_interval_is_that_of_the_normal_approximation_for_many_rows() -> None:
    rng = np.random.default_rng(3)
    one, other = ((rng.random(4000) < share).astype(float) for share in (0.9, 0.8))
    values = one - other
    half = 1.96 * values.std() / np.sqrt(len(values))
    interval = measured_difference(ACCURACY, [one], [other], alone(4000, resamples=4000))
    assert interval.value == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half, abs=0.002)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.002)


def test_the_paired_interval_is_the_percentile_bootstrap_of_scipy() -> None:
    rng = np.random.default_rng(4)
    one, other = rng.beta(2, 1, 150), rng.beta(1, 1, 150)
    expected = stats.bootstrap(
        (one - other,), np.mean, confidence_level=0.9, n_resamples=20_000, method="percentile", rng=rng, batch=100
    ).confidence_interval
    found = measured_difference(Mean("rougeL"), [one], [other], alone(150, resamples=20_000, confidence=0.9))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.002)


def test_the_same_seed_gives_the_same_interval() -> None:
    one, other = (np.arange(50) % 3 == 0).astype(float), (np.arange(50) % 4 == 0).astype(float)
    assert measured_difference(ACCURACY, [one], [other], alone(50)) == measured_difference(
        ACCURACY, [one], [other], alone(50)
    )


SLOW = Proportion("accuracy", is_mean=False)  # as a measure that is not known to be a mean


@pytest.mark.parametrize("groups", [each_alone(400), np.arange(400) % 150])
def test_a_measure_that_is_no_mean_is_resampled_row_by_row_with_the_same_outcome(groups: np.ndarray) -> None:
    rng = np.random.default_rng(3)
    one, other = ([(rng.random(400) < share).astype(float) for _ in range(3)] for share in (0.9, 0.8))
    how = Resampling(0.95, 2000, 1, groups)
    found = [measured_difference(measure, one, other, how) for measure in (ACCURACY, SLOW)]
    assert found[1].value == pytest.approx(found[0].value)
    assert found[1].low == pytest.approx(found[0].low, abs=0.01)
    assert found[1].high == pytest.approx(found[0].high, abs=0.01)


def test_rows_have_the_number_of_their_group_and_without_one_their_own() -> None:
    rows = [Row("f:1", "p", " c", group=group) for group in ("a", None, "b", "a", None)]
    assert group_numbers(rows).tolist() == [0, 1, 2, 0, 3]


def test_groups_are_drawn_whole_as_scipy_draws_them() -> None:
    """Groups of 1 to 6 rows, whose mean is that of the sums over that of the sizes."""
    rng = np.random.default_rng(5)
    sizes = rng.integers(1, 7, 60)
    groups = rng.permutation(np.repeat(np.arange(60), sizes))
    values = rng.normal(0.2, 1, 60)[groups] + rng.normal(0, 0.5, len(groups))
    sums = np.bincount(groups, values)
    expected = stats.bootstrap(
        (sums, np.bincount(groups)), lambda a, b, axis: a.sum(axis) / b.sum(axis), paired=True, n_resamples=20_000,
        method="percentile", rng=rng, batch=100,
    ).confidence_interval  # fmt: skip
    found = measured_difference(Mean("rougeL"), [values], [], Resampling(0.95, 20_000, 1, groups))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.01)


GROUPS, SIZE, TRIALS = 40, 10, 300


def false_better(groups: np.ndarray) -> float:
    """How often one of two equal systems is called better, of rows that are in groups of ten and counted as here.

    A group's rows are hard or easy for a system together: each system's share of right ones is drawn by group.
    """
    rng, found = np.random.default_rng(11), 0
    for _ in range(TRIALS):
        shares = rng.beta(0.4, 0.4, (2, GROUPS, 1))
        one, other = (rng.random((2, GROUPS, SIZE)) < shares).astype(float).reshape(2, -1)
        found += against(ACCURACY, [one], [other], Resampling(0.95, 200, 0, groups)).better
    return found / TRIALS


def test_equal_systems_are_called_better_no_more_often_than_said_by_groups_and_far_more_often_without() -> None:
    """Nominal are 2.5 %, one side of 5 %, and three standard errors of 300 trials are 2.7 %; found: 1.3 and 17.7 %."""
    nominal = 0.025
    assert false_better(np.repeat(np.arange(GROUPS), SIZE)) <= nominal + 3 * sqrt(nominal * (1 - nominal) / TRIALS)
    assert false_better(each_alone(GROUPS * SIZE)) > 6 * nominal


def test_other_seeds_widen_the_interval_by_their_own_variance() -> None:
    """Five runs whose figures are 0.5 apart by rows that all share: of other seeds the mean varies by s / sqrt(5)."""
    shares = np.array([0.60, 0.64, 0.70, 0.74, 0.82])
    runs = [np.repeat([1.0, 0.0], [round(2000 * share), 2000 - round(2000 * share)]) for share in shares]
    low, high = 0.05, 0.95
    how = alone(2000, resamples=4000, confidence=high - low)
    found = measured_difference(ACCURACY, runs, [], how)
    rows_alone = measured_difference(Mean("rougeL"), [np.mean(runs, axis=0)], [], how)
    seeds, rows = shares.std(ddof=1) / sqrt(5), (rows_alone.high - rows_alone.low) / (2 * 1.645)
    assert found.value == pytest.approx(shares.mean())
    assert found.high - found.low == pytest.approx(2 * 1.645 * sqrt(seeds**2 + rows**2), rel=0.08)
    assert found.high - found.low > 2 * (rows_alone.high - rows_alone.low)


@pytest.mark.parametrize(("confidence", "discordant"), [(0.9, 5), (0.95, 6), (0.99, 8)])
def test_the_least_rows_find_a_gain_of_half_of_all_rows_four_times_in_five(confidence: float, discordant: int) -> None:
    """``discordant`` is the first k with 2 (1/2)^k < 1 - confidence; the binomial's tail at 1/2 is added up here."""

    def power(rows: int) -> float:
        return sum(comb(rows, won) for won in range(discordant, rows + 1)) / 2**rows

    rows = least_rows(confidence)
    assert power(rows) >= 0.8 > power(rows - 1)


def test_a_measure_that_is_no_mean_has_an_exact_test_too() -> None:
    rng = np.random.default_rng(3)
    one, other = ((rng.random(60) < share).astype(float) for share in (0.9, 0.6))
    how = alone(60, resamples=4000)
    exact, drawn = (exact_p_value(measure, [one], [other], how) for measure in (ACCURACY, SLOW))
    assert drawn == pytest.approx(exact, abs=0.01)
    assert exact_p_value(SLOW, [one], [one], how) == 1.0


def test_as_many_exchanges_are_drawn_as_the_confidence_needs() -> None:
    """Of forty draws no p-value is below 1 / 41, whatever the rows."""
    rng = np.random.default_rng(3)
    right = rng.normal(size=60)
    one, other = np.stack([right, right], axis=1), np.stack([rng.normal(size=60), right], axis=1)
    found = against(Correlation("pearson"), [one], [other], alone(60, resamples=40, confidence=0.98))
    assert (found.better, found.p_value < 0.02) == (True, True)


def test_of_several_runs_a_measure_that_is_no_mean_exchanges_each_with_its_counterpart() -> None:
    rng = np.random.default_rng(6)
    one, other = ([(rng.random(60) < share).astype(float) for _ in range(3)] for share in (0.9, 0.6))
    how = alone(60, resamples=500)
    assert against(SLOW, one, other, how).better
    assert exact_p_value(SLOW, one, other[:2], how) == 1.0  # a run without a counterpart is no evidence


@pytest.mark.parametrize("count", [8, 40])
def test_the_test_of_groups_exchanges_their_signs_as_scipy_does(count: int) -> None:
    """Few groups are enumerated, as scipy's exact permutation test of paired samples does; of many some are drawn."""
    rng = np.random.default_rng(count)
    sums = rng.normal(0.3, 1, count)
    expected = stats.permutation_test(
        (sums, np.zeros(count)), lambda a, b, axis: (a - b).sum(axis), permutation_type="samples", vectorized=True,
        n_resamples=2**count if count <= 8 else 20_000, rng=rng,
    ).pvalue  # fmt: skip
    groups = np.repeat(np.arange(count), 2)
    how = Resampling(0.95, 20_000, 1, groups)
    found = exact_p_value(Mean("rougeL"), [np.repeat(sums / 2, 2)], [np.zeros(2 * count)], how)
    assert found == pytest.approx(expected, abs=1e-9 if count <= 8 else 0.015)


def test_groups_of_equal_answers_are_as_many_rows_as_there_are_groups() -> None:
    """Ten rows each: with all right, ten times fewer rows say so; Wilson 1927 of 20 of 20 at 95 % is 0.8389."""
    groups = np.repeat(np.arange(20), 10)
    assert figure(ACCURACY, np.ones(200), Resampling(0.95, 500, 0, groups)).low == pytest.approx(0.8389, abs=1e-4)
    halves = np.repeat([1.0, 0.0], 100)
    by_rows, by_groups = (figure(ACCURACY, halves, Resampling(0.95, 4000, 0, own)) for own in (each_alone(200), groups))
    widths = [each.high - each.low for each in (by_rows, by_groups)]
    assert widths[1] / widths[0] == pytest.approx(sqrt(10), rel=0.15)


def test_the_least_difference_is_that_of_as_many_rows_as_there_are_groups() -> None:
    rng = np.random.default_rng(8)
    groups = np.repeat(np.arange(50), 8)
    values = rng.integers(-1, 2, 50).astype(float)[groups]
    shown = []
    for own in (groups, each_alone(400)):
        how = Resampling(0.95, 2000, 0, own)
        found = detectable(measured_difference(Mean("x"), [values], [], how), how, Mean("x"))
        assert found is not None
        shown.append(found)
    assert shown[0] / shown[1] == pytest.approx(sqrt(8), rel=0.1)
    # By hand: (z of 97.5 % + z of 80 %) standard errors of the mean of 50 groups.
    error = values[::8].std() / sqrt(50)
    assert shown[0] == pytest.approx((1.95996 + 0.84162) * error, rel=0.08)


def test_the_best_case_bounds_what_shares_of_rows_show_and_nothing_else() -> None:
    """25 rows of ROUGE-L that differ by about 0.02 each show that; shares of 25 rows show 0.3 at the least."""
    how = alone(25)
    values = 0.02 + 0.003 * np.random.default_rng(4).standard_normal(25)
    narrow = measured_difference(Mean("rouge_l"), [values], [], how)
    least = detectable(narrow, how, Mean("rouge_l"))
    assert least == pytest.approx((1.95996 + 0.84162) * values.std() / sqrt(25), rel=0.15)
    assert detectable(narrow, how, ACCURACY) == pytest.approx(0.2978, abs=1e-4)
    same = measured_difference(Mean("rouge_l"), [np.full(25, 0.02)], [], how)
    assert detectable(same, how, Mean("rouge_l")) is None


def test_holm_is_what_he_wrote() -> None:
    """Holm 1979 by hand: 0.01 x 4, 0.02 x 3, 0.03 x 2 and 0.04 x 1, none below one before it."""
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.7]) == [1.0, 1.0]
    assert holm([]) == []
