"""Win rates of a judge that errs: its rates on pairs whose better answer is known, and the win rate without its errors.

A pair scores the mean of both orders, of which each is 1 where the judge prefers the one answer, 0 where it prefers the
other, and 1/2 where it calls a tie. On pairs whose better answer is the one, the mean score is the rate of true
positives t; where it is the other, the rate of false positives f. The mean of all pairs is then w = θ t + (1 - θ) f for
the share θ of pairs whose one answer is the better, so that θ = (w - f) / (t - f) (Rogan & Gladen 1978).

With t and f estimated, θ is a ratio of estimates, and its interval is that of Fieller (1954): every θ for which

    (w - f - θ (t - f))² <= z² (V(w) + θ² V(t) + (1 - θ)² V(f)),

within 0 and 1. Means and variances are those of the scores with some added ones, half of them 1 and half 0: z² to the
pairs (Agresti & Coull 1998) and two to those of each known verdict (as Lang & Reiczigel 2014 do for sensitivity and
specificity). Where few known verdicts cannot tell t from f, no θ is ruled out: the interval is 0 to 1.

Of the same answer twice no judge is asked, so none errs: such pairs are ties, and θ is that of the others alone. With a
share q of others the whole rate is 1/2 + q (θ - 1/2); its interval adds what q varies by to that of θ, each bound by
itself (Zou & Donner 2008).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ADDED = 2.0  # scores that are added to those of a known verdict, half of them 1


@dataclass(frozen=True)
class MeanScores:
    """Means of scores from 0 to 1 with their variances; of many samples at once where they are arrays.

    Attributes:
        mean: of the scores alone, [...].
        shrunk: with the added ones, [...].
        variance: of ``shrunk``, [...].
    """

    mean: Floats
    shrunk: Floats
    variance: Floats


@dataclass(frozen=True)
class Bounds:
    """A figure with its confidence interval, [...]."""

    value: Floats
    low: Floats
    high: Floats


def mean_scores(scores: Floats, added: float) -> MeanScores:
    """Means over the last axis.

    Args:
        scores: [..., pairs], at least one.
        added: how many scores are added, half of them 1 and half 0.
    """
    pairs = scores.shape[-1] + added
    shrunk = (scores.sum(axis=-1) + added / 2) / pairs
    spread = ((scores**2).sum(axis=-1) + added / 2) / pairs - shrunk**2
    return MeanScores(scores.mean(axis=-1), shrunk, spread / pairs)


def quantile(confidence: float) -> float:
    """z of a two-sided interval by the normal distribution."""
    from scipy import stats  # takes a second to import

    return float(stats.norm.ppf((1 + confidence) / 2))


def win_rate(scores: Floats, confidence: float) -> Bounds:
    """The share of pairs won, ties half: of scores of 0 and 1 with the interval of Agresti & Coull 1998."""
    z = quantile(confidence)
    return _bounds(mean_scores(scores, z * z), z)


def known_rate(scores: Floats, confidence: float) -> Bounds:
    """The mean score of pairs of one known verdict: t or f above."""
    return _bounds(mean_scores(scores, ADDED), quantile(confidence))


def tells_apart(better: Floats, worse: Floats, confidence: float) -> NDArray[np.bool_]:
    """Whether t is surely above f: a judge of whom that cannot be said tells better answers from worse by chance."""
    t, f = mean_scores(better, ADDED), mean_scores(worse, ADDED)
    return np.asarray(t.shrunk - f.shrunk > quantile(confidence) * np.sqrt(t.variance + f.variance))


def corrected_rate(scores: Floats, better: Floats, worse: Floats, confidence: float) -> Bounds:
    """The share θ of pairs whose one answer is the better, without the judge's errors; see the top of this file.

    Args:
        scores: of the pairs, [..., pairs].
        better: of pairs whose one answer is known to be the better, [..., pairs of their own].
        worse: of pairs whose other answer is.
        confidence: of the interval.

    Returns:
        The figure is NaN where t is not above f.
    """
    z = quantile(confidence)
    w, t, f = mean_scores(scores, z * z), mean_scores(better, ADDED), mean_scores(worse, ADDED)
    told = t.mean - f.mean
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.where(told > 0, np.clip((w.mean - f.mean) / told, 0.0, 1.0), np.nan)
    apart = t.shrunk - f.shrunk
    square = apart**2 - z * z * (t.variance + f.variance)  # of θ², and so on
    half = apart * (w.shrunk - f.shrunk) - z * z * f.variance
    constant = (w.shrunk - f.shrunk) ** 2 - z * z * (w.variance + f.variance)
    root = np.sqrt(np.maximum(half**2 - square * constant, 0.0))
    sure = (square > 0) & (apart > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        low = np.where(sure, np.clip((half - root) / square, 0.0, 1.0), 0.0)
        high = np.where(sure, np.clip((half + root) / square, 0.0, 1.0), 1.0)
    return Bounds(value, low, high)


def with_ties(others: Bounds, asked: int, alike: int, confidence: float) -> Bounds:
    """The rate of all pairs, of which some have the same answer twice and count half; see the top of this file.

    Args:
        others: the rate of the pairs that the judge was asked about, [...].
        asked: how many those are, at least one.
        alike: how many have the same answer twice.
        confidence: of the intervals.
    """
    if not alike:
        return others
    part, z = asked / (asked + alike), quantile(confidence)
    shrunk = (asked + z * z / 2) / (asked + alike + z * z)  # as of a win rate
    of_part = z * np.sqrt(shrunk * (1 - shrunk) / (asked + alike + z * z))

    def reach(bound: Floats) -> Floats:
        """How far the whole rate goes to the side of this bound, by both, where q weighs most within the interval."""
        away = np.maximum(np.abs(others.value - 0.5), np.abs(bound - 0.5))
        return np.hypot(part * (bound - others.value), away * of_part)

    middle = 0.5 + part * (others.value - 0.5)
    low, high = (0.5 + part * (bound - 0.5) for bound in (others.low, others.high))
    return Bounds(
        middle,
        np.clip(np.minimum(low, middle - reach(others.low)), 0.0, 1.0),
        np.clip(np.maximum(high, middle + reach(others.high)), 0.0, 1.0),
    )


def _bounds(found: MeanScores, z: float) -> Bounds:
    reach = z * np.sqrt(found.variance)
    return Bounds(found.mean, np.maximum(found.shrunk - reach, 0.0), np.minimum(found.shrunk + reach, 1.0))
