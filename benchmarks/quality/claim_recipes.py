"""The tabulated recipes of docs/results/protocol.md, and searches that are replayed from them.

A replay is the search as the pipeline runs it: its proposals, its sampler and its pruners, over trials whose figures
and seconds were measured before. Nothing is trained.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, Literal

import numpy as np
import optuna
from optuna.trial import TrialState

from benchmarks.quality.claim_cells import Asked, ClaimCell
from benchmarks.quality.claim_lines import measure_of, scores
from benchmarks.quality.claim_plan import Protocol, Space, points, recipe_name
from pipelines.errors import PipelineError
from pipelines.files import canonical_json
from pipelines.params.pruner import MedianPruner, NoPruner, PrunerParams, WilcoxonPruner
from pipelines.project.settings import StudySettings
from pipelines.search.proposals import propose, suggest
from pipelines.search.pruning import SCORES, make_pruner
from pipelines.search.study import ERROR
from pipelines.tasks.measures import Floats

Objective = Literal["measure", "loss"]
OBJECTIVES: tuple[Objective, ...] = ("measure", "loss")
LEADING = 4  # recipes of other tasks that are tried first
LAYERS = 30  # of the default base


@dataclass(frozen=True)
class Strategy:
    """How recipes are tried one after the other.

    Attributes:
        sampler: tpe, by chance, or none: then what comes first is all.
        first: the params' own first recipe, the best of the other tasks, or nothing.
        pruner: what may stop a trial at its half-way report; without one no such report is made.
    """

    sampler: Literal["tpe", "random"] | None = "tpe"
    first: Literal["first recipe", "others' best"] | None = None
    pruner: PrunerParams = NoPruner(name="none")  # noqa: RUF009  # frozen as all sections are


MEDIAN = MedianPruner(name="median", startup_trials=4, warmup_reports=0)
WILCOXON = WilcoxonPruner(name="wilcoxon", p=0.1, warmup_reports=0)
STRATEGIES: Mapping[str, Strategy] = {
    "search": Strategy(),
    "search, the first recipe first": Strategy(first="first recipe"),
    "search, others' best first": Strategy(first="others' best"),
    "search, pruner median": Strategy(pruner=MEDIAN),
    "search, pruner wilcoxon": Strategy(pruner=WILCOXON),
    "random": Strategy(sampler="random"),
    "others' best alone": Strategy(sampler=None, first="others' best"),
}


@dataclass(frozen=True)
class Recipe:
    """A tabulated recipe.

    Attributes:
        point: of the space.
        value: of the validation rows, by objective; the higher the better.
        early: the same after half of the steps.
        likely: the probability of each validation row's right answer then.
        test: the task's measure on the test rows.
        train: seconds of the processor of its training, without what it computed for others.
        ask: those of asking the validation rows once.
    """

    point: Mapping[str, Any]
    value: Mapping[Objective, float]
    early: Mapping[Objective, float]
    likely: tuple[float, ...]
    test: float
    train: float
    ask: float

    def seconds(self, *, reported: bool, stopped: bool) -> float:
        """What a trial of it takes: with a half-way report, and, stopped there, without what comes after."""
        if stopped:
            return self.train / 2 + self.ask
        return self.train + self.ask * (2 if reported else 1)


@dataclass(frozen=True)
class Table:
    """The recipes of a task by their names, and the seconds of the constants that those of the same places share."""

    task: str
    recipes: Mapping[str, Recipe]
    shared: Mapping[tuple[str, str], float]

    @property
    def seconds(self) -> float:
        """What all recipes take together."""
        each = (recipe.seconds(reported=False, stopped=False) for recipe in self.recipes.values())
        return sum(each) + sum(self.shared.values())


@dataclass(frozen=True)
class Tried:
    """A trial of a replay: its recipe's name, and whether it was stopped half-way."""

    name: str
    stopped: bool = False


