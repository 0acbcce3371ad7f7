"""Paired differences of two systems on the same rows, by groups: intervals, exact tests, and what rows can show."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipelines.contracts.evaluation import Against
from pipelines.contracts.interval import Interval
from pipelines.contracts.prepared import Row
from pipelines.tasks.measures import Floats, Measure

Ints = NDArray[np.int64]

BATCH = 100  # resamples drawn at once
POWER = 0.8  # with which a true difference is to be found (Cohen 1988, section 2.4)
MOST_MISSED = 0.5  # of all rows turned from wrong to right: rows that may miss even that are too few for any verdict
MOST_EXCHANGES = 1_000_000  # drawn for a p-value: minutes, of a measure that is no mean
FINENESS = 10  # draws of exchanges for one that a test allows to be as extreme as what was found
ENUMERATED = 12  # groups that differ by no whole numbers, up to which every assignment of signs is tried


@dataclass(frozen=True)
class Resampling:
    """How rows are drawn anew, and how sure is sure.

    Attributes:
        confidence: of intervals and tests.
        resamples: how many.
        seed: of the drawing.
        groups: the number of each row's group, [rows], from 0 on. Rows of a group (questions of one passage) say
            less than as many of different ones, so a group is drawn as a whole (Field & Welsh 2007).
    """

    confidence: float
    resamples: int
    seed: int
    groups: Ints

    @property
    def units(self) -> int:
        """How many groups there are."""
        return int(self.groups.max()) + 1

    @property
    def alone(self) -> bool:
        """Whether each row is a group of its own."""
        return self.units == len(self.groups)

    def below(self, level: float) -> Resampling:
        """With as many draws as a p-value below this level needs: of n draws it is 1 / (n + 1) at the least."""
        needed = min(math.ceil(FINENESS / level), MOST_EXCHANGES)
        return replace(self, resamples=max(self.resamples, needed))


def group_numbers(rows: Sequence[Row]) -> Ints:
    """The number of each row's group, [rows]; a row without one is alone."""
    return numbered([place if row.group is None else row.group for place, row in enumerate(rows)])


def numbered(groups: Sequence[object]) -> Ints:
    """The number of each row's group, [rows], from 0 on in the order in which they come; groups by any name."""
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(group, len(numbers)) for group in groups], dtype=np.int64)


def each_alone(rows: int) -> Ints:
    """The numbers of the groups of so many rows that belong to nothing."""
    return np.arange(rows, dtype=np.int64)


def measured_difference(measure: Measure, one: Sequence[Floats], other: Sequence[Floats], how: Resampling) -> Interval:
    """The paired difference of a measure, each side the mean over its runs, with a percentile bootstrap interval.

    Groups of rows are drawn with replacement, the same for both sides (Efron & Tibshirani 1993, ch. 13), and of
    several runs with other seeds one fewer than there are, which gives their mean's variance without bias (Rao & Wu
    1988): the interval is that of other rows and other seeds.

    Args:
        measure: what the scores of rows add up to.
        one: scores of the rows, [rows, ...], of each run.
        other: the same of what it is compared with; no run stands for 0.
        how: rows are resampled.
    """
    value = _figure(measure, one) - _figure(measure, other)
    if measure.is_mean and len(one) == 1 and len(other) <= 1 and np.ptp(_difference(one, other)) == 0:
        return Interval(value, value, value)  # every resample is the same, and rounding shall not say otherwise
    drawn = _drawn_means(one, other, how) if measure.is_mean else _drawn_figures(measure, one, other, how)
    low, high = np.quantile(drawn, [(1 - how.confidence) / 2, (1 + how.confidence) / 2])
    return Interval(value, float(low), float(high))


def figure(measure: Measure, scores: Floats, how: Resampling) -> Interval:
    """The figure of rows with these scores: of a share with the measure's own interval, else by resampling.

    Where rows are in groups that all score alike, which no resample tells from each other, a group counts as a row.
    """
    value = measure.add_up(scores)
    if measure.counts and (how.alone or np.ptp(scores) == 0):
        return Interval(value, *measure.interval(value, how.units, how.confidence))
    return measured_difference(measure, [scores], [], how)


