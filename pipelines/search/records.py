"""The trials as the search leaves them: trials.json and trials.csv."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState

from pipelines.contracts.trials import KILLED, TrialRecord
from pipelines.search.goal import LOSSES, goal
from pipelines.search.study import (
    COSTS,
    CURVE,
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

COLUMNS = ("parameters", "seconds", "fill_seconds", "tokens", "memory_mb", "loss", "seed", "error")


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
        fill_seconds=costs.get("fill_seconds"),
        tokens=costs.get("tokens"),
        memory_mb=costs.get("memory_mb"),
        over=tuple(sorted(limit for limit, excess in trial.constraints.items() if excess > 0)),
        enqueued=attributes.get(ENQUEUED),
        error=_error(trial, killed),
        loss=-goal(trial) if values and LOSSES in attributes else None,
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
