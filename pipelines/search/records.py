"""The trials as the search leaves them: trials.json and trials.csv."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState

from pipelines.search.study import (
    ENDED,
    ENQUEUED,
    ERROR,
    MAX_KILLS,
    SEED,
    SharedStudy,
    in_state,
    killed_trials,
    point_of,
)
from pipelines.search.trial import COSTS, CURVE

KILLED = "killed with its process"
COLUMNS = ("parameters", "seconds", "tokens", "memory_mb", "seed", "error")


@dataclass(frozen=True)
class TrialRecord:
    """One trial.

    Attributes:
        number: in the study.
        state: complete, pruned or fail.
        value: its validation accuracy; None unless it is complete.
        values: of each objective, none unless it is complete.
        params: the point of the space; what a condition left out is not in it.
        seed: of its initial weights and the order of its rows.
        intermediate: the validation accuracy at each report.
        parameters: trained numbers.
        seconds: of training and scoring.
        tokens: trained on.
        memory_mb: at its height, in millions of bytes.
        over: the limits that it is over.
        enqueued: its place among the recipes that were tried first.
        error: why it failed.
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
    tokens: int | None
    memory_mb: float | None
    over: tuple[str, ...]
    enqueued: int | None
    error: str | None

    @property
    def was_killed(self) -> bool:
        """Whether it ended with its process, and says nothing about its recipe, which was run again."""
        return self.error == KILLED


def trial_records(shared: SharedStudy) -> list[TrialRecord]:
    """Every trial of the study that ended, in order of its number."""
    trials = shared.trials()
    killed = killed_trials(trials)
    return [_record(trial, killed) for trial in in_state(trials, *ENDED)]


def saved_seconds(record: TrialRecord, reports: int) -> float:
    """What the pruner spared, if each report that a trial did not come to had taken as long as those before it."""
    if record.state != "pruned" or record.over or not record.intermediate:
        return 0.0
    done = max(record.intermediate)
    return (record.seconds or 0.0) * (reports - done) / done


def _record(trial: FrozenTrial, killed: set[int]) -> TrialRecord:
    attributes = trial.user_attrs
    costs, curve = attributes.get(COSTS, {}), attributes.get(CURVE, trial.intermediate_values)
    values = tuple(trial.values) if trial.state is TrialState.COMPLETE else ()
    return TrialRecord(
        number=trial.number,
        state=trial.state.name.lower(),
        value=values[0] if values else None,
        values=values,
        params=point_of(trial),
        seed=attributes[SEED],
        intermediate={int(report): value for report, value in curve.items()},
        parameters=costs.get("parameters"),
        seconds=costs.get("seconds"),
        tokens=costs.get("tokens"),
        memory_mb=costs.get("memory_mb"),
        over=tuple(sorted(limit for limit, excess in trial.constraints.items() if excess > 0)),
        enqueued=attributes.get(ENQUEUED),
        error=_error(trial, killed),
    )


def _error(trial: FrozenTrial, killed: set[int]) -> str | None:
    if trial.state is not TrialState.FAIL:
        return None
    if trial.number in killed:
        return KILLED
    return str(trial.user_attrs.get(ERROR, f"{KILLED} {MAX_KILLS} times"))


def write_trials_csv(path: Path, records: Sequence[TrialRecord]) -> None:
    """Write the table of trials, one a row, a column a searched part."""
    names = sorted({name for record in records for name in record.params})
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["number", "state", "value", *names, *COLUMNS])
        for record in records:
            costs = [getattr(record, column) for column in COLUMNS]
            row = [record.number, record.state, record.value, *(record.params.get(name) for name in names), *costs]
            writer.writerow(["" if value is None else value for value in row])
