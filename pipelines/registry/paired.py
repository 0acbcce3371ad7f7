"""Two systems on the same rows, by groups: how far one leads, how likely that is by chance, and what rows can show.

Rows of a group (a passage, a pair of twins) are right or wrong together, so a group is one unit: it is drawn as a
whole, and the two systems are exchanged in it as a whole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from pipelines.contracts.verdict import Lead
from pipelines.model.intervals import (
    POWER,
    Ints,
    Resampling,
    best_case,
    chance_of_sum,
    exchanged_figures,
    measured_difference,
    numbered,
    share_of_extreme,
)
from pipelines.tasks.measures import Floats, Measure


@dataclass(frozen=True)
class Drawing:
    """How intervals are drawn, and chances that no formula gives; of rows whose groups are not known yet."""

    confidence: float
    resamples: int
    seed: int

    def of(self, units: Ints) -> Resampling:
        """The same of rows in these groups."""
        return Resampling(self.confidence, self.resamples, self.seed, units)


@dataclass(frozen=True)
class Pair:
    """The scores of two systems on the same rows.

    Attributes:
        measure: what scores add up to.
        one: scores of the rows, [rows, ...].
        other: the same of what it is compared with.
        units: the group of each row, from 0, [rows].
    """

    measure: Measure
    one: Floats
    other: Floats
    units: Ints

    @property
    def value(self) -> float:
        """How far the first leads."""
        if self.measure.is_mean:
            return float((self.one - self.other).mean())
        return self.measure.add_up(self.one) - self.measure.add_up(self.other)

    def turned(self) -> Pair:
        """The other way round."""
        return Pair(self.measure, self.other, self.one, self.units)

    def only(self, rows: Ints) -> Pair:
        """On some of the rows."""
        return Pair(self.measure, self.one[rows], self.other[rows], numbered(self.units[rows].tolist()))

    def sums(self) -> tuple[Floats, Floats]:
        """Of each unit the sum of differences, and its number of rows; of a measure that is a mean."""
        return np.bincount(self.units, self.one - self.other).astype(np.float64), np.bincount(self.units).astype(
            np.float64
        )


def lead(pair: Pair, drawing: Drawing, *, level: float) -> Lead:
    """How far the first leads, its bootstrap interval over units, and the chance of so much between two equals."""
    found = measured_difference(pair.measure, [pair.one], [pair.other], drawing.of(pair.units))
    return Lead(found.value, found.low, found.high, chance(pair, drawing, level=level))


def chance(pair: Pair, drawing: Drawing, *, level: float) -> float:
    """The p-value, of one side, of the randomisation test (Fisher 1935) that exchanges the systems in each unit.

    Of a mean it is exact where units differ by whole numbers of rows; with units of single rows that is the exact test
    of McNemar 1947. Where exchanges are drawn, there are as many as a value below ``level`` needs.
    """
    how = drawing.of(pair.units).below(level)
    if pair.measure.is_mean:
        return chance_of_sum(pair.sums()[0], how)
    drawn = exchanged_figures(pair.measure, [pair.one], [pair.other], how)
    return share_of_extreme(drawn >= pair.value)


def shown(pair: Pair, level: float) -> float | None:
    """About the least true lead that so many units show where the p-value must be below ``level``, with 80 % power.

    None of a measure that is no mean, whose spread over units is not known.
    """
    count = int(pair.units.max()) + 1
    if not pair.measure.is_mean or count < 2:
        return None
    sums, sizes = pair.sums()
    spread = sums - pair.value * sizes
    error = math.sqrt(count / (count - 1) * float(spread @ spread)) / float(sizes.sum())
    reach = NormalDist().inv_cdf(1 - level) + NormalDist().inv_cdf(POWER)
    return max(reach * error, _best_case(count, level))


@lru_cache
def _best_case(units: int, level: float) -> float:
    """The same where every unit that differs is won."""
    return best_case(units, 1 - 2 * level)  # of two sides
