"""What a process does next in a study that others may work on too: begin a trial, wait for theirs, or end.

It looks under the study's lock, and begins a trial before it lets go, so all together begin no trial too many.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from pipelines.contracts.trials import TrialRecord
from pipelines.params.search import SearchParams
from pipelines.project.settings import StudySettings
from pipelines.recipes.methods.table import plain_parts
from pipelines.search.choice import Confirmed, confirmed
from pipelines.search.goal import goal
from pipelines.search.proposals import Point, propose
from pipelines.search.pruning import within_limits
from pipelines.search.study import CANDIDATE, COSTS, ENDED, RECIPE, SEED, SharedStudy, counted, in_state, killed_trials
from pipelines.search.warm_start import first_points

log = logging.getLogger(__name__)


class Step(Enum):
    """What to do next."""

    BEGIN = auto()  # a trial waits in the study's queue
    WAIT = auto()  # another process has one, which is to be repeated if that process is killed
    DONE = auto()


@dataclass(frozen=True)
class ProposalContext:
    """What proposals depend on beside the study's settings: the base, and which points a trial may be begun with."""

    base_sha256: str
    num_layers: int
    allowed: Callable[[Point], bool]


def next_trial(shared: SharedStudy, settings: StudySettings, context: ProposalContext) -> Step:
    """See to it that a trial waits in the queue, if one is to begin; under the study's lock."""
    trials = shared.trials()
    ended, running = counted(trials), in_state(trials, TrialState.RUNNING)
    if len(ended) + len(running) < settings.search.trials:
        if in_state(trials, TrialState.WAITING):
            return Step.BEGIN
        first = first_points(shared, settings, base_sha256=context.base_sha256)
        if not is_over(trials, settings.search):
            found = propose(trials, settings, first=first, num_layers=context.num_layers, allowed=context.allowed)
            if found is not None:
                point, attributes = found
                _enqueue(shared, settings, point, {SEED: settings.seed, **attributes})
                return Step.BEGIN
            if not running:
                log.warning(
                    "the search ends after %d of %d trials: no other recipe of search.space was found%s",
                    len(ended), settings.search.trials,
                    "" if settings.search.limits.parameters is None else " within search.limits.parameters",
                )  # fmt: skip
    return Step.WAIT if running else Step.DONE


def is_over(trials: Sequence[FrozenTrial], settings: SearchParams) -> bool:
    """Whether the budget of seconds is spent, or no trial was better for as many as search.patience.

    Args:
        trials: all of the study. Those that were stopped or killed took their time too, though they do not count as
            ended.
        settings: with the budget.
    """
    if settings.seconds is not None and sum(map(seconds_of, in_state(trials, *ENDED))) >= settings.seconds:
        return True
    return settings.patience is not None and _since_better(counted(trials)) >= settings.patience


def seconds_of(trial: FrozenTrial) -> float:
    """What a trial took, and computed for others; of one that was killed with its process, to its last report."""
    costs = trial.user_attrs.get(COSTS, {})
    return float(costs.get("seconds", 0.0)) + float(costs.get("fill_seconds", 0.0))


def _since_better(ended: Sequence[FrozenTrial]) -> int:
    """How many trials ended since one that was better than all before it; of several objectives, in the first."""
    best, since = float("-inf"), 0
    for trial in sorted(ended, key=lambda trial: (trial.datetime_complete, trial.number)):
        able = trial.state is TrialState.COMPLETE and within_limits(trial)
        if able and goal(trial) > best:
            best, since = goal(trial), 0
        else:
            since += 1
    return since


def next_confirmation(shared: SharedStudy, settings: StudySettings, candidates: Sequence[TrialRecord]) -> Step:
    """The same for the runs of the best recipes with other seeds."""
    trials = shared.trials()
    if in_state(trials, TrialState.WAITING):
        return Step.BEGIN
    killed = killed_trials(trials)
    there = {_run(trial) for trial in trials if trial.number not in killed}
    for candidate in candidates:
        for seed in other_seeds(settings):
            if (candidate.number, seed) not in there:
                _enqueue(shared, settings, candidate.params, {CANDIDATE: candidate.number, SEED: seed})
                return Step.BEGIN
    return Step.WAIT if in_state(trials, TrialState.RUNNING) else Step.DONE


def other_seeds(settings: StudySettings) -> list[int]:
    """The seeds of the runs that confirm a recipe."""
    confirm = settings.search.confirm
    return [] if confirm is None else [settings.seed + place for place in range(1, confirm.seeds + 1)]


def confirmations(shared: SharedStudy, settings: StudySettings, candidates: Sequence[TrialRecord]) -> list[Confirmed]:
    """The candidates with all their runs."""
    runs = {_run(trial): trial for trial in counted(shared.trials())}
    found = []
    for record in candidates:
        others = {seed: runs.get((record.number, seed)) for seed in other_seeds(settings)}
        values = {seed: _value(trial) for seed, trial in others.items()}
        seconds = sum(seconds_of(trial) for trial in others.values() if trial is not None)
        found.append(confirmed(record.number, {settings.seed: record.value} | values, seconds=seconds))
    return found


def _run(trial: FrozenTrial) -> tuple[int, int]:
    return trial.user_attrs[CANDIDATE], trial.user_attrs[SEED]


def _value(trial: FrozenTrial | None) -> float | None:
    return trial.values[0] if trial is not None and trial.state is TrialState.COMPLETE else None


def _enqueue(
    shared: SharedStudy, settings: StudySettings, point: Mapping[str, Any], attributes: Mapping[str, object]
) -> None:
    recipe = plain_parts(settings.recipes.recipe(point, trial=True))
    shared.study.enqueue_trial(dict(point), user_attrs={RECIPE: recipe, **attributes})
