"""Searches replayed from planted tables of recipes: what is chosen when, and what it cost."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.quality import claim_replay
from benchmarks.quality.claim import PROTOCOL
from benchmarks.quality.claim_cells import Asked, ClaimCell
from benchmarks.quality.claim_plan import Protocol, points, recipe_name
from benchmarks.quality.claim_replay import Table, correlation, curve, nearest, order, others_best, settings_of, tables
from pipelines.errors import PipelineError
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


def test_only_whole_tables_are_replayed_and_shared_constants_are_counted_once(
    protocol: Protocol, found: list[Table]
) -> None:
    assert [each.task for each in found] == ["trec", "cola"]
    table = found[0]
    assert {recipe.seconds for recipe in table.recipes.values()} == {10.0}  # 9 and one of asking
    assert set(table.shared.values()) == {41.0}
    assert len(table.shared) == len(protocol.plan.space.layers) * len(protocol.plan.space.positions)
    names = list(table.recipes)
    assert curve(table, names, "measure", [0.0, 51.0, 61.0, 70.9, 71.0]) == [None, 0.0, 0.0, 0.0, 0.05]
    assert tables({}, protocol) == []


def test_the_best_by_the_objective_is_what_is_asked_the_test_rows(found: list[Table]) -> None:
    last = [1e9]
    names = list(found[1].recipes)
    assert curve(found[1], names, "measure", last) == [17 / 20]
    assert curve(found[1], names, "loss", last) == [0.0]
    values = [recipe.value["loss"] for recipe in found[1].recipes.values()]
    assert correlation(values, range(len(values))) == pytest.approx(-1.0)


def test_recipes_of_other_tasks_are_led_by_the_best_there_alone(found: list[Table]) -> None:
    names = list(found[0].recipes)
    assert set(others_best("trec", found, "measure")[:2]) == set(names[-2:])
    assert others_best("trec", found, "loss")[0] == names[0], "by the loss of the other task, not its own"
    assert others_best("trec", found[:1], "measure") == []


def test_each_strategy_tries_every_recipe_once_and_a_search_begins_with_what_leads(
    protocol: Protocol, found: list[Table]
) -> None:
    settings, leading = settings_of(RAW, protocol.plan.space)(1), others_best("trec", found, "measure")
    for strategy in claim_replay.STRATEGIES:
        tried = order(found[0], strategy, leading, settings, "measure")
        assert sorted(tried) == sorted(found[0].recipes)
    led = order(found[0], "search, others' best first", leading, settings, "measure")
    assert led[: claim_replay.LEADING] == leading[: claim_replay.LEADING]


def test_the_first_recipe_is_the_tabulated_one_with_the_nearest_rate(found: list[Table]) -> None:
    first = RAW["search"]["enqueue"][0]
    assert nearest(found[0], first) == "all l4 r8 0.0006"  # 9e-4 is 1.5 times that, and 1.6e-3 is 1.8 times it
    with pytest.raises(PipelineError, match="must be in the table"):
        nearest(found[0], {**first, "rank": 3})


def test_a_recipe_that_failed_comes_last(protocol: Protocol, found: list[Table]) -> None:
    point = points(protocol.plan.space)[-1]
    cells = {}
    for place, each in enumerate(points(protocol.plan.space)):
        cell = planted("trec", each, place // 2, loss=1.0, cpu=9.0)
        cells[cell.name] = replace(cell, validation=None, early=None) if each == point else cell
    (table,) = tables(cells, protocol)
    assert curve(table, list(table.recipes)[-2:], "measure", [1e9]) == [17 / 20]
    assert found
