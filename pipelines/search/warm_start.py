"""What a study tries first: the recipes that params.yaml names, then the best ones of earlier studies."""

from __future__ import annotations

import math
from statistics import mean
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from pipelines.project.settings import StudySettings
from pipelines.recipes.methods.table import REFT
from pipelines.search.goal import goal
from pipelines.search.study import CANDIDATE, CONFIRM, COSTS, RECIPE, SharedStudy, counted

BASE = "base_sha256"  # user attribute of a study: the base that its trials edit
_NOT_CONFIRMED, _FAILED = -1.0, -2.0  # in the order of values
FIRST = "first"  # user attribute of a study: the points that it tries first


def first_points(shared: SharedStudy, settings: StudySettings, *, base_sha256: str) -> list[dict[str, Any]]:
    """The points to try first. They are settled when the study is new, under its lock, and kept in it."""
    attributes = shared.study.user_attrs
    if FIRST not in attributes:
        named = [{str(part): value for part, value in point.items()} for point in settings.recipes.first]
        points = [*named, *_earlier(shared, settings, base_sha256)]
        shared.study.set_user_attr(BASE, base_sha256)
        shared.study.set_user_attr(FIRST, points)
        return points
    return list(attributes[FIRST])


def _earlier(shared: SharedStudy, settings: StudySettings, base_sha256: str) -> list[dict[str, Any]]:
    """The best recipes of earlier studies on the base, one of each, the latest study's first, as points of the space.

    A recipe that was run again, to confirm it, goes before those that were not, and counts by the mean of these runs.
    None is over the present limits, by what its trial cost, and none is there twice.
    """
    if settings.search.earlier == 0:
        return []
    summaries = optuna.get_all_study_summaries(shared.storage, include_best_trial=False)
    earlier = [
        summary
        for summary in summaries
        if summary.study_name != shared.name
        and summary.user_attrs.get(BASE) == base_sha256  # no study of confirmations has one
        and summary.datetime_start is not None
    ]
    names = {summary.study_name for summary in summaries}
    points: list[dict[str, Any]] = []
    for summary in sorted(earlier, key=lambda one: one.datetime_start, reverse=True):
        study = optuna.load_study(study_name=summary.study_name, storage=shared.storage)
        complete = [
            one for one in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) if _able(settings, one)
        ]
        if complete:
            confirming = f"{summary.study_name}{CONFIRM}"
            means = _confirmed(shared.storage, confirming) if confirming in names else {}
            best = max(complete, key=lambda one: (means.get(one.number, _NOT_CONFIRMED), *_as_chosen(one)))
            recipe = best.user_attrs[RECIPE]
            if recipe.get("name", REFT) == settings.recipes.method:
                points.append(_in_space(settings, recipe))
    inside = [point for place, point in enumerate(points) if point not in points[:place]]
    return [point for point in inside if not settings.recipes.space.problems(point)][: settings.search.earlier]


def _confirmed(storage: optuna.storages.RDBStorage, name: str) -> dict[int, float]:
    """The mean value of the runs of each recipe that a study confirmed, by the number of its trial.

    Of recipes with fewer runs than others nothing is said. One of which a run failed does not stand another seed, and
    comes after all that were not run again.
    """
    runs: dict[int, list[float]] = {}
    for run in counted(optuna.load_study(study_name=name, storage=storage).get_trials(deepcopy=False)):
        value = run.values[0] if run.state is TrialState.COMPLETE else math.nan
        runs.setdefault(run.user_attrs[CANDIDATE], []).append(value)
    most = max(map(len, runs.values()), default=0)
    means = {trial: mean(own) for trial, own in runs.items() if len(own) == most or math.isnan(sum(own))}
    return {trial: _FAILED if math.isnan(value) else value for trial, value in means.items()}


def _as_chosen(trial: FrozenTrial) -> tuple[float, int, int]:
    """What trials of one study are ordered by: of equal values the fewest parameters, as the study chose by itself."""
    return goal(trial), -(trial.user_attrs[COSTS]["parameters"] or 0), -trial.number


def _able(settings: StudySettings, trial: FrozenTrial) -> bool:
    costs = trial.user_attrs[COSTS]
    return all(costs[cost] <= bound for cost, bound in settings.search.limits.bounds().items())


def _in_space(settings: StudySettings, recipe: dict[str, Any]) -> dict[str, Any]:
    """What of a recipe the present space chooses; the rest is as train fixes it."""
    space = settings.recipes.space
    point: dict[str, Any] = {}
    for part in space.parts():
        if space.chosen(part, point):
            point[part] = recipe[part]
    return point