def against(measure: Measure, one: Sequence[Floats], other: Sequence[Floats], how: Resampling) -> Against:
    """The lead of one system over another on the same rows, and whether it is more than chance; see :class:`Against`.

    Whatever is called better than something else is called so by this rule, and by no fewer groups of rows than
    :func:`least_rows`.

    Args:
        measure: what the scores of rows add up to.
        one: scores of the rows, [rows, ...], of each run.
        other: the same of what it is compared with.
        how: rows are resampled.
    """
    difference = measured_difference(measure, one, other, how)
    p_value = exact_p_value(measure, one, other, how)
    sure = difference.low > 0 and p_value < 1 - how.confidence
    return Against(difference, p_value, better=sure and how.units >= least_rows(how.confidence))


def exact_p_value(measure: Measure, one: Sequence[Floats], other: Sequence[Floats], how: Resampling) -> float:
    """How likely so large a difference is, of either sign, where each group might as well be the other system's.

    For scores of 0 or 1 of rows that are alone it is the exact test of McNemar 1947, a binomial test of the rows that
    one system alone gets right; for other scores of such rows the sign test. Groups exchange their differences' sums
    (Fisher 1935), and for a measure that is no mean, systems exchange whole groups of scores. Of several runs means
    are compared; of a measure that is no mean each run is exchanged with its counterpart, and runs that have none are
    no evidence: 1.
    """
    from scipy import stats  # takes a second to import, and search, which scores with this room, does without

    how = how.below((1 - how.confidence) / 10)  # of several tasks, p-values are adjusted
    if not measure.is_mean:
        if len(one) != len(other):
            return 1.0
        observed = abs(_figure(measure, one) - _figure(measure, other))
        return share_of_extreme(abs(exchanged_figures(measure, one, other, how)) >= observed)
    differences = _difference(one, other)
    if how.alone:
        won, lost = int((differences > 0).sum()), int((differences < 0).sum())
        return float(stats.binomtest(won, won + lost).pvalue) if won + lost else 1.0
    sums = np.bincount(how.groups, differences, how.units).astype(np.float64)
    return min(1.0, 2 * chance_of_sum(sums if sums.sum() > 0 else -sums, how))  # signs are as likely either way


def chance_of_sum(sums: Floats, how: Resampling) -> float:
    """How likely groups' differences add up to so much or more, where each might as well have the other sign.

    Exact where they are whole numbers, as those of right and wrong answers are, and where few differ; else signs are
    drawn.

    Args:
        sums: of each group's differences, [groups].
        how: signs are drawn.
    """
    differ = sums[sums != 0]
    if np.array_equal(differ, np.round(differ)):
        return _chance_of_whole_sum(differ)
    least = differ.sum() - 1e-9 * abs(differ).sum()  # a sum in another order is as large, but for rounding
    if len(differ) <= ENUMERATED:
        return float(np.mean(np.array(list(itertools.product((-1.0, 1.0), repeat=len(differ)))) @ differ >= least))
    generator, reached = np.random.default_rng(how.seed), []
    for start in range(0, how.resamples, BATCH):
        signs = 2.0 * generator.integers(2, size=(min(BATCH, how.resamples - start), len(differ))) - 1
        reached.append(signs @ differ >= least)
    return share_of_extreme(np.concatenate(reached))


def exchanged_figures(measure: Measure, one: Sequence[Floats], other: Sequence[Floats], how: Resampling) -> Floats:
    """Differences of figures where each group's scores might as well be the other system's, [resamples].

    Args:
        measure: what the scores of rows add up to.
        one: scores of the rows, [rows, ...], of each run.
        other: the same of what it is compared with, of as many runs.
        how: groups are exchanged.
    """
    generator, found = np.random.default_rng(how.seed), []
    for _ in range(how.resamples):
        swap = (generator.random(how.units) < 0.5)[how.groups].reshape(-1, *[1] * (one[0].ndim - 1))
        pairs = list(zip(one, other, strict=True))
        sides = (
            _figure(measure, [np.where(swap, lag, lead) for lead, lag in pairs]),
            _figure(measure, [np.where(swap, lead, lag) for lead, lag in pairs]),
        )
        found.append(sides[0] - sides[1])
    return np.array(found)