def tables(cells: Mapping[str, ClaimCell], protocol: Protocol) -> list[Table]:
    """The tasks of which every recipe of the space is there."""
    return [_table(task, of_task(cells, task), protocol.plan.space) for task in protocol.plan.tasks
            if not missing(cells, protocol, task)]  # fmt: skip


def of_task(cells: Mapping[str, ClaimCell], task: str) -> dict[str, ClaimCell]:
    """The tabulated recipes of a task by their names."""
    return {cell.line: cell for cell in cells.values() if (cell.task, cell.purpose) == (task, "recipe")}


def missing(cells: Mapping[str, ClaimCell], protocol: Protocol, task: str) -> int:
    """How many recipes of a task are not tabulated yet."""
    own = of_task(cells, task)
    return sum(recipe_name(point) not in own for point in points(protocol.plan.space))


def _table(task: str, cells: Mapping[str, ClaimCell], space: Space) -> Table:
    by_place: dict[tuple[str, str], list[ClaimCell]] = {}
    for point in points(space):
        by_place.setdefault(place_of(point), []).append(cells[recipe_name(point)])
    recipes, shared = {}, {}
    for point in points(space):
        own, cell = by_place[place_of(point)], cells[recipe_name(point)]
        # The first recipe of a place computed what the others found, so it is taken to cost as they do.
        train, ask = (median(map(figure, own[1:] or own)) for figure in (_train, _ask))
        shared[place_of(point)] = max(_train(own[0]) + _ask(own[0]) - train - ask, 0.0)
        if cell is not own[0]:
            train, ask = _train(cell), _ask(cell)
        test = measure_of(cell).add_up(scores(cell.test)) if cell.test else float("-inf")
        judged, early = (_values(cell, asked) for asked in (cell.validation, cell.early))
        likely = tuple(math.exp(-each) for each in cell.early.nats) if cell.early else ()
        recipes[recipe_name(point)] = Recipe(point, judged, early, likely, test, train, ask)
    return Table(task, recipes, shared)


def _train(cell: ClaimCell) -> float:
    return cell.train_cpu


def _ask(cell: ClaimCell) -> float:
    """Of asking the validation rows the first time, which computes their constants."""
    return max((asked.cpu for asked in (cell.early, cell.validation) if asked), default=0.0)


def place_of(point: Mapping[str, Any]) -> tuple[str, str]:
    """What recipes with the same constants have in common."""
    return str(point["layers"]), str(point["positions"])


def _values(cell: ClaimCell, asked: Asked | None) -> dict[Objective, float]:
    if asked is None:
        return {"measure": float("-inf"), "loss": float("-inf")}
    return {"measure": measure_of(cell).add_up(scores(asked)), "loss": -asked.loss}


def others_best(task: str, every: Sequence[Table], objective: Objective) -> list[str]:
    """All recipes, by their mean rank on the other tasks' validation rows, the best first; none without other tasks."""
    others = [each for each in every if each.task != task]
    if not others:
        return []
    from scipy import stats

    names = list(others[0].recipes)
    ranks: Floats = np.mean(
        [stats.rankdata([-each.recipes[name].value[objective] for name in names]) for each in others], axis=0
    )
    return [names[place] for place in np.argsort(ranks, kind="stable")]


def nearest(found: Table, first: Mapping[str, Any]) -> str:
    """The name of the tabulated recipe with the same parts and the nearest learning rate, by ratio."""
    same = [
        name for name, recipe in found.recipes.items()
        if all(recipe.point[part] == first[part] for part in recipe.point if part != "learning_rate")
    ]  # fmt: skip
    if not same:
        raise PipelineError("the first recipe's parts must be in the table", got=canonical_json(dict(first)))
    rate = np.log(first["learning_rate"])
    return min(same, key=lambda name: abs(np.log(found.recipes[name].point["learning_rate"]) - rate))


