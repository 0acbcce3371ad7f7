"""metrics/evaluation.json: what the stage evaluate leaves."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.contracts.interval import Interval


@dataclass(frozen=True)
class ClassFigures:
    """How one label fared; support is its number of rows."""

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class SystemFigures:
    """How one system (the adapter, or the base alone) fared on the test rows."""

    accuracy: float
    low: float
    high: float
    per_class: dict[str, ClassFigures]


@dataclass(frozen=True)
class Evaluation:
    """What metrics/evaluation.json holds, beside the adapter's hash.

    ``better``: the paired difference's whole interval lies above 0.
    """

    rows: int
    confidence: float
    adapter: SystemFigures
    base: SystemFigures
    difference: Interval
    better: bool
