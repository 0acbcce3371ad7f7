"""How the scores of rows add up to the one figure of a task, and how sure that figure is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Places = NDArray[np.int64]
PEARSON, SPEARMAN = "pearson", "spearman"


class Measure(Protocol):
    """The figure that a search raises, the stage evaluate reports, and versions are compared by; higher is better."""

    @property
    def name(self) -> str:
        """Its name in metrics files, in MLflow and in search.objectives."""

    @property
    def is_mean(self) -> bool:
        """Whether :meth:`add_up` is the mean of rows' scores."""

    @property
    def width(self) -> int:
        """How many numbers a row scores: [rows] of one, else [rows, width]."""

    @property
    def counts(self) -> bool:
        """Whether rows score 1 or 0 alone, so that the figure and the number of rows say how sure it is."""

    def add_up(self, scores: Floats) -> float:
        """The figure of rows with these scores: [rows, ...]."""

    def error(self, value: float, rows: int) -> float:
        """The standard error of a figure of so many rows."""

    def interval(self, value: float, rows: int, confidence: float) -> tuple[float, float]:
        """The confidence interval of a figure of so many rows."""


@dataclass(frozen=True)
class Proportion:
    """The share of the rows that are right: each scores 1 or 0."""

    name: str
    is_mean: bool = True
    counts: bool = True
    width: int = 1

    def add_up(self, scores: Floats) -> float:
        """The mean."""
        return float(scores.mean())

    def error(self, value: float, rows: int) -> float:
        """That of a binomial proportion."""
        return math.sqrt(value * (1 - value) / rows)

    def interval(self, value: float, rows: int, confidence: float) -> tuple[float, float]:
        """The score interval (Wilson 1927)."""
        from scipy import stats  # takes a second to import, and the workers of a search do without

        interval = stats.binomtest(round(value * rows), rows).proportion_ci(confidence, method="wilson")
        return float(interval.low), float(interval.high)


@dataclass(frozen=True)
class Mean:
    """The mean of the rows' scores, each from 0 to 1.

    Without the rows, their spread is not known: it is at most that of scores of 0 and 1 (Bhatia & Davis 2000), which
    error and interval take.
    """

    name: str
    is_mean: bool = True
    counts: bool = False
    width: int = 1

    def add_up(self, scores: Floats) -> float:
        """The mean."""
        return float(scores.mean())

    def error(self, value: float, rows: int) -> float:
        """At most this."""
        return math.sqrt(max(value * (1 - value), 0.0) / rows)

    def interval(self, value: float, rows: int, confidence: float) -> tuple[float, float]:
        """By the normal distribution, within 0 and 1."""
        from scipy import stats

        reach = float(stats.norm.ppf((1 + confidence) / 2)) * self.error(value, rows)
        return max(value - reach, 0.0), min(value + reach, 1.0)


@dataclass(frozen=True)
class Correlation:
    """How two columns of numbers go together over the rows: each scores what was said and what is right, [rows, 2].

    Attributes:
        name: ``pearson``, or ``spearman``: of the ranks, of equal numbers their mean.
    """

    name: str
    is_mean: bool = False
    counts: bool = False
    width: int = 2

    def add_up(self, scores: Floats) -> float:
        """The coefficient; 0 where the answers, or what is right, are all the same, and nothing goes together."""
        said, right = (self._ranked(column) for column in scores.T)
        if np.ptp(said) == 0 or np.ptp(right) == 0:
            return 0.0
        return float(np.clip(np.corrcoef(said, right)[0, 1], -1.0, 1.0))

    def error(self, value: float, rows: int) -> float:
        """About that of a coefficient: the error of Fisher's z, times how fast the coefficient moves with it.

        Infinite of three rows or fewer, which say nothing.
        """
        return (1 - value**2) * self._z_error(value, rows) if rows > 3 else math.inf

    def interval(self, value: float, rows: int, confidence: float) -> tuple[float, float]:
        """By Fisher's z transformation (Fisher 1921)."""
        from scipy import stats

        if rows <= 3:  # which say nothing
            return -1.0, 1.0
        if abs(value) == 1:
            return value, value
        reach = stats.norm.ppf((1 + confidence) / 2) * self._z_error(value, rows)
        return math.tanh(math.atanh(value) - reach), math.tanh(math.atanh(value) + reach)

    def _z_error(self, value: float, rows: int) -> float:
        """That of Fisher's z, of more than three rows; for ranks after Bonett & Wright 2000."""
        variance = 1 + value**2 / 2 if self.name == SPEARMAN else 1.0
        return math.sqrt(variance / (rows - 3))

    def _ranked(self, column: Floats) -> Floats:
        if self.name != SPEARMAN:
            return column
        from scipy import stats

        ranks: Floats = stats.rankdata(column)
        return ranks


