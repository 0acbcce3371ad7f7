"""metrics/evaluation.json: what the stage evaluate leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipelines.contracts.diagnostics import Diagnostics, read_diagnostics
from pipelines.contracts.interval import Interval
from pipelines.contracts.reading import Fields, read_metrics, write_metrics

SYSTEMS = ("adapter", "base")
_IDENTITIES = ("adapter_sha256",)
FIRST_MEASURE = "accuracy"  # of files that name none, which version 0.1 wrote
NOT_WRITTEN_BEFORE: Mapping[str, Any] = {
    "p_value": None, "detectable": None, "least_rows": None, "baselines": {}, "over_majority": None, "groups": None,
    "diagnostics": None,
}  # fmt: skip


@dataclass(frozen=True)
class SystemFigures:
    """How one system (the adapter, or the base alone) fared on the test rows.

    ``value``, of the task's measure, is written under that measure's name. ``summary`` holds what else the task
    reports of all rows, such as ``macro_f1``, and ``per_class`` what it reports by class or slice.
    """

    value: float
    low: float
    high: float
    per_class: dict[str, dict[str, float]]
    summary: dict[str, float]


@dataclass(frozen=True)
class Against:
    """The adapter's lead over something else on the same rows.

    ``p_value`` is that of the exact paired test. ``better``: the interval lies above 0, the test is beyond the
    confidence, and the groups of rows are at least ``least_rows`` of the evaluation.
    """

    difference: Interval
    p_value: float
    better: bool


@dataclass(frozen=True)
class TaskFigures:
    """Adapter and frozen base on the test rows of one task of a mixture.

    ``adjusted_p_value`` is ``p_value`` by Holm over the tasks, so that of many tasks none is called better by chance
    alone; ``better`` goes by it, and otherwise as :class:`Evaluation` says.
    """

    measure: str
    rows: int
    groups: int
    adapter: SystemFigures
    base: SystemFigures
    difference: Interval
    p_value: float
    adjusted_p_value: float
    baselines: dict[str, float]
    over_majority: Against | None
    better: bool

    def flat(self) -> dict[str, float]:
        """Every figure by a name, as :meth:`Evaluation.flat` names them."""
        flat = {f"difference.{name}": value for name, value in asdict(self.difference).items()}
        flat |= {"difference.p_value": self.p_value, "difference.adjusted_p_value": self.adjusted_p_value}
        flat |= {f"baseline.{name}": value for name, value in self.baselines.items()}
        for system, figures in (("adapter", self.adapter), ("base", self.base)):
            own = {self.measure: figures.value, "low": figures.low, "high": figures.high} | figures.summary
            flat |= {f"{system}.{name}": float(value) for name, value in own.items()}
        return flat


@dataclass(frozen=True)
class Evaluation:
    """Adapter and frozen base on the same test rows.

    ``better``: than the base, and than always giving the commonest answer (``over_majority``) where the task has such
    an answer; both as :class:`Against` says. ``groups``: of the rows that say less together than apart, with a row
    that is alone as one; with fewer than ``least_rows`` nothing is better. ``detectable`` is the
    least true difference to the base that these rows show at the confidence with 80 % power. What version 0.1 did not
    write is None, or empty. ``tasks``: of a mixture, each task by itself; all else is then said of the mean over tasks.
    ``diagnostics``: what was looked at beside these figures.
    """

    adapter_sha256: str
    measure: str
    rows: int
    groups: int | None
    confidence: float
    adapter: SystemFigures
    base: SystemFigures
    difference: Interval
    p_value: float | None
    detectable: float | None
    least_rows: int | None
    baselines: dict[str, float]
    over_majority: Against | None
    better: bool
    tasks: dict[str, TaskFigures] = field(default_factory=dict)
    diagnostics: Diagnostics | None = None

    def flat(self, named_part: Callable[[str], str] = str) -> dict[str, float]:
        """Every figure by a name: ``adapter.accuracy``, ``difference.low``, ``base.negative.f1`` and so on."""
        flat = {f"difference.{name}": value for name, value in asdict(self.difference).items()}
        flat |= {f"baseline.{name}": value for name, value in self.baselines.items()}
        named = {"p_value": self.p_value, "detectable": self.detectable}
        flat |= {f"difference.{name}": value for name, value in named.items() if value is not None}
        if self.over_majority is not None:
            over = asdict(self.over_majority.difference) | {"p_value": self.over_majority.p_value}
            flat |= {f"over_majority.{name}": value for name, value in over.items()}
        for system, figures in (("adapter", self.adapter), ("base", self.base)):
            own = {self.measure: figures.value, "low": figures.low, "high": figures.high}
            flat |= {f"{system}.{name}": value for name, value in (own | figures.summary).items()}
            for part, values in figures.per_class.items():
                flat |= {f"{system}.{named_part(part)}.{name}": float(value) for name, value in values.items()}
        for task, of_task in self.tasks.items():
            flat |= {f"task.{named_part(task)}.{name}": value for name, value in of_task.flat().items()}
        return flat | ({} if self.diagnostics is None else self.diagnostics.flat())


def write_evaluation(path: Path, evaluation: Evaluation) -> None:
    """Write evaluation.json."""
    values = asdict(evaluation)
    for own in (values, *values["tasks"].values()):
        for system in SYSTEMS:
            figures = own[system]
            own[system] = {own["measure"]: figures.pop("value"), **figures}
    if not evaluation.tasks:
        del values["tasks"]
    write_metrics(path, values, identities=_IDENTITIES)


def read_evaluation(path: Path) -> Evaluation:
    """Read evaluation.json.

    Raises:
        PipelineError: if it is not what the stage writes.
    """
    return read_metrics(path, _evaluation, stage="evaluate")


def _evaluation(raw: Fields) -> Evaluation:
    values = {"measure": FIRST_MEASURE, **NOT_WRITTEN_BEFORE, **raw}
    tasks = {name: TaskFigures(**_compared(own)) for name, own in raw.get("tasks", {}).items()}
    diagnostics = read_diagnostics(values["diagnostics"])
    return Evaluation(**{**_compared(values), "tasks": tasks, "diagnostics": diagnostics})


def _compared(raw: Fields) -> Fields:
    """The fields that both systems, and what is said of them together, are told in."""
    systems = {name: _system(raw[name], str(raw["measure"])) for name in SYSTEMS}
    over = raw["over_majority"]
    if over is not None:
        over = Against(**{**over, "difference": Interval(**over["difference"])})
    return {**raw, **systems, "difference": Interval(**raw["difference"]), "over_majority": over}


def _system(raw: Mapping[str, Any], measure: str) -> SystemFigures:
    values = {"summary": {}, **raw}
    return SystemFigures(**{("value" if name == measure else name): value for name, value in values.items()})
