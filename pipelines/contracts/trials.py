"""search/trials.json: the trials of a study as the stage search leaves them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pipelines.contracts.reading import Fields, read_list
from pipelines.files import write_json

KILLED = "killed with its process"


@dataclass(frozen=True)
class TrialRecord:
    """One trial.

    Attributes:
        number: in the study.
        state: complete, pruned or fail.
        value: the measure's, on the validation rows; None unless it is complete.
        values: of each objective, none unless it is complete.
        params: the point of the space; what a condition left out is not in it.
        seed: of its initial weights and the order of its rows.
        intermediate: the same at each report.
        parameters: trained numbers.
        seconds: of training and scoring, without ``fill_seconds``.
        fill_seconds: of computing what is constant of base and rows, which trials after it found kept.
        tokens: trained on.
        memory_mb: at its height, in millions of bytes.
        over: the limits that it is over.
        enqueued: its place among the recipes that were tried first.
        error: why it failed.
        loss: of the validation rows, where the search is judged by it; lower is better.
    """

    number: int
    state: str
    value: float | None
    values: tuple[float, ...]
    params: dict[str, object]
    seed: int
    intermediate: dict[int, float]
    parameters: int | None
    seconds: float | None
    fill_seconds: float | None
    tokens: int | None
    memory_mb: float | None
    over: tuple[str, ...]
    enqueued: int | None
    error: str | None
    loss: float | None = None

    @property
    def goal(self) -> float:
        """What a trial that is complete is chosen by; higher is better."""
        return (self.value or 0.0) if self.loss is None else -self.loss

    @property
    def was_killed(self) -> bool:
        """Whether it ended with its process, and says nothing about its recipe, which was run again."""
        return self.error == KILLED


def write_trials(path: Path, records: Sequence[TrialRecord]) -> None:
    """Write trials.json."""
    write_json(path, [asdict(record) for record in records])


def read_trials(path: Path) -> list[TrialRecord]:
    """Read trials.json; raises :class:`PipelineError` if it is not what the stage writes."""
    return read_list(path, _record, stage="search")


def _record(raw: Fields) -> TrialRecord:
    reports = {int(report): float(value) for report, value in raw["intermediate"].items()}
    return TrialRecord(**{**raw, "values": tuple(raw["values"]), "over": tuple(raw["over"]), "intermediate": reports})
