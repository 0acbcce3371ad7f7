"""Searches replayed from tables of recipes, planted and committed: what is chosen when, what it cost, what follows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from benchmarks.quality.claim import CELLS, PROTOCOL
from benchmarks.quality.claim_cells import Asked, ClaimCell, read_cells
from benchmarks.quality.claim_plan import Protocol, points, recipe_name
from benchmarks.quality.claim_recipes import (
    LEADING,
    OBJECTIVES,
    STRATEGIES,
    Objective,
    Replay,
    Strategy,
    Table,
    Tried,
    curve,
    nearest,
    others_best,
    spent,
    tables,
)
from benchmarks.quality.claim_replay import Results, made, main, ranked, read_order, settings_of, written
from benchmarks.quality.claim_search_page import Page, page, search_picture, sentence
from pipelines.errors import PipelineError
from pipelines.files import read_json
from pipelines.recipes.published import WON_RECIPES
from tests.project import ROOT
from tests.searching import RAW

ROWS = 20


def planted(task: str, point: dict[str, object], right: int, *, loss: float, cpu: float) -> ClaimCell:
    """A tabulated recipe that judges so many rows right."""
    asked = Asked(tuple(float(place < right) for place in range(ROWS)), (loss,) * ROWS, 1.0, 1.0)
    return ClaimCell(
        task, recipe_name(point), "recipe", 0, "a base", "accuracy", 42, 0.001, 200, 2, asked, asked, asked,
        tuple(range(ROWS)), {}, (), 7, 100, cpu, cpu, None, "rows", "code", "page",
    )  # fmt: skip


@pytest.fixture(scope="module")
def protocol() -> Protocol:
    return Protocol.read(ROOT / PROTOCOL)


@pytest.fixture(scope="module")
def found(protocol: Protocol) -> list[Table]:
    """Two tasks: the later a recipe stands in the space the better; the loss says the opposite on the second."""
    cells: dict[str, ClaimCell] = {}
    for task, sign in (("trec", -1), ("cola", 1)):
        for place, point in enumerate(points(protocol.plan.space)):
            first = place % 6 == 0  # of those with its layers and positions, which computes what the others find
            cell = planted(task, point, place // 2, loss=2 + sign * place / 100, cpu=50.0 if first else 9.0)
            cells[cell.name] = cell
    return tables(cells, protocol)


PLAIN = STRATEGIES["search"]


def replay_of(found: list[Table], place: int, protocol: Protocol) -> Replay:
    table = found[place]
    leading = {objective: others_best(table.task, found, objective) for objective in OBJECTIVES}
    first = nearest(table, RAW["search"]["enqueue"][0])
    return Replay(table, leading, first, settings_of(RAW, protocol.plan.space)(0))


def scores(table: Table, names: list[str], objective: Objective, at: list[float]) -> list[float | None]:
    return curve(table, [Tried(name) for name in names], PLAIN, objective, at)


def test_only_whole_tables_are_replayed_and_shared_constants_are_counted_once(
    protocol: Protocol, found: list[Table]
) -> None:
    assert [each.task for each in found] == ["trec", "cola"]
    table = found[0]
    assert {(recipe.train, recipe.ask) for recipe in table.recipes.values()} == {(9.0, 1.0)}
    assert set(table.shared.values()) == {41.0}
    assert len(table.shared) == len(protocol.plan.space.layers) * len(protocol.plan.space.positions)
    assert table.seconds == 36 * 10 + 6 * 41
    names = list(table.recipes)
    assert scores(table, names, "measure", [0.0, 51.0, 61.0, 70.9, 71.0]) == [None, 0.0, 0.0, 0.0, 0.05]
    assert tables({}, protocol) == []


def test_the_best_by_the_objective_is_what_is_asked_the_test_rows(found: list[Table]) -> None:
    names = list(found[1].recipes)
    assert scores(found[1], names, "measure", [1e9]) == [17 / 20]
    assert scores(found[1], names, "loss", [1e9]) == [0.0]


def test_figures_rank_recipes_as_the_test_rows_do_or_the_other_way_round(
    protocol: Protocol, found: list[Table]
) -> None:
    for place, sign in enumerate((1, -1)):
        end = {
            each.objective: each.value
            for each in ranked(replay_of(found, place, protocol))
            if each.when == "at the end"
        }
        assert end["measure"] == pytest.approx(1.0)
        assert end["loss"] == pytest.approx(sign, abs=0.01)


def test_recipes_of_other_tasks_are_led_by_the_best_there_alone(found: list[Table]) -> None:
    names = list(found[0].recipes)
    assert set(others_best("trec", found, "measure")[:2]) == set(names[-2:])
    assert others_best("trec", found, "loss")[0] == names[0], "by the loss of the other task, not its own"
    assert others_best("trec", found[:1], "measure") == []


@pytest.mark.parametrize("name", STRATEGIES)
def test_each_strategy_tries_every_recipe_once_and_begins_with_what_it_is_to(
    name: str, protocol: Protocol, found: list[Table]
) -> None:
    replay, strategy = replay_of(found, 0, protocol), STRATEGIES[name]
    tried = replay.order(strategy, "measure", 1, within=200.0 if strategy.sampler == "tpe" else 1e9)
    names = [one.name for one in tried]
    assert len(set(names)) == len(names) >= LEADING
    if strategy.sampler == "tpe":
        ends = spent(found[0], tried, strategy)
        assert ends[-1] >= 200.0 > ends[-2]
    else:
        assert sorted(names) == sorted(found[0].recipes)
    assert read_order(found[0], written(found[0], tried)) == tried
    if strategy.first == "others' best":
        assert [one.name for one in tried[:LEADING]] == replay.leading["measure"][:LEADING]
    if strategy.first == "first recipe":
        assert tried[0].name == "all l4 r8 0.0006"
    if strategy.sampler is not None:
        assert tried != replay.order(strategy, "measure", 2, within=100.0)[: len(tried)]


def test_a_stopped_trial_is_paid_to_its_half_and_never_chosen(protocol: Protocol, found: list[Table]) -> None:
    table, strategy = found[0], STRATEGIES["search, pruner median"]
    tried = replay_of(found, 0, protocol).order(strategy, "measure", 3, within=1e9)
    stopped = {one.name for one in tried if one.stopped}
    assert stopped, "later recipes are below the median of those before"
    best = max((one for one in tried if not one.stopped), key=lambda one: table.recipes[one.name].value["measure"])
    assert curve(table, tried, strategy, "measure", [1e9]) == [table.recipes[best.name].test]
    # Nine seconds to train and one to ask: half of it and one report, or all of it and two.
    last = spent(table, tried, strategy)[-1]
    assert last == pytest.approx(6 * 41 + 5.5 * len(stopped) + 11 * (36 - len(stopped)))


def test_the_first_recipe_is_the_tabulated_one_with_the_nearest_rate(found: list[Table]) -> None:
    first = RAW["search"]["enqueue"][0]
    assert (
        nearest(found[0], {**first, "learning_rate": 9e-4}) == "all l4 r8 0.0006"
    )  # 1.5 times; 1.6e-3 is 1.8 times it
    with pytest.raises(PipelineError, match="must be in the table"):
        nearest(found[0], {**first, "rank": 3})


@pytest.mark.parametrize("name", ["search", "search, pruner median"])
def test_a_recipe_that_failed_is_never_chosen(name: str, protocol: Protocol) -> None:
    point = points(protocol.plan.space)[-1]
    cells = {}
    for place, each in enumerate(points(protocol.plan.space)):
        cell = planted("trec", each, place // 2, loss=1.0, cpu=9.0)
        cells[cell.name] = replace(cell, validation=None, early=None) if each == point else cell
    found = tables(cells, protocol)
    strategy = STRATEGIES[name]
    tried = replay_of(found, 0, protocol).order(strategy, "measure", 0, within=1e9)
    assert len(tried) == len(cells)
    able = [found[0].recipes[one.name] for one in tried if not one.stopped]
    best = max(able, key=lambda recipe: recipe.value["measure"])
    assert best.point != point
    assert curve(found[0], tried, strategy, "measure", [1e9]) == [best.test]


def of_page(found: list[Table], protocol: Protocol, orders: int) -> Page:
    """The page of a few quick strategies over planted tables."""
    kept: dict[str, Any] = {}
    for place, table in enumerate(found):
        replay = replay_of(found, place, protocol)
        kept[table.task] = {
            name: {
                objective: [
                    written(table, replay.order(STRATEGIES[name], objective, seed, within=table.seconds / 2))
                    for seed in range(orders)
                ]
                for objective in OBJECTIVES
            }
            for name in ("search", "random")
        }
    cells = {}
    for table, sign in zip(found, (-1, 1), strict=False):
        for place, point in enumerate(points(protocol.plan.space)):
            cell = planted(
                table.task, point, place // 2, loss=2 + sign * place / 100, cpu=50.0 if place % 6 == 0 else 9.0
            )
            cells[cell.name] = cell
    results = Results(ROOT / CELLS.parent, cells, protocol, RAW)
    return made(results, {"seeds": orders, "left": {}, "orders": kept})


def test_a_search_pays_that_is_ahead_of_both_by_more_than_its_spread(protocol: Protocol, found: list[Table]) -> None:
    told = of_page(found, protocol, 2)
    assert told.better_objective() == "measure", "the loss ranks the wrong way round on the second task"
    for task in ("trec", "cola"):
        searched, chance = (told.curve(task, name, "measure") for name in ("search", "random"))
        (value, spread), first = searched.third, told.first(task).third[0]
        assert told.pays(task, searched) is (value > chance.third[0] and value > first + spread)
        assert not told.pays(task, replace(searched, at=[None, None, None, (first, 0.0)]))
        assert not told.pays(task, replace(searched, at=[None, None, None, (value, 1.0)]))
    both = all(told.pays(task, told.curve(task, "search", "measure")) for task in told.curves)
    assert ("The default is the best of them: search." in sentence(told)) is both
    one = replace(told, curves={"trec": told.curves["trec"]})
    assert "takes both tasks" in sentence(one)


def test_the_committed_page_and_picture_are_those_of_the_committed_cells_and_orders(protocol: Protocol) -> None:
    folder = ROOT / CELLS.parent
    kept = read_json(folder / "orders.json")
    results = Results(folder, read_cells(ROOT / CELLS), protocol, RAW)
    told = made(results, kept)
    assert list(told.curves) == [task for task in protocol.plan.tasks if task in kept["orders"]]
    assert (folder / "search.md").read_text(encoding="utf-8") == page(told)
    assert (folder / "search.svg").read_text(encoding="utf-8") == search_picture(told)


def test_the_recipes_that_are_named_for_tasks_are_those_that_won_on_their_validation_rows(protocol: Protocol) -> None:
    for table in tables(read_cells(ROOT / CELLS), protocol):
        best = max(table.recipes.values(), key=lambda recipe: (recipe.value["measure"], recipe.value["loss"]))
        assert dict(best.point) == {part: WON_RECIPES[table.task][part] for part in best.point}


@pytest.mark.parametrize("name", [name for name, strategy in STRATEGIES.items() if strategy != Strategy()])
def test_the_committed_orders_are_those_that_the_search_proposes(name: str, protocol: Protocol) -> None:
    kept = read_json(ROOT / CELLS.parent / "orders.json")
    results = Results(ROOT / CELLS.parent, read_cells(ROOT / CELLS), protocol, RAW)
    for replay in results.replays(list(kept["orders"])):
        if replay.can(STRATEGIES[name]):
            tried = replay.order(STRATEGIES[name], "measure", 0, within=replay.found.seconds / 2)
            assert kept["orders"][replay.found.task][name]["measure"][0] == written(replay.found, tried)


def test_without_a_whole_table_it_says_so(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cells").mkdir()
    assert main(["--root", str(ROOT), "--out", str(tmp_path / "cells")]) == 2
    assert "a task must have all of its recipes" in capsys.readouterr().err
