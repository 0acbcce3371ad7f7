"""The Optuna study: its storage, its samplers, and what happens to the trials of a process that was killed."""

from __future__ import annotations

import csv
import logging
import os
import socket
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
import psutil
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from pipelines.errors import PipelineError
from pipelines.params import Params, PrunerParams, Recipe
from pipelines.store import check_trials, trials_uri

log = logging.getLogger(__name__)

OWNER = "owner"  # user attribute: the process that runs the trial
RETRY_OF = "retry_of"  # user attribute: the killed trial that this one repeats
ENQUEUED = "enqueued"  # user attribute: the place of the trial in search.enqueue
KILLED = "killed"  # the study's attribute: trials that ended with their process and say nothing about their recipe


@dataclass(frozen=True)
class TrialRecord:
    """One trial as trials.json holds it; ``value`` is the validation accuracy, None unless the trial is complete."""

    number: int
    state: str
    value: float | None
    params: dict[str, object]
    seconds: float | None
    intermediate: dict[int, float]
    parameters: int | None
    error: str | None


def open_study(params: Params, root: Path, *, name: str) -> optuna.Study:
    """Open the study or make it.

    Raises:
        PipelineError: if the storage cannot be reached.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    check_trials(params, root)
    url = trials_uri(params, root)
    try:
        storage = optuna.storages.RDBStorage(url)
        return optuna.create_study(
            study_name=name,
            storage=storage,
            direction="maximize",
            load_if_exists=True,
            pruner=_pruner(params.search.pruner),
        )
    except (ArgumentError, SQLAlchemyError, ImportError) as error:
        reason = str(error).splitlines()[0]
        raise PipelineError(
            "search.storage must be a database that answers",
            got=f"{url.split('@')[-1]}: {reason}",
            do="Check the address and the driver.",
        ) from None


def study_sizes(params: Params, root: Path) -> dict[str, int]:
    """The number of trials of each study in the database, by name.

    Raises:
        PipelineError: if the database does not answer.
    """
    check_trials(params, root)
    uri = trials_uri(params, root)
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        return {}
    summaries = optuna.get_all_study_summaries(optuna.storages.RDBStorage(uri), include_best_trial=False)
    return {summary.study_name: summary.n_trials for summary in summaries}


def delete_study(params: Params, root: Path, name: str) -> None:
    """Delete a study with its trials, for good."""
    optuna.delete_study(study_name=name, storage=optuna.storages.RDBStorage(trials_uri(params, root)))


def _pruner(settings: PrunerParams) -> optuna.pruners.BasePruner:
    # Reports are numbered from 1, and Optuna prunes from step n_warmup_steps on.
    if settings.name == "none":
        return optuna.pruners.NopPruner()
    return optuna.pruners.MedianPruner(
        n_startup_trials=settings.startup_trials, n_warmup_steps=settings.warmup_reports + 1
    )


def make_sampler(params: Params, *, offset: int) -> optuna.samplers.BaseSampler:
    """The sampler for the next trial; ``offset`` trials went before it."""
    # Neighbouring seeds draw alike in Optuna's samplers, so they are spread first.
    seed = int(np.random.SeedSequence([params.seed, offset]).generate_state(1)[0])
    if params.search.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=max(len(params.search.enqueue) + 2, 5))


def counted(study: optuna.Study) -> int:
    """How many trials count towards search.trials: all that ended, but for those that ended with their process."""
    ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL))
    return len({trial.number for trial in ended} - killed_trials(study))


def killed_trials(study: optuna.Study) -> set[int]:
    """The numbers of the trials that ended with their process."""
    return set(study.user_attrs.get(KILLED, []))


def close_killed_trials(study: optuna.Study, *, alone: bool) -> None:
    """Mark the running trials of dead processes on this machine as failed, and enqueue each one's recipe once more.

    Each step may itself be killed: a trial is noted as killed before it is closed, closed before its retry is enqueued,
    and retries are found by the number of the trial that they repeat. So none is lost, and none is run twice.

    Args:
        study: with trials of this and maybe other processes.
        alone: whether the lock on the project keeps all others out of the study, as it does for a database file in the
            project: then a running trial is a dead one, also under another host's name.
    """
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if _owner_is_dead(trial.user_attrs.get(OWNER), alone=alone):
            study.set_user_attr(KILLED, sorted(killed_trials(study) | {trial.number}))
            study.tell(trial.number, state=TrialState.FAIL)
            log.info("trial %d was killed with its process; its recipe runs again", trial.number)
    killed, trials = killed_trials(study), study.get_trials(deepcopy=False)
    repeated = {trial.user_attrs.get(RETRY_OF) for trial in trials}
    for trial in trials:
        if trial.number in killed and trial.number not in repeated:
            attrs = {RETRY_OF: trial.number} | {k: v for k, v in trial.user_attrs.items() if k == ENQUEUED}
            fixed = trial.system_attrs.get("fixed_params", {}) | trial.params
            # Killed before its whole recipe was drawn: the next trial has the same seed and draws the same one.
            if Recipe.model_fields.keys() <= fixed.keys():
                study.enqueue_trial(fixed, user_attrs=attrs)


def this_process() -> str:
    """A name for this very process: host, number and start (numbers are used again)."""
    return f"{socket.gethostname()}:{os.getpid()}:{psutil.Process().create_time():.0f}"


def _owner_is_dead(owner: str | None, *, alone: bool) -> bool:
    if owner is None:  # killed between its start and its first note: nobody else can own it under the stage's lock
        return True
    host, pid, created = owner.rsplit(":", 2)
    if host != socket.gethostname():
        return alone  # a machine that shares the database may be at work on it
    try:
        return abs(psutil.Process(int(pid)).create_time() - float(created)) > 1
    except psutil.NoSuchProcess:
        return True


def trial_records(study: optuna.Study) -> list[TrialRecord]:
    """Every trial of the study that ended, in order of its number."""
    ended = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    killed = killed_trials(study)
    return [_record(trial, killed) for trial in study.get_trials(deepcopy=False, states=ended)]


def best_trial(study: optuna.Study) -> FrozenTrial:
    """The complete trial with the highest value; of equal ones that with the fewest parameters, then the first.

    Raises:
        PipelineError: if no trial is complete.
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not complete:
        errors = {t.user_attrs.get("error", t.state.name.lower()) for t in study.get_trials(deepcopy=False)}
        raise PipelineError(
            "at least one trial must be complete",
            got=f"{study.study_name}: {sorted(errors)}",
            do="Change search.space.",
        )
    return min(complete, key=lambda t: (-(t.value or 0.0), t.user_attrs["parameters"], t.number))


def write_trials_csv(path: Path, records: list[TrialRecord]) -> None:
    """Write the table of trials, one a row, a column a searched parameter."""
    names = sorted({name for record in records for name in record.params})
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["number", "state", "value", *names, "parameters", "seconds", "error"])
        for r in records:
            row = [
                r.number,
                r.state,
                r.value,
                *(r.params.get(n) for n in names),
                r.parameters,
                r.seconds,
                r.error,
            ]
            writer.writerow(["" if value is None else value for value in row])


def _record(trial: FrozenTrial, killed: set[int]) -> TrialRecord:
    error = "killed with its process" if trial.number in killed else trial.user_attrs.get("error")
    return TrialRecord(
        number=trial.number,
        state=trial.state.name.lower(),
        value=trial.value if trial.state is TrialState.COMPLETE else None,
        params=dict(trial.params),
        seconds=trial.user_attrs.get("seconds"),
        intermediate=dict(trial.intermediate_values),
        parameters=trial.user_attrs.get("parameters"),
        error=error,
    )