@dataclass(frozen=True)
class Replay:
    """What replays of a task are made of.

    Attributes:
        found: its table.
        leading: the recipes that are best on the other tasks, by objective; none without other tasks.
        first: the name of the tabulated recipe that is nearest to the params' first.
        settings: of a study of the tabulated space.
    """

    found: Table
    leading: Mapping[Objective, Sequence[str]]
    first: str
    settings: StudySettings

    def can(self, strategy: Strategy) -> bool:
        """Whether there is what the strategy needs."""
        return strategy.first != "others' best" or bool(self.leading["measure"])

    def order(self, strategy: Strategy, objective: Objective, seed: int, *, within: float) -> list[Tried]:
        """The trials of a strategy until they took so many seconds, or every recipe was tried."""
        if strategy.sampler is None:
            return [Tried(name) for name in self.leading[objective]]
        if strategy.sampler == "random":
            names = list(self.found.recipes)
            return [Tried(names[place]) for place in np.random.default_rng(seed).permutation(len(names))]
        named = {"first recipe": [self.first], "others' best": self.leading[objective][:LEADING], None: []}
        tried: list[Tried] = []
        for one in self._searched(strategy, objective, seed, named[strategy.first]):
            tried.append(one)
            if spent(self.found, tried, strategy)[-1] >= within:
                break
        return tried

    def _searched(self, strategy: Strategy, objective: Objective, seed: int, named: Sequence[str]) -> Iterator[Tried]:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        reports = 1 if strategy.pruner.name == "none" else 2
        search = self.settings.search.model_copy(update={"pruner": strategy.pruner, "reports": reports})
        settings = replace(self.settings, search=search, seed=seed)
        study = optuna.create_study(direction="maximize", pruner=make_pruner(search))
        first = [dict(self.found.recipes[name].point) for name in named]
        while True:
            trials = study.get_trials(deepcopy=False)
            proposal = propose(trials, settings, first=first, num_layers=LAYERS, allowed=lambda _: True)
            if proposal is None:
                return
            study.enqueue_trial(proposal[0], user_attrs=proposal[1])
            trial = study.ask()
            recipe = self.found.recipes[recipe_name(suggest(trial, settings.recipes.space))]
            stopped = reports > 1 and self._stopped(trial, recipe, objective)
            # Of a recipe that failed there is no figure.
            state = TrialState.PRUNED if stopped else TrialState.COMPLETE
            value = recipe.value[objective]
            if not stopped and not math.isfinite(value):
                state = TrialState.FAIL
                trial.set_user_attr(ERROR, "its training failed")  # without one it counts as killed, and is tried again
            study.tell(trial, value if state is TrialState.COMPLETE else None, state=state)
            yield Tried(recipe_name(recipe.point), stopped)

    @staticmethod
    def _stopped(trial: optuna.Trial, recipe: Recipe, objective: Objective) -> bool:
        if not recipe.likely:
            return False
        trial.report(recipe.early[objective], 1)
        trial.set_user_attr(f"{SCORES}:1", list(recipe.likely))
        return trial.should_prune()


def spent(found: Table, tried: Sequence[Tried], strategy: Strategy) -> list[float]:
    """Seconds at the end of each trial."""
    total, known, ends = 0.0, set(), []
    for one in tried:
        recipe = found.recipes[one.name]
        place = place_of(recipe.point)
        total += recipe.seconds(reported=strategy.pruner.name != "none", stopped=one.stopped)
        total += 0.0 if place in known else found.shared[place]
        known.add(place)
        ends.append(total)
    return ends


def curve(
    found: Table, tried: Sequence[Tried], strategy: Strategy, objective: Objective, at: Sequence[float]
) -> list[float | None]:
    """The test score of the recipe that was best when so many seconds were over; None before the first trial ended."""
    best: list[tuple[float, float]] = []  # of each trial's end: seconds, test score of the best so far
    leader: Recipe | None = None
    for one, seconds in zip(tried, spent(found, tried, strategy), strict=True):
        recipe = found.recipes[one.name]
        if not one.stopped and (leader is None or recipe.value[objective] > leader.value[objective]):
            leader = recipe
        if leader is not None:
            best.append((seconds, leader.test))
    return [next((test for seconds, test in reversed(best) if seconds <= end), None) for end in at]
