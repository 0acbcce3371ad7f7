"""Which recipe is tried next: those that params.yaml names first, then what the sampler chooses, none of them twice.

A recipe is chosen before its trial begins: the samplers of Optuna choose in a copy of the study in memory, so that the
study itself holds whole recipes alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from itertools import islice
from typing import Any, cast

import numpy as np
import optuna
from optuna.distributions import IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState

from pipelines.files import canonical_json
from pipelines.params.search import COUNTABLE
from pipelines.project.settings import StudySettings
from pipelines.recipes.domains import Span, Steps
from pipelines.recipes.methods.table import Part
from pipelines.recipes.space import SpaceParams
from pipelines.search.goal import LOSSES, goal
from pipelines.search.origin import startup_trials
from pipelines.search.study import ENQUEUED, killed_trials, point_of, study_directions

ATTEMPTS = 20  # of a sampler to choose something new, before chance does
GP_ATTEMPTS = 3  # each fits a Gaussian process
CHANCES = 10_000  # where few points are within search.limits.parameters

Point = dict[str, Any]


def propose(
    trials: Sequence[FrozenTrial],
    settings: StudySettings,
    *,
    first: list[Point],
    num_layers: int,
    allowed: Callable[[Point], bool],
) -> tuple[Point, dict[str, object]] | None:
    """The next recipe, as a point of the space, and the attributes of its trial; under the study's lock.

    Args:
        trials: all of the study.
        settings: of the study.
        first: the points that are tried before the sampler chooses, in this order.
        num_layers: of the base: two recipes that do the same to it are one.
        allowed: whether a trial of the point could be chosen at all.

    Returns:
        None when there is no other recipe, or none was found.
    """
    killed = killed_trials(trials)
    lasting = [trial for trial in trials if trial.number not in killed]
    seen = {_effect(settings, point_of(trial), num_layers) for trial in lasting}

    def fresh(point: Point) -> bool:
        return _effect(settings, point, num_layers) not in seen and allowed(point)

    places = {trial.user_attrs.get(ENQUEUED) for trial in lasting}
    for place, point in enumerate(first):
        if place not in places and fresh(point):
            return point, {ENQUEUED: place}
    # Each proposal has a seed of its own, by how many went before: a killed search proposes what it would have.
    rng = _generator(settings, offset := len(lasting))
    candidates = _candidates(trials, settings, offset)
    sampler, space = settings.search.sampler, settings.recipes.space
    attempts = {"grid": None, "gp": GP_ATTEMPTS}.get(sampler, ATTEMPTS)
    chance = (random_point(space, rng) for _ in range(CHANCES))
    for choice in (islice(candidates, attempts), chance, _shuffled(space, rng)):
        for point in choice:
            if fresh(point):
                return point, {}
    return None


def _effect(settings: StudySettings, point: Mapping[str, Any], num_layers: int) -> str:
    return canonical_json(settings.recipes.recipe(point, trial=True).effect(num_layers))


def _generator(settings: StudySettings, *offset: int) -> np.random.Generator:
    return np.random.default_rng([settings.seed, *offset])


def _candidates(trials: Sequence[FrozenTrial], settings: StudySettings, offset: int) -> Iterator[Point]:
    space, rng = settings.recipes.space, _generator(settings, offset, 1)
    match settings.search.sampler:
        case "grid":
            return _shuffled(space, _generator(settings))  # the same order every time
        case "random":
            return iter(lambda: random_point(space, rng), None)
        case "qmc":
            return _sobol_points(space, seed=settings.seed, offset=offset)
        case _:
            return _sampled(trials, settings, offset)


def _sampled(trials: Sequence[FrozenTrial], settings: StudySettings, offset: int) -> Iterator[Point]:
    """What the sampler of Optuna chooses from the trials so far; again, while nobody takes it."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    directions = study_directions(settings.search)
    study = optuna.create_study(directions=directions, sampler=make_sampler(settings, offset=offset))
    space = settings.recipes.space
    study.add_trials([_placed(trial, space) for trial in trials if trial.state is not TrialState.WAITING])
    while True:
        yield suggest(study.ask(), space, ordered=True)