def share_of_extreme(extreme: NDArray[np.bool_]) -> float:
    """The p-value of so many drawn as extreme as what was found, which counts as one of them (Phipson & Smyth 2010)."""
    return float((extreme.sum() + 1) / (len(extreme) + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values of several tests, so adjusted that no false one is below a level more often than it says (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def best_case(rows: int, confidence: float) -> float:
    """The least share of rows won, with none lost, that the exact test finds with power :data:`POWER`; 1 if none.

    The test needs k rows won with 2 (1/2)^k < 1 - confidence, and of n rows at least k are won with that power at the
    share that is the quantile of the beta distribution of k and n - k + 1 (Clopper & Pearson 1934).
    """
    from scipy import stats

    least = math.floor(math.log2(2 / (1 - confidence))) + 1
    return float(stats.beta.ppf(POWER, least, rows - least + 1)) if rows >= least else 1.0


def least_rows(confidence: float) -> int:
    """The number of rows, or groups of them, below which nothing is called better: they may miss half of all rows."""
    rows = 1
    while best_case(rows, confidence) > MOST_MISSED:
        rows += 1
    return rows


def detectable(difference: Interval, how: Resampling, measure: Measure) -> float | None:
    """The least true difference that so many rows, or groups of them, show with power :data:`POWER`.

    From the interval's width, which says how much rows differ. Of shares of rows it is no less than that of the best
    case, in which no row is lost; of other measures, where all rows differ alike, nothing can be said: None.
    """
    from scipy import stats

    sure, found = stats.norm.ppf((1 + how.confidence) / 2), stats.norm.ppf(POWER)
    spread = (difference.high - difference.low) / 2 / sure
    shown = float((sure + found) * spread)
    return max(shown, best_case(how.units, how.confidence)) if measure.counts else shown or None


def _figure(measure: Measure, runs: Sequence[Floats]) -> float:
    return float(np.mean([measure.add_up(run) for run in runs])) if len(runs) else 0.0


def _difference(one: Sequence[Floats], other: Sequence[Floats]) -> Floats:
    """Of the runs' means, [rows]."""
    lag = np.mean(other, axis=0) if len(other) else 0.0
    return np.asarray(np.mean(one, axis=0) - lag, dtype=np.float64)


def _drawn_runs(generator: np.random.Generator, runs: int, batch: int) -> Ints:
    """Places of runs, [batch, one fewer than there are, or the only one]."""
    return generator.integers(runs, size=(batch, max(runs - 1, 1)))


def _drawn_means(one: Sequence[Floats], other: Sequence[Floats], how: Resampling) -> Floats:
    """Differences of means, [resamples]: from sums over groups, since a mean is their sum over the groups' sizes."""
    sides = [np.array([np.bincount(how.groups, run, how.units) for run in runs]) for runs in (one, other) if len(runs)]
    sizes, generator = np.bincount(how.groups), np.random.default_rng(how.seed)
    found = []
    for start in range(0, how.resamples, BATCH):
        batch = min(BATCH, how.resamples - start)
        groups = generator.integers(how.units, size=(batch, how.units))
        means = []
        for sums in sides:  # [runs, groups]
            drawn = sums[_drawn_runs(generator, len(sums), batch)].mean(axis=1)
            means.append(np.take_along_axis(drawn, groups, axis=1).sum(axis=1) / sizes[groups].sum(axis=1))
        found.append(means[0] - means[1] if len(means) > 1 else means[0])
    return np.concatenate(found)


def _drawn_figures(measure: Measure, one: Sequence[Floats], other: Sequence[Floats], how: Resampling) -> Floats:
    """Differences of figures of the drawn rows together, [resamples]."""
    members, sizes = np.argsort(how.groups, kind="stable"), np.bincount(how.groups)
    starts, generator = np.cumsum(sizes) - sizes, np.random.default_rng(how.seed)
    found = []
    for _ in range(how.resamples):
        groups = generator.integers(how.units, size=how.units)
        own, before = sizes[groups], np.cumsum(sizes[groups]) - sizes[groups]
        rows = members[np.arange(own.sum()) + np.repeat(starts[groups] - before, own)]
        sides = [
            [runs[place][rows] for place in _drawn_runs(generator, len(runs), 1)[0]] if len(runs) else []
            for runs in (one, other)
        ]
        found.append(_figure(measure, sides[0]) - _figure(measure, sides[1]))
    return np.array(found)


def _chance_of_whole_sum(sums: Floats) -> float:
    """The share of all ways to turn the signs of whole numbers in which they add up to as much."""
    sizes = Counter(int(size) for size in np.abs(sums) if size)
    if not sizes:
        return 1.0
    # Of n groups of size m, as many as k turned up add 2mk to the lowest sum; steps of that half are the places here.
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
