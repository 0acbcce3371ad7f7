"""What a search is worth, from the protocol's tabulated recipes: ``python -m benchmarks.quality.claim_replay``.

It writes docs/results/search.md and its picture from the cells alone: how well figures of validation rows rank recipes
as the test rows do, the test score against the seconds of a search, and what follows by the protocol's rule. Nothing is
trained. The orders in which recipes were tried take minutes and are kept in orders.json; --kept draws page and picture
from these.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks.quality.claim import CELLS, PROTOCOL
from benchmarks.quality.claim_cells import ClaimCell, read_cells
from benchmarks.quality.claim_plan import Protocol, Space, points
from benchmarks.quality.claim_recipes import (
    OBJECTIVES,
    STRATEGIES,
    Objective,
    Replay,
    Table,
    Tried,
    curve,
    missing,
    nearest,
    others_best,
    tables,
)
from benchmarks.quality.claim_search_page import Curve, Page, Ranked, page, search_picture
from benchmarks.sides.arguments import number, parser
from pipelines.errors import PipelineError
from pipelines.files import read_json, write_json, write_text
from pipelines.params.whole import check_params
from pipelines.project.settings import StudySettings
from pipelines.yaml_file import read_yaml

SHARES = (1 / 12, 1 / 6, 1 / 4, 1 / 3, 1 / 2)  # of the seconds that all recipes together take
WITHIN = SHARES[-1]  # of them replays end
FINE = 240  # points of a curve, up to all of the seconds
Orders = dict[str, dict[str, dict[str, list[str]]]]
"""Of each task, strategy and objective the trials of each seed: the places of recipes, in brackets where stopped."""


@dataclass(frozen=True)
class Results:
    """The folder docs/results, the cells in it, and the params that a search is replayed with."""

    folder: Path
    cells: Mapping[str, ClaimCell]
    protocol: Protocol
    raw: Mapping[str, Any]

    def replays(self, tasks: Sequence[str] | None = None) -> list[Replay]:
        """Of each task whose recipes are all there; of these tasks alone, if they are given."""
        found = [each for each in tables(self.cells, self.protocol) if tasks is None or each.task in tasks]
        first, settings = self.raw["search"]["enqueue"][0], settings_of(self.raw, self.protocol.plan.space)(0)
        return [
            Replay(
                each, {objective: others_best(each.task, found, objective) for objective in OBJECTIVES},
                nearest(each, first), settings,
            )
            for each in found
        ]  # fmt: skip

    def left(self, tasks: Sequence[str]) -> dict[str, int]:
        """How many recipes there are still to measure, of each task that the plan tabulates and that is not there."""
        planned = [block.task for block in self.protocol.plan.order if block.lines == "recipes"]
        return {task: missing(self.cells, self.protocol, task) for task in planned if task not in tasks}


def settings_of(raw: Mapping[str, Any], space: Space) -> Callable[[int], StudySettings]:
    """Those of a study of the tabulated space, by seed."""

    def of(seed: int) -> StudySettings:
        search = {**raw["search"], "space": space.model_dump(), "enqueue": [], "sampler": "tpe"}
        return StudySettings.of(check_params({**raw, "seed": seed, "search": search}, "params.yaml"))

    return of


def seeds_of(strategy: str, orders: int) -> range:
    """The seeds that a strategy is replayed with: what leaves nothing to chance is replayed once."""
    return range(1 if STRATEGIES[strategy].sampler is None else orders)


def replayed(replays: Sequence[Replay], orders: int) -> Iterator[tuple[str, str, Objective, list[str]]]:
    """The orders of each task, strategy and objective, as they are written down."""
    for replay in replays:
        for name, strategy in STRATEGIES.items():
            for objective in OBJECTIVES if replay.can(strategy) else ():
                runs = [
                    replay.order(strategy, objective, seed, within=WITHIN * replay.found.seconds)
                    for seed in seeds_of(name, orders)
                ]
                yield replay.found.task, name, objective, [written(replay.found, tried) for tried in runs]


def written(found: Table, tried: Sequence[Tried]) -> str:
    """The trials as orders.json has them."""
    places = {name: place for place, name in enumerate(found.recipes)}
    return " ".join(f"({places[one.name]})" if one.stopped else str(places[one.name]) for one in tried)


def read_order(found: Table, text: str) -> list[Tried]:
    """The trials that are written down so."""
    names = list(found.recipes)
    return [Tried(names[int(word.strip("()"))], word.startswith("(")) for word in text.split()]


def curves(replay: Replay, orders: Mapping[str, Mapping[str, Sequence[str]]]) -> list[Curve]:
    """The test scores of each strategy and objective against the seconds of search."""
    found, total = replay.found, replay.found.seconds
    ends, fine = [share * total for share in SHARES], [place * total / FINE for place in range(1, FINE + 1)]
    first = found.recipes[replay.first].test
    made = [Curve(f"the first recipe ({replay.first})", None, [(first, 0.0)] * len(ends), [first] * FINE, fine)]
    for name, strategy in STRATEGIES.items():
        for objective in OBJECTIVES if name in orders else ():
            runs = [read_order(found, text) for text in orders[name][objective]]
            at = [curve(found, tried, strategy, objective, [*ends, *fine]) for tried in runs]
            means = [_mean([run[place] for run in at]) for place in range(len(ends) + FINE)]
            whole = [None if each is None else each[0] for each in means[len(ends) :]]
            if strategy.sampler is not None and name != "random":  # it was replayed so far
                whole = [value for value, end in zip(whole, fine, strict=True) if end <= WITHIN * total]
            made.append(Curve(name, objective, means[: len(ends)], whole, fine))
    return made


def _mean(values: Sequence[float | None]) -> tuple[float, float] | None:
    """Mean and spread; None before each run has something."""
    there = [value for value in values if value is not None]
    if len(there) < len(values):
        return None
    return mean(there), stdev(there) if len(there) > 1 else 0.0


def ranked(replay: Replay) -> list[Ranked]:
    """How alike a figure of the validation rows and the test measure rank the recipes: Spearman's correlation."""
    from scipy import stats

    recipes, found = list(replay.found.recipes.values()), []
    tests = [each.test for each in recipes]
    for when in ("after half of the steps", "at the end"):
        for objective in OBJECTIVES:
            values = [(each.value if when == "at the end" else each.early)[objective] for each in recipes]
            found.append(Ranked(replay.found.task, when, objective, float(stats.spearmanr(values, tests).statistic)))
    return found


