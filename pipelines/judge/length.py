"""The length-controlled win rate of AlpacaEval (Dubois et al. 2024): what it would be with answers of equal lengths.

A logistic model says how likely the judge prefers the one answer,

    P(one) = sigmoid(θ + φ tanh((len(one) - len(other)) / s)),

with s the standard deviation of the differences of lengths in characters; sigmoid(θ), at no difference, is the rate
under length control. It is the model of AlpacaEval without the term of each instruction's difficulty, which comes from
its leaderboard: of two systems nothing else tells that. A tie counts half. The model is fitted by Firth's penalised
likelihood (Firth 1993), finite also where every longer answer wins, and the interval is by the sandwich variance, since
scores of 1/2 vary less than a binomial model says (Papke & Wooldridge 1996).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.contracts.interval import Interval
from pipelines.judge.rates import Floats, quantile

STEPS, CLOSE = 100, 1e-10
LONGEST_STEP = 5.0  # of a coefficient, in one step towards the fit
# Condition number of the features above which length is not told from the rest. It is about 2 over the standard
# deviation of tanh where one side is always the longer, and reaches this where its lead is some 3 times its spread.
LARGEST_CONDITION = 50.0


@dataclass(frozen=True)
class LengthControlled:
    """The win rate at equal lengths, and φ: above 0 where the judge prefers the longer answer, all else equal."""

    rate: Interval
    slope: Interval


def length_controlled(scores: Floats, differences: Floats, confidence: float) -> LengthControlled | None:
    """Fit the model.

    Args:
        scores: of the pairs, [pairs]: 1, 0 or 1/2 as the judge prefers the one, the other or neither.
        differences: of the answers' lengths, the one less the other, [pairs].
        confidence: of the intervals.

    Returns:
        None where length cannot be told from the rest: of fewer than three pairs, or where all differ alike or nearly
        so, as where one side is always longer by much more than that varies.
    """
    spread = float(differences.std(ddof=1)) if len(differences) > 2 else 0.0
    if spread == 0:
        return None
    features = np.stack([np.ones_like(differences), np.tanh(differences / spread)], axis=1)
    if np.linalg.cond(features) > LARGEST_CONDITION:
        return None
    try:
        weights, variance = _fit(features, scores)
    except np.linalg.LinAlgError:  # on the way some pair's verdict became certain, to the last bit, for all
        return None
    reach = quantile(confidence) * np.sqrt(variance)
    if not np.isfinite([weights, reach]).all():
        return None
    (level, slope), (low, bottom), (high, top) = weights, weights - reach, weights + reach
    rate = Interval(*(float(_sigmoid(np.asarray(bound))) for bound in (level, low, high)))
    return LengthControlled(rate, Interval(float(slope), float(bottom), float(top)))


def _fit(features: Floats, scores: Floats) -> tuple[Floats, Floats]:
    """Level and slope by features [pairs, 2], and the sandwich variance of each, [2]."""
    weights = np.zeros(features.shape[1])
    for _ in range(STEPS):
        chance = _sigmoid(features @ weights)
        bread = np.linalg.inv(features.T @ (features * (chance * (1 - chance))[:, None]))
        leverage = np.einsum("ij,jk,ik->i", features, bread, features) * chance * (1 - chance)
        residual = scores - chance + leverage * (0.5 - chance)
        step = np.clip(bread @ (features.T @ residual), -LONGEST_STEP, LONGEST_STEP)
        weights = weights + step
        if np.abs(step).max() < CLOSE:
            break
    # Residuals over 1 - leverage: of few pairs the fit's own are too small (MacKinnon & White 1985, HC3).
    squares = ((scores - chance) / np.maximum(1 - leverage, CLOSE)) ** 2
    # Firth's fit is that of the pairs with some added, won and lost, half the leverage of each. Without their residuals
    # the level would have next to no variance where the one wins nearly all pairs. With them the slope would be lost in
    # its own variance where length alone separates won from lost.
    added = leverage / 2 * (chance**2 + (1 - chance) ** 2)
    level, slope = (bread @ (features.T @ (features * meat[:, None])) @ bread for meat in (squares + added, squares))
    return weights, np.array([level[0, 0], slope[1, 1]])


def _sigmoid(value: Floats) -> Floats:
    return np.exp(-np.logaddexp(0.0, -value))
