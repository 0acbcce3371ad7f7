"""Two systems on the same rows, by groups: how far one leads, how likely that is by chance, and what rows can show.

Rows of a group (a passage, a pair of twins) are right or wrong together, so a group is one unit: it is drawn as a
whole, and the two systems are exchanged in it as a whole.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from pipelines.contracts.verdict import Lead
from pipelines.model.intervals import POWER, Ints, Resampling, best_case, measured_difference
from pipelines.tasks.measures import Floats, Measure

AT_ONCE = 2_000_000  # units drawn at a time, over all resamples of a batch


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
        return Pair(self.measure, self.one[rows], self.other[rows], unit_numbers(self.units[rows].tolist()))

    def sums(self) -> tuple[Floats, Floats]:
        """Of each unit the sum of differences, and its number of rows; of a measure that is a mean."""
        return np.bincount(self.units, self.one - self.other).astype(np.float64), np.bincount(self.units).astype(
            np.float64
        )


def unit_numbers(names: Sequence[object]) -> Ints:
    """The units of rows that name theirs, numbered in the order in which they come."""
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int64)


def lead(pair: Pair, drawing: Drawing) -> Lead:
    """How far the first leads, its bootstrap interval over units, and the chance of so much between two equals."""
    found = measured_difference(pair.measure, [pair.one], [pair.other], drawing.of(pair.units))
    return Lead(found.value, found.low, found.high, chance(pair, drawing))


def chance(pair: Pair, drawing: Drawing) -> float:
    """The p-value, of one side, of the randomisation test (Fisher 1935) that exchanges the systems in each unit.

    Where units differ by whole numbers of rows it is exact; with units of single rows that is the exact test of McNemar
    1947. Otherwise units are exchanged by chance.
    """
    if not pair.measure.is_mean:
        return _drawn_chance_of_measure(pair, drawing)
    sums, _ = pair.sums()
    return _exact_chance(sums) if np.array_equal(sums, np.round(sums)) else _drawn_chance(sums, drawing)


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


def _exact_chance(sums: Floats) -> float:
    """The share of all ways to turn units' signs in which they add up to as much; units are of whole numbers."""
    sizes = Counter(int(size) for size in np.abs(sums) if size)
    if not sizes:
        return 1.0
    # Of n units of size m, as many as k turned up add 2mk to the lowest sum; steps of that half are the places here.
    ways = np.ones(1)
    for size, count in sizes.items():
        own = np.zeros(size * count + 1)
        own[::size] = _tosses(count)
        ways = np.convolve(ways, own)
    up = int(sums[sums > 0].sum())
    return min(1.0, float(ways[up:].sum()))


def _tosses(count: int) -> Floats:
    """How likely each number of heads is in so many tosses of a coin, [count + 1]."""
    from scipy.special import gammaln

    heads = np.arange(count + 1)
    ways = gammaln(count + 1) - gammaln(heads + 1) - gammaln(count - heads + 1)
    return np.exp(ways - count * math.log(2.0))


def _drawn_chance(sums: Floats, drawing: Drawing) -> float:
    generator, total, extreme = np.random.default_rng(drawing.seed), float(sums.sum()), 0
    near = 1e-9 * float(np.abs(sums).sum())  # sums in another order differ in their last bits
    for count in _batches(drawing.resamples, len(sums)):
        signs = generator.integers(0, 2, (count, len(sums))) * 2 - 1
        extreme += int((signs @ sums >= total - near).sum())
    return (extreme + 1) / (drawing.resamples + 1)


def _drawn_chance_of_measure(pair: Pair, drawing: Drawing) -> float:
    generator, extreme = np.random.default_rng(drawing.seed), 0
    observed, count = pair.value, int(pair.units.max()) + 1
    shape = (-1, *[1] * (pair.one.ndim - 1))
    for _ in range(drawing.resamples):
        swap = (generator.random(count) < 0.5)[pair.units].reshape(shape)
        one, other = np.where(swap, pair.other, pair.one), np.where(swap, pair.one, pair.other)
        extreme += pair.measure.add_up(one) - pair.measure.add_up(other) >= observed
    return (extreme + 1) / (drawing.resamples + 1)


def _batches(resamples: int, units: int) -> list[int]:
    """So many resamples in batches that fit into memory."""
    size = max(1, AT_ONCE // units)
    return [min(size, resamples - start) for start in range(0, resamples, size)]
