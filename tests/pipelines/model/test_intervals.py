"""Intervals and exact tests of differences, against values worked out elsewhere."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest

from pipelines.model.intervals import exact_p_value, least_rows, measured_difference, paired_difference
from pipelines.tasks.measures import Proportion


def test_the_paired_interval_is_that_of_the_normal_approximation_for_many_rows() -> None:
    rng = np.random.default_rng(3)
    one, other = rng.random(4000) < 0.9, rng.random(4000) < 0.8
    values = one.astype(float) - other.astype(float)
    half = 1.96 * values.std() / np.sqrt(len(values))
    interval = paired_difference(one, other, confidence=0.95, resamples=4000, seed=1)
    assert interval.value == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half, abs=0.002)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.002)


def test_the_same_seed_gives_the_same_interval() -> None:
    one, other = np.arange(50) % 3 == 0, np.arange(50) % 4 == 0
    first = paired_difference(one, other, confidence=0.9, resamples=500, seed=5)
    assert first == paired_difference(one, other, confidence=0.9, resamples=500, seed=5)


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
    exact, drawn = (
        exact_p_value(one, other, resamples=4000, seed=1, measure=measure)
        for measure in (Proportion("accuracy"), Slow("accuracy"))
    )
    assert drawn == pytest.approx(exact, abs=0.01)
    assert exact_p_value(one, one, resamples=50, seed=1, measure=Slow("accuracy")) == 1.0