def _placed(trial: FrozenTrial, space: SpaceParams) -> FrozenTrial:
    """The trial with each value of an ordered list told by its place there: that a rank of 6 lies between 4 and 8 is
    what a sampler learns from, and of a choice among unordered values it knows nothing. The study has values."""
    lists = {part: found for part in trial.params if (found := _in_order(space.domain(cast(Part, part)))) is not None}
    placed = copy(trial)
    placed.params = {part: lists[part].index(value) if part in lists else value for part, value in trial.params.items()}
    if LOSSES in trial.user_attrs and trial.state is TrialState.COMPLETE:
        placed.values = [goal(trial)]  # the study shows the measure
    placed.distributions = trial.distributions | {
        part: IntDistribution(0, len(values) - 1) for part, values in lists.items()
    }
    return placed


def _in_order(domain: list[Any] | Span | Steps) -> list[Any] | None:
    """The values of a list of numbers, the lowest first; None of what is none."""
    if not isinstance(domain, list) or any(
        isinstance(each, bool) or not isinstance(each, int | float) for each in domain
    ):
        return None
    return sorted(domain)


def make_sampler(settings: StudySettings, *, offset: int) -> optuna.samplers.BaseSampler:
    """The sampler for the next trial; ``offset`` trials went before it."""
    # Neighbouring seeds draw alike in Optuna's samplers, so they are spread first.
    seed = int(np.random.SeedSequence([settings.seed, offset]).generate_state(1)[0])
    startup = startup_trials(len(settings.recipes.first))
    if settings.search.sampler == "gp":
        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=startup)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        conditional = settings.recipes.space.conditional()
        return optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=startup, multivariate=True, group=conditional,
            constant_liar=True,  # a trial that runs in another process counts as a bad one: not the same place twice
        )  # fmt: skip


def suggest(trial: optuna.Trial, space: SpaceParams, *, ordered: bool = False) -> Point:
    """Let a trial of Optuna choose a point, or say which one it was enqueued with.

    Args:
        trial: that chooses.
        space: of the points.
        ordered: whether the trial knows the values of lists of numbers by their places, as :func:`_placed` has them.
    """
    point: Point = {}
    for part in space.parts():
        if not space.chosen(part, point):
            continue
        match space.domain(part):
            case Span(low=low, high=high, log=log) as span:
                choose = trial.suggest_int if span.whole else trial.suggest_float
                point[part] = choose(part, low, high, log=log)
            case Steps(low=low, high=high, step=step) as steps:
                choose = trial.suggest_int if steps.whole else trial.suggest_float
                point[part] = steps.nearest(choose(part, low, high, step=step))
            case choices:
                values = _in_order(choices) if ordered else None
                point[part] = (
                    trial.suggest_categorical(part, choices)
                    if values is None
                    else values[trial.suggest_int(part, 0, len(values) - 1)]
                )
    return point


def random_point(space: SpaceParams, rng: np.random.Generator) -> Point:
    """A point by chance alone."""
    return _point_at(space, rng.random(len(space.parts())))


def _sobol_points(space: SpaceParams, *, seed: int, offset: int) -> Iterator[Point]:
    """Points of a scrambled Sobol sequence (Owen 1998) from its place ``offset``: they fill the space evenly."""
    from scipy.stats import qmc  # takes a second to import, and the other samplers do without

    engine = qmc.Sobol(max(1, len(space.parts())), scramble=True, rng=seed)
    if offset:
        engine.fast_forward(offset)
    while True:
        yield _point_at(space, engine.random(1)[0])


def _point_at(space: SpaceParams, place: np.ndarray[Any, np.dtype[np.float64]]) -> Point:
    """The point at a place in the unit cube, one coordinate in [0, 1) for each part."""
    point: Point = {}
    for part, share in zip(space.parts(), map(float, place), strict=False):
        if not space.chosen(part, point):
            continue
        domain = space.domain(part)
        point[part] = domain[int(share * len(domain))] if isinstance(domain, list) else domain.at(share)
    return point


def _shuffled(space: SpaceParams, rng: np.random.Generator) -> Iterator[Point]:
    """Every point once, where they can be counted; else none."""
    if space.size() <= COUNTABLE:
        points = list(space.points())
        yield from (points[place] for place in rng.permutation(len(points)))
