"""metrics/evaluation.json: what the stage evaluate leaves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.contracts.interval import Interval
from pipelines.contracts.reading import Fields, read_fields
from pipelines.files import write_json

SYSTEMS = ("adapter", "base")
FIRST_MEASURE = "accuracy"  # of files that name none, which version 0.1 wrote


@dataclass(frozen=True)
class SystemFigures:
    """How one system (the adapter, or the base alone) fared on the test rows.

    ``value``, of the task's measure, is written under that measure's name. ``per_class`` holds what else the task
    reports, by class or slice.
    """

    value: float
    low: float
    high: float
    per_class: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Evaluation:
    """Adapter and frozen base on the same test rows.

    ``better``: the paired difference's whole interval lies above 0.
    """

    adapter_sha256: str
    measure: str
    rows: int
    confidence: float
    adapter: SystemFigures
    base: SystemFigures
    difference: Interval
    better: bool

    def flat(self) -> dict[str, float]:
        """Every figure by a name: ``adapter.accuracy``, ``difference.low``, ``base.negative.f1`` and so on."""
        flat = {f"difference.{name}": value for name, value in asdict(self.difference).items()}
        for system, figures in (("adapter", self.adapter), ("base", self.base)):
            own = {self.measure: figures.value, "low": figures.low, "high": figures.high}
            flat |= {f"{system}.{name}": value for name, value in own.items()}
            for part, values in figures.per_class.items():
                flat |= {f"{system}.{part}.{name}": float(value) for name, value in values.items()}
        return flat


def write_evaluation(path: Path, evaluation: Evaluation) -> None:
    """Write evaluation.json."""
    values = asdict(evaluation)
    for system in SYSTEMS:
        figures = values[system]
        values[system] = {evaluation.measure: figures.pop("value"), **figures}
    write_json(path, values)


def read_evaluation(path: Path) -> Evaluation:
    """Read evaluation.json.

    Raises:
        PipelineError: if it is not what the stage writes.
    """
    return read_fields(path, _evaluation, stage="evaluate")


def _evaluation(raw: Fields) -> Evaluation:
    values = {"measure": FIRST_MEASURE, **raw}
    measure = str(values["measure"])
    systems = {name: _system(values[name], measure) for name in SYSTEMS}
    return Evaluation(**{**values, **systems, "difference": Interval(**values["difference"])})


def _system(raw: Mapping[str, Any], measure: str) -> SystemFigures:
    return SystemFigures(**{("value" if name == measure else name): value for name, value in raw.items()})
