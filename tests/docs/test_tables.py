"""What the pages list beside the code: the shipped search, which layers and positions a text names, families."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import yaml

from reft.cone.decoder import PROVED
from reft.edits.layers import NAMED_PARTS, parse_layers
from reft.edits.positions import parse_positions, position_masks
from tests.docs.pages import ROOT, blocks

NUM_LAYERS, PROMPT = 30, 10  # as the headings of the tables say
SEARCH = (ROOT / "docs" / "search.md").read_text(encoding="utf-8")
CONE = (ROOT / "docs" / "cone.md").read_text(encoding="utf-8")


def rows(page: str, heading: str) -> list[list[str]]:
    """The cells of the table with this heading of its first column."""
    table = page[page.index(f"| {heading} |") :].split("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def words(cell: str) -> list[str]:
    """What stands as code in a cell."""
    return re.findall(r"`([^`]+)`", cell)


def test_the_search_of_the_page_is_the_shipped_one() -> None:
    shipped: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["search"]
    first = next(block for block in blocks("yaml") if block.page == "docs/search.md")
    shown = yaml.safe_load(first.text)["search"]
    assert set(shown) == {"trials", "space", "enqueue"}
    assert shown == {key: shipped[key] for key in shown}


LAYERS = [
    (name, cell, count)
    for names, cell, counts in rows(SEARCH, "`layers`")
    for name, count in zip(words(names), (counts.split(", ") * 3)[: len(words(names))], strict=True)
]


@pytest.mark.parametrize(("spec", "count"), [(name, int(count)) for name, _, count in LAYERS])
def test_layers_are_as_many_as_the_page_says(spec: str, count: int) -> None:
    assert len(parse_layers(spec, NUM_LAYERS)) == count


def test_each_range_of_layers_is_as_the_page_says() -> None:
    told = {name: cell for names, cell, _ in rows(SEARCH, "`layers`") for name in words(names)}
    assert set(NAMED_PARTS) <= set(told)
    for names, cell, _ in rows(SEARCH, "`layers`"):
        spans = re.findall(r"(\d+) to (\d+)", cell)
        if spans:
            found = [parse_layers(spec, NUM_LAYERS) for spec in words(names)]
            assert [(each[0], each[-1]) for each in found] == [(int(low), int(high)) for low, high in spans]


POSITIONS = [
    (words(names)[0], [int(token) for token in cell.split(": ")[1].split()])
    for names, cell in rows(SEARCH, "`positions`")
]


@pytest.mark.parametrize(("spec", "tokens"), POSITIONS)
def test_positions_are_the_tokens_that_the_page_says(spec: str, tokens: list[int]) -> None:
    masks = position_masks(parse_positions(spec), torch.ones(1, 2 * PROMPT), torch.tensor([PROMPT]))
    assert masks.either[0].nonzero().flatten().tolist() == tokens


def test_the_families_of_the_cone_are_those_that_are_compared() -> None:
    (cell,) = (cells[0] for cells in rows(CONE, "where") if cells[0].startswith("decoders of these types"))
    assert set(words(cell)) == PROVED
