"""The Optuna study: its database, whose its trials are, and what becomes of those whose process was killed.

Every trial is enqueued with its whole recipe before it begins, so one that is killed at any moment can be run again as
it was. Trials are counted, begun and closed under the study's lock.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from pipelines.errors import PipelineError
from pipelines.params.search import SearchParams
from pipelines.runtime.database_lock import database_lock
from pipelines.runtime.process import is_gone
from pipelines.search.pruning import make_pruner
from pipelines.tracking.store import check_trials, public_uri, trials_uri

log = logging.getLogger(__name__)

# User attributes of a trial.
OWNER = "owner"  # the process that runs it
RETRY_OF = "retry_of"  # the killed trial that it repeats
ENQUEUED = "enqueued"  # its place among the recipes that are tried first
ERROR = "error"  # why it failed: a failed trial without one was killed with its process
INTERRUPTED = "interrupted"  # its process was told to stop, or its parent ended: no kill of its recipe

MAX_KILLS = 3  # a recipe whose process is killed as often counts as failed: it may be what kills it
HEARTBEAT_SECONDS = 15  # how often a running trial says so in a database that other machines share
GRACE_SECONDS = 90  # without a heartbeat, after which its machine is given up
FIXED = "fixed_params"  # Optuna's own: what a trial was enqueued with
CONFIRM = "-confirm"  # the end of the name of a study of confirmations; before it stands that of the search's study
ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
SEED = "seed"  # user attribute: of the initial weights and the order of the rows
CANDIDATE = "candidate"  # user attribute, in a study of confirmations: the trial whose recipe is run again
RECIPE = "recipe"  # user attribute: all parts of the recipe
BASE_VALUE = "base_value"  # user attributes of a study: of the frozen base, on the rows that a fold is asked
KEPT = (ENQUEUED, SEED, CANDIDATE, RECIPE)  # what a repetition has of the trial that it repeats


@dataclass(frozen=True)
class SharedStudy:
    """A study that processes on this and other machines work on."""

    study: optuna.Study
    storage: optuna.storages.RDBStorage

    @property
    def name(self) -> str:
        """The study's name."""
        return str(self.study.study_name)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock under which trials are counted, begun and closed."""
        with database_lock(self.storage.url, "trials", self.name, wait_seconds=None):
            yield

    def trials(self) -> list[FrozenTrial]:
        """All trials as they are now, each at the place of its number."""
        found: list[FrozenTrial] = self.study.get_trials(deepcopy=False)
        return found

    def beat(self, number: int) -> None:
        """Record a first heartbeat at once, so that there is no moment at which a trial could die unnoticed."""
        if self.storage.heartbeat_interval is not None:
            study_id = self.storage.get_study_id_from_name(self.name)
            self.storage.record_heartbeat(self.storage.get_trial_id_from_study_id_trial_number(study_id, number))


def open_study(search: SearchParams, root: Path, *, name: str) -> SharedStudy:
    """Open the study or make it.

    Raises:
        PipelineError: if the storage cannot be reached.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # how trials end is told by this project
    check_trials(search.storage, root)
    url = trials_uri(search.storage, root)
    try:
        # Two processes that make the tables at once break each other.
        with database_lock(url, "tables", wait_seconds=None):
            storage = _storage(url)
            study = optuna.create_study(
                study_name=name,
                storage=storage,
                directions=study_directions(search),
                load_if_exists=True,
                pruner=make_pruner(search),
            )
    except (ArgumentError, SQLAlchemyError, ImportError) as error:
        reason = str(error).splitlines()[0]
        raise PipelineError(
            "search.storage must be a database that answers",
            got=f"{public_uri(url)}: {reason}",
            do="Check the address and the driver.",
        ) from None
    return SharedStudy(study, storage)


def study_directions(settings: SearchParams) -> list[str]:
    """The task's measure, which comes first, is raised; the costs are lowered."""
    return ["maximize", *["minimize"] * (len(settings.objectives) - 1)]