@dataclass(frozen=True)
class LabelF1(Mean):
    """F1 of a label, or the mean over the labels that are said or right: each row scores both places, [rows, 2].

    Without the rows, error and interval are about those of a share.

    Attributes:
        labels: how many there are.
        of: the place of the label; None for the mean over labels.
    """

    is_mean: bool = False
    width: int = 2
    labels: int = 2
    of: int | None = None

    def add_up(self, scores: Floats) -> float:
        """F1, that is 2 TP / (2 TP + FP + FN); 0 of a label that is never right and never said."""
        counts = _confusion(scores, self.labels)
        right, named = counts.diagonal(), counts.sum(axis=0) + counts.sum(axis=1)
        each = 2 * right / np.maximum(named, 1)
        return float(each[named > 0].mean() if self.of is None else each[self.of])


@dataclass(frozen=True)
class MacroAverage(Mean):
    """The mean of several tasks' figures, in which each counts alike: [rows, 1 + width].

    A row scores the place of its task, then what its task scores it by. Of a task that none of the rows is of nothing
    is said. Without the rows, error and interval are those of a mean over as many rows of each task.

    Attributes:
        tasks: the measure of each task.
    """

    is_mean: bool = False
    tasks: tuple[Measure, ...] = ()

    def add_up(self, scores: Floats) -> float:
        """The mean over the tasks that the rows are of."""
        places = scores[:, 0].astype(np.int64)
        if all(task.is_mean for task in self.tasks):
            rows = np.bincount(places, minlength=len(self.tasks))
            sums = np.bincount(places, scores[:, 1], minlength=len(self.tasks))
            return float((sums[rows > 0] / rows[rows > 0]).mean())
        own = {place: scores[places == place, 1:] for place in sorted(set(places.tolist()))}
        return float(np.mean([self._of_task(self.tasks[place], rows) for place, rows in own.items()]))

    @staticmethod
    def _of_task(task: Measure, scores: Floats) -> float:
        return task.add_up(scores[:, 0] if task.width == 1 else scores[:, : task.width])


@dataclass(frozen=True)
class Matthews(Correlation):
    """How said and right labels go together (Matthews 1975; of several labels Gorodkin 2004), from [rows, 2]."""

    labels: int = 2

    def add_up(self, scores: Floats) -> float:
        """The coefficient; 0 where the answers, or what is right, are all the same."""
        counts = _confusion(scores, self.labels)
        rows, said, right = counts.sum(), counts.sum(axis=1), counts.sum(axis=0)
        spread = math.sqrt((rows**2 - said @ said) * (rows**2 - right @ right))
        return float((counts.trace() * rows - said @ right) / spread) if spread else 0.0


def _confusion(scores: Floats, labels: int) -> Floats:
    """How many rows have each pair of what is said and what is right, [labels, labels]."""
    said, right = scores.astype(np.int64).T
    counts = np.bincount(said * labels + right, minlength=labels**2).reshape(labels, labels)
    return counts.astype(np.float64)
