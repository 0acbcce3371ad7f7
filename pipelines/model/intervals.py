"""Paired differences of two systems on the same rows, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipelines.contracts.interval import Interval
from pipelines.tasks.measures import Floats, Measure

Ints = NDArray[np.int64]


def paired_difference(
    one: NDArray[np.bool_] | Floats, other: NDArray[np.bool_] | Floats, *, confidence: float, resamples: int, seed: int
) -> Interval:
    """mean(one - other) over rows, with the percentile bootstrap interval over rows (Efron & Tibshirani 1993, ch. 13).

    Rows that both systems get right or both get wrong carry no difference, which is what makes the paired interval
    narrower than the difference of two separate ones.
    """
    from scipy import stats  # takes a second to import, and search, which scores with this module, does without

    values = one.astype(np.float64) - other.astype(np.float64)
    if np.all(values == values[0]):  # every resample is the same; scipy calls its interval degenerate
        return Interval(float(values[0]), float(values[0]), float(values[0]))
    result = stats.bootstrap(
        (values,), np.mean, confidence_level=confidence, n_resamples=resamples, method="percentile",
        rng=np.random.default_rng(seed), batch=100,
    )  # fmt: skip
    return Interval(float(values.mean()), float(result.confidence_interval.low), float(result.confidence_interval.high))


def measured_difference(
    measure: Measure,
    one: Sequence[Floats],
    other: Sequence[Floats],
    *,
    confidence: float,
    resamples: int,
    seed: int,
) -> Interval:
    """The paired difference of a measure, each side the mean over its runs, with the bootstrap interval over rows.

    Args:
        measure: what the scores of rows add up to.
        one: scores of the rows, [rows, ...], of each run.
        other: the same of what it is compared with; no run stands for 0.
        confidence: of the interval.
        resamples: of the rows.
        seed: of the resampling.
    """
    if measure.is_mean:
        sides = [np.mean(runs, axis=0) if len(runs) else np.zeros(one[0].shape) for runs in (one, other)]
        return paired_difference(*sides, confidence=confidence, resamples=resamples, seed=seed)

    def value(rows: Ints) -> float:
        sides = [np.mean([measure.add_up(run[rows]) for run in runs]) if len(runs) else 0.0 for runs in (one, other)]
        return float(sides[0] - sides[1])

    rows, generator = np.arange(len(one[0])), np.random.default_rng(seed)
    drawn = [value(generator.choice(rows, len(rows))) for _ in range(resamples)]
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(value(rows), float(low), float(high))
