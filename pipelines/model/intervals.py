"""Paired differences of two systems on the same rows, with bootstrap intervals."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipelines.contracts.interval import Interval

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


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
