"""How the scores of rows add up to the one figure of a task, and how sure that figure is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Measure(Protocol):
    """The figure that a search raises, the stage evaluate reports, and versions are compared by; higher is better."""

    @property
    def name(self) -> str:
        """Its name in metrics files, in MLflow and in search.objectives."""

    @property
    def is_mean(self) -> bool:
        """Whether :meth:`add_up` is the mean of rows' scores."""

    @property
    def interval_name(self) -> str:
        """Whose interval :meth:`interval` is."""

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
    interval_name: str = "Wilson"

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
