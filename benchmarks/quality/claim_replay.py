"""Searches replayed from the tabulated recipes of the protocol: ``python -m benchmarks.quality.claim_replay``.

It writes, in Markdown, how well figures of validation rows rank recipes as the test rows do, and the test score against
the seconds of a search: of the search, with the best recipes of the other tasks first, of random search, of these
recipes alone, and of the first recipe alone. Nothing is trained; seconds are those that the trials took.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median, stdev
from typing import Any, Literal

import numpy as np
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, create_trial

from benchmarks.quality.claim import CELLS, PROTOCOL
from benchmarks.quality.claim_cells import Asked, ClaimCell, read_cells
from benchmarks.quality.claim_lines import measure_of, scores
from benchmarks.quality.claim_plan import Protocol, Space, points, recipe_name
from benchmarks.sides.arguments import number, parser
from benchmarks.speed.tables import table
from pipelines.errors import PipelineError
from pipelines.files import canonical_json
from pipelines.params.whole import check_params
from pipelines.project.settings import StudySettings
from pipelines.search.proposals import propose
from pipelines.tasks.measures import Floats
from pipelines.yaml_file import read_yaml

Objective = Literal["measure", "loss"]
Strategy = Literal["search", "search, others' best first", "random", "others' best alone"]
STRATEGIES: tuple[Strategy, ...] = ("search", "search, others' best first", "random", "others' best alone")
SHARES = (1 / 12, 1 / 6, 1 / 4, 1 / 3, 1 / 2, 1.0)  # of the seconds that all recipes together take
LEADING = 4  # recipes of other tasks that are tried first
LAYERS = 30  # of the default base


@dataclass(frozen=True)
class Recipe:
    """A tabulated recipe.

    Attributes:
        point: of the space.
        value: of the validation rows, by objective; the higher the better.
        early: the same after half of the steps.
        test: the task's measure on the test rows.
        seconds: of the processor of its training and the asking of the validation rows, without shared constants.
    """

    point: Mapping[str, Any]
    value: Mapping[Objective, float]
    early: Mapping[Objective, float]
    test: float
    seconds: float


@dataclass(frozen=True)
class Table:
    """The recipes of a task by their names, and the seconds of the constants that those of the same places share."""

    task: str
    recipes: Mapping[str, Recipe]
    shared: Mapping[tuple[str, str], float]


def tables(cells: Mapping[str, ClaimCell], protocol: Protocol) -> list[Table]:
    """The tasks of which every recipe of the space is there."""
    made = []
    for task in protocol.plan.tasks:
        own = {cell.line: cell for cell in cells.values() if (cell.task, cell.purpose) == (task, "recipe")}
        if all(recipe_name(point) in own for point in points(protocol.plan.space)):
            made.append(_table(task, own, protocol.plan.space))
    return made


def _table(task: str, cells: Mapping[str, ClaimCell], space: Space) -> Table:
    by_place: dict[tuple[str, str], list[float]] = {}
    for point in points(space):
        by_place.setdefault(_place(point), []).append(_cost(cells[recipe_name(point)]))
    recipes, shared = {}, {}
    for point in points(space):
        costs, cell = by_place[_place(point)], cells[recipe_name(point)]
        # The first recipe of a place computed what the others found, so it is taken to cost as they do.
        usual = median(costs[1:] or costs)
        shared[_place(point)] = max(costs[0] - usual, 0.0)
        seconds = usual if _cost(cell) == costs[0] else _cost(cell)
        test = measure_of(cell).add_up(scores(cell.test)) if cell.test else float("-inf")
        judged, early = (_values(cell, asked) for asked in (cell.validation, cell.early))
        recipes[recipe_name(point)] = Recipe(point, judged, early, test, seconds)
    return Table(task, recipes, shared)


def _cost(cell: ClaimCell) -> float:
    """Of its training, and of asking the validation rows the first time, which computes their constants."""
    return cell.train_cpu + max((asked.cpu for asked in (cell.early, cell.validation) if asked), default=0.0)


def _place(point: Mapping[str, Any]) -> tuple[str, str]:
    return str(point["layers"]), str(point["positions"])


def _values(cell: ClaimCell, asked: Asked | None) -> dict[Objective, float]:
    if asked is None:
        return {"measure": float("-inf"), "loss": float("-inf")}
    return {"measure": measure_of(cell).add_up(scores(asked)), "loss": -asked.loss}


def correlation(one: Sequence[float], other: Sequence[float]) -> float:
    """Spearman's: how alike two figures rank recipes."""
    from scipy import stats

    return float(stats.spearmanr(one, other).statistic)


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


def order(
    found: Table, strategy: Strategy, leading: Sequence[str], settings: StudySettings, objective: Objective
) -> list[str]:
    """The names of the recipes in the order in which a strategy tries them; the seed is that of the settings."""
    names = list(found.recipes)
    if strategy == "random":
        return [names[place] for place in np.random.default_rng(settings.seed).permutation(len(names))]
    if strategy == "others' best alone":
        return list(leading)
    first = list(leading[:LEADING]) if strategy == "search, others' best first" else []
    trials: list[FrozenTrial] = []
    tried: list[str] = []
    for _ in names:
        proposal = propose(
            trials, settings, first=[dict(found.recipes[name].point) for name in first], num_layers=LAYERS,
            allowed=lambda _: True,
        )  # fmt: skip
        if proposal is None:
            break
        point, attributes = proposal
        name = recipe_name(point)
        tried.append(name)
        trials.append(_trial(point, attributes, settings, found.recipes[name].value[objective], len(trials)))
    return tried