def _storage(url: str) -> optuna.storages.RDBStorage:
    if url.startswith("sqlite:"):  # all its users are on this machine, where processes can be asked for
        return optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 60}})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return optuna.storages.RDBStorage(
            url,
            engine_kwargs={"pool_pre_ping": True},  # a trial may take longer than a database keeps a silent session
            heartbeat_interval=HEARTBEAT_SECONDS,
            grace_period=GRACE_SECONDS,
        )


def study_sizes(storage: str, root: Path) -> dict[str, int]:
    """The number of trials of each study in the database, by name.

    Raises:
        PipelineError: if the database does not answer.
    """
    check_trials(storage, root)
    uri = trials_uri(storage, root)
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        return {}
    summaries = optuna.get_all_study_summaries(_storage(uri), include_best_trial=False)
    return {summary.study_name: summary.n_trials for summary in summaries}


def delete_study(storage: str, root: Path, name: str) -> None:
    """Delete a study with its trials, for good."""
    optuna.delete_study(study_name=name, storage=_storage(trials_uri(storage, root)))


def point_of(trial: FrozenTrial) -> dict[str, Any]:
    """The point of the space that a trial was enqueued with."""
    return dict(trial.system_attrs[FIXED])


def in_state(trials: Sequence[FrozenTrial], *states: TrialState) -> list[FrozenTrial]:
    """Those of the trials that are in one of the states."""
    return [trial for trial in trials if trial.state in states]


def counted(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that count towards search.trials: all that ended, but for those that ended with their process."""
    killed = killed_trials(trials)
    return [trial for trial in in_state(trials, *ENDED) if trial.number not in killed]


def killed_trials(trials: Sequence[FrozenTrial]) -> set[int]:
    """The numbers of the trials that ended with their process, and say nothing about their recipe.

    Args:
        trials: all of a study.
    """
    return {trial.number for trial in trials if _was_killed(trial) and _kills(trial, trials) < MAX_KILLS}


def _kills(trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> int:
    """How often the process of a trial, and of those that it repeats, was killed."""
    own = int(_was_killed(trial) and INTERRUPTED not in trial.user_attrs)
    former = trial.user_attrs.get(RETRY_OF)
    return own if former is None else own + _kills(trials[former], trials)


def _was_killed(trial: FrozenTrial) -> bool:
    return trial.state is TrialState.FAIL and ERROR not in trial.user_attrs


def repeat_killed(shared: SharedStudy, *, alone: bool) -> None:
    """Close the running trials whose process is gone, and enqueue each one's recipe once more; under the lock.

    Each step may itself be killed: a killed trial is known by its state, and its repetition by its number. So none is
    lost, and none is run twice.

    Args:
        shared: with trials of this and maybe other processes.
        alone: whether no other machine can be at work on it, as where the lock on a project keeps all others out of
            its database file: then a running trial under another host's name is a dead one.
    """
    if shared.storage.heartbeat_interval is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            optuna.storages.fail_stale_trials(shared.study)  # those of other machines
    for trial in in_state(shared.trials(), TrialState.RUNNING):
        if _owner_is_dead(trial.user_attrs.get(OWNER), alone=alone):
            with contextlib.suppress(UpdateFinishedTrialError):  # it ended just before its process did
                shared.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
    trials = shared.trials()
    repeated = {trial.user_attrs.get(RETRY_OF) for trial in trials}
    for number in sorted(killed_trials(trials) - repeated):
        log.info("trial %d was killed with its process; its recipe runs again", number)
        kept = {name: value for name, value in trials[number].user_attrs.items() if name in KEPT}
        shared.study.enqueue_trial(point_of(trials[number]), user_attrs={**kept, RETRY_OF: number})


def _owner_is_dead(owner: str | None, *, alone: bool) -> bool:
    if owner is None:  # killed before its first note; under the lock no living process has a trial without one
        return True
    gone = is_gone(owner)
    return alone if gone is None else gone  # of another machine, its heartbeats tell


# User attributes of a trial, beside those of pipelines.search.study.
CURVE = "curve"  # the measure at each report, where Optuna gets none of it: of several objectives, or judged by loss
COSTS = "costs"  # a mapping: parameters, seconds, fill_seconds, tokens (real ones, trained on), memory_mb
