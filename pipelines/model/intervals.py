"""Paired differences of two systems on the same rows: bootstrap intervals, exact tests, and what rows can show."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipelines.contracts.evaluation import Against
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


def figure(measure: Measure, scores: Floats, *, confidence: float, resamples: int, seed: int) -> Interval:
    """The figure of rows with these scores: of a share with the measure's own interval, else by resampling the rows."""
    if not measure.counts:
        return measured_difference(measure, [scores], [], confidence=confidence, resamples=resamples, seed=seed)
    value = measure.add_up(scores)
    return Interval(value, *measure.interval(value, len(scores), confidence))


def against(
    measure: Measure, one: Sequence[Floats], other: Sequence[Floats], *, confidence: float, resamples: int, seed: int
) -> Against:
    """The lead of one system over another on the same rows, and whether it is more than chance; see :class:`Against`.

    Whatever is called better than something else is called so by this rule. Of several runs, means over them are
    compared; a measure that is no mean has an exact test of single runs alone, and never a verdict of several.

    Args:
        measure: what the scores of rows add up to.
        one: scores of the rows, [rows, ...], of each run.
        other: the same of what it is compared with.
        confidence: of the interval and the test.
        resamples: of the rows.
        seed: of the resampling.
    """
    difference = measured_difference(measure, one, other, confidence=confidence, resamples=resamples, seed=seed)
    if measure.is_mean:
        one, other = [np.mean(one, axis=0)], [np.mean(other, axis=0)]
    single = len(one) == len(other) == 1
    p_value = exact_p_value(one[0], other[0], resamples=resamples, seed=seed, measure=measure) if single else 1.0
    sure = difference.low > 0 and p_value < 1 - confidence
    return Against(difference, p_value, better=sure and len(one[0]) >= least_rows(confidence))


POWER = 0.8  # with which a true difference is to be found (Cohen 1988, section 2.4)
MOST_MISSED = 0.5  # of all rows turned from wrong to right: rows that may miss even that are too few for any verdict


def exact_p_value(one: Floats, other: Floats, *, resamples: int, seed: int, measure: Measure) -> float:
    """How likely so large a difference is, of either sign, where each row might as well be the other system's.

    For scores of 0 or 1 the exact test of McNemar 1947: a binomial test of the rows that one system alone gets right.
    For other scores of a row it is the sign test; for a measure that is no mean, rows are exchanged by chance.
    """
    from scipy import stats

    if measure.is_mean:
        won, lost = int((one > other).sum()), int((one < other).sum())
        return float(stats.binomtest(won, won + lost).pvalue) if won + lost else 1.0
    generator, observed = np.random.default_rng(seed), abs(measure.add_up(one) - measure.add_up(other))
    extreme = 0
    for _ in range(resamples):
        swap = (generator.random(len(one)) < 0.5).reshape(-1, *[1] * (one.ndim - 1))
        sides = measure.add_up(np.where(swap, other, one)), measure.add_up(np.where(swap, one, other))
        extreme += abs(sides[0] - sides[1]) >= observed
    return (extreme + 1) / (resamples + 1)


def best_case(rows: int, confidence: float) -> float:
    """The least share of rows won, with none lost, that the exact test finds with power :data:`POWER`; 1 if none.

    The test needs k rows won with 2 (1/2)^k < 1 - confidence, and of n rows at least k are won with that power at the
    share that is the quantile of the beta distribution of k and n - k + 1 (Clopper & Pearson 1934).
    """
    from scipy import stats

    least = math.floor(math.log2(2 / (1 - confidence))) + 1
    return float(stats.beta.ppf(POWER, least, rows - least + 1)) if rows >= least else 1.0


def least_rows(confidence: float) -> int:
    """The number of rows below which nothing is called better: they may miss even a gain of half of all rows."""
    rows = 1
    while best_case(rows, confidence) > MOST_MISSED:
        rows += 1
    return rows


def detectable(difference: Interval, rows: int, confidence: float, *, is_mean: bool) -> float | None:
    """About the least true difference that so many rows show at this confidence with power :data:`POWER`.

    From the interval's width, which says how much rows differ; where all differ alike, from the best case, which a
    measure that is no mean of rows does not have: None.
    """
    from scipy import stats

    sure, found = stats.norm.ppf((1 + confidence) / 2), stats.norm.ppf(POWER)
    spread = (difference.high - difference.low) / 2 / sure
    shown = float((sure + found) * spread)
    return max(shown, best_case(rows, confidence)) if is_mean else shown or None