def made(results: Results, kept: Mapping[str, Any]) -> Page:
    """The page of the orders that were kept."""
    replays = results.replays(list(kept["orders"]))
    orders = kept["orders"]
    return Page(
        ranked=[each for replay in replays for each in ranked(replay)],
        curves={replay.found.task: curves(replay, orders[replay.found.task]) for replay in replays},
        seconds={replay.found.task: replay.found.seconds for replay in replays},
        shares=SHARES,
        recipes=len(points(results.protocol.plan.space)),
        orders=kept["seeds"],
        left=kept["left"],
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Write page and picture; 2 if no task has all of its recipes."""
    words = parser("benchmarks.quality.claim_replay", __doc__, out=f"folder of the cells (default: {CELLS})")
    words.add_argument("--orders", type=number, default=20, help="seeds of each strategy (default: 20)")
    words.add_argument("--kept", action="store_true", help="replay nothing: draw from orders.json")
    given = words.parse_args(arguments)
    cells = given.out or given.root / CELLS
    try:
        protocol = Protocol.read(given.root / PROTOCOL)
        raw: Any = read_yaml(given.root / "params.yaml")
        results = Results(cells.parent, read_cells(cells, protocol.sha256), protocol, raw)
        if not given.kept:
            _replay(results, given.orders)
        write_page(results)
    except PipelineError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _replay(results: Results, orders: int) -> None:
    replays = results.replays()
    if not replays:
        raise PipelineError("a task must have all of its recipes", got="none", do="Make the cells that are left.")
    found: Orders = {}
    for task, strategy, objective, runs in replayed(replays, orders):
        found.setdefault(task, {}).setdefault(strategy, {})[objective] = runs
        print(f"{task}, {strategy}, by {objective}", file=sys.stderr, flush=True)
    write_json(results.folder / "orders.json", {"seeds": orders, "left": results.left(list(found)), "orders": found})


def write_page(results: Results) -> None:
    """Write search.md and search.svg from orders.json and the cells."""
    found = made(results, read_json(results.folder / "orders.json"))
    write_text(results.folder / "search.svg", search_picture(found))
    write_text(results.folder / "search.md", page(found))


if __name__ == "__main__":
    sys.exit(main())