def _trial(
    point: Mapping[str, Any], attributes: Mapping[str, object], settings: StudySettings, value: float, place: int
) -> FrozenTrial:
    space = settings.recipes.space
    distributions: dict[str, Any] = {part: CategoricalDistribution(space.domain(part)) for part in space.parts()}
    made = create_trial(
        value=value, params=dict(point), distributions=distributions, user_attrs=dict(attributes),
        system_attrs={"fixed_params": dict(point)},
    )  # fmt: skip
    made.number = place
    return made


def curve(found: Table, tried: Sequence[str], objective: Objective, ends: Sequence[float]) -> list[float | None]:
    """The test score of the recipe that was best when so many seconds were over; None before the first trial ended."""
    best: list[tuple[float, float]] = []  # of each trial's end: seconds, test score of the best so far
    spent, known, leader = 0.0, set(), None
    for name in tried:
        recipe = found.recipes[name]
        place = _place(recipe.point)
        spent += recipe.seconds + (0.0 if place in known else found.shared[place])
        known.add(place)
        if leader is None or recipe.value[objective] > leader.value[objective]:
            leader = recipe
        best.append((spent, leader.test))
    return [next((test for seconds, test in reversed(best) if seconds <= end), None) for end in ends]


def report(
    found: Sequence[Table], settings: Callable[[int], StudySettings], first: Mapping[str, Any], orders: int
) -> str:
    """Both tables in Markdown.

    Args:
        found: of the tasks.
        settings: of a study of the space, by seed.
        first: the recipe that a search tries first; of its learning rate the tabulated one that is nearest.
        orders: seeds of each strategy.
    """
    ranked = [
        [each.task, when, objective, *(f"{value:+.2f}" for value in _correlations(each, when, objective))]
        for each in found
        for when in ("after half of the steps", "at the end")
        for objective in ("measure", "loss")
    ]
    header = ("task", "validation rows", "figure", "rank correlation with the test measure")
    parts = [f"{table(header, ranked)}"]
    for each in found:
        total = sum(recipe.seconds for recipe in each.recipes.values()) + sum(each.shared.values())
        ends = [share * total for share in SHARES]
        lines = [
            [
                f"the first recipe, {(name := nearest(each, first))}",
                *[f"{100 * each.recipes[name].test:.1f}"] * len(ends),
            ]
        ]
        for objective in ("measure", "loss"):
            leading = others_best(each.task, found, objective)
            for strategy in STRATEGIES:
                if leading or strategy in ("search", "random"):
                    runs = [
                        curve(each, order(each, strategy, leading, settings(seed), objective), objective, ends)
                        for seed in range(orders)
                    ]
                    lines.append(
                        [
                            f"{strategy}, by {objective}",
                            *(_mean([run[place] for run in runs]) for place in range(len(ends))),
                        ]
                    )
        parts.append(f"{each.task}\n\n{table(('test score after seconds', *(f'{end:.0f}' for end in ends)), lines)}")
    return "\n".join(parts)


def _correlations(found: Table, when: str, objective: str) -> list[float]:
    recipes = list(found.recipes.values())
    values = [(each.value if when == "at the end" else each.early)[objective] for each in recipes]  # type: ignore[index]
    return [correlation(values, [each.test for each in recipes])]


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


def _mean(values: Sequence[float | None]) -> str:
    there = [100 * value for value in values if value is not None]
    if len(there) < len(values):
        return "–"
    return f"{mean(there):.1f} ({stdev(there):.1f})" if len(there) > 1 else f"{there[0]:.1f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; 2 if no task has all of its recipes."""
    words = parser("benchmarks.quality.claim_replay", __doc__, out=f"folder of the cells (default: {CELLS})")
    words.add_argument("--orders", type=number, default=20, help="seeds of each strategy (default: 20)")
    given = words.parse_args(arguments)
    protocol = Protocol.read(given.root / PROTOCOL)
    try:
        found = tables(read_cells(given.out or given.root / CELLS, protocol.sha256), protocol)
        if not found:
            raise PipelineError("a task must have all of its recipes", got="none", do="Make the cells that are left.")
        raw: Any = read_yaml(given.root / "params.yaml")
        print(report(found, settings_of(raw, protocol.plan.space), raw["search"]["enqueue"][0], given.orders), end="")
    except PipelineError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def settings_of(raw: Mapping[str, Any], space: Space) -> Callable[[int], StudySettings]:
    """Those of a study of the tabulated space, by seed."""

    def of(seed: int) -> StudySettings:
        search = {**raw["search"], "space": space.model_dump(), "enqueue": [], "sampler": "tpe"}
        return StudySettings.of(check_params({**raw, "seed": seed, "search": search}, "params.yaml"))

    return of


if __name__ == "__main__":
    sys.exit(main())
