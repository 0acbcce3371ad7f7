from __future__ import annotations

import itertools
import subprocess
import sys
from typing import Literal

import pytest
import torch

from reft.data import Collator, Encoded
from reft.edits.positions import Positions, parse_positions, position_masks


@pytest.mark.parametrize(("spec", "first", "last"), [("f7+l7", 7, 7), ("f3", 3, 0), ("l4", 0, 4), ("f1+l12", 1, 12)])
def test_each_form_is_read(spec: str, first: int, last: int) -> None:
    assert parse_positions(spec) == Positions(first, last)
    assert parse_positions(f"{spec}+g8") == Positions(first, last, generated=8)


def test_tokens_behind_the_prompt_stand_alone_or_behind_any_other_positions() -> None:
    assert parse_positions("g3") == Positions(generated=3)
    assert parse_positions("all+g3") == Positions(everything=True, generated=3)
    assert parse_positions("spans+g3") == Positions(spans=True, generated=3)
    assert parse_positions("3:4,0:3+g3").simplest() == Positions(first=4, generated=3)


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "7",
        "All",
        "all+l1",
        "span",
        "1:",
        ":2",
        "1-2",
        "1:2,",
        "l3+f2",
        "f1+f2",
        "f0",
        "f1+l0",
        "f-1",
        "f1 + l1",
        "F1",
        "f٣",
        "f1+",
        "f01",
        "g0",
        "g",
        "g2+f1",
        "g2+g3",
        "f1+g2+l1",
        "+g2",
    ],
)
def test_other_texts_are_refused(spec: str) -> None:
    with pytest.raises(ValueError, match="fN, lN or fN"):
        parse_positions(spec)


# The two-sided rows are what pyreft's get_intervention_locations edits (its padding positions left out), but for the
# prompt of one token; the one-sided rows take all tokens there are, where pyreft stops at half.
@pytest.mark.parametrize(
    ("spec", "length", "first", "last"),
    [
        ("f7+l7", 20, range(7), range(13, 20)),
        ("f7+l7", 14, range(7), range(7, 14)),
        ("f7+l7", 6, range(3), range(3, 6)),
        ("f7+l7", 5, range(2), range(3, 5)),
        ("f2+l5", 20, range(2), range(15, 20)),
        ("f2+l5", 5, range(2), range(3, 5)),
        ("f7+l7", 2, [0], [1]),
        ("f7+l7", 1, [0], []),
        ("f3", 20, range(3), []),
        ("f3", 2, range(2), []),
        ("l4", 20, [], range(16, 20)),
        ("l4", 3, [], range(3)),
        ("l4", 1, [], [0]),
    ],
)
@pytest.mark.parametrize("side", ["left", "right"])
def test_edited_set(spec: str, length: int, first: range, last: range, side: str) -> None:
    completion, padding = 3, 4
    mask = torch.ones(1, length + completion + padding, dtype=torch.long)
    mask[0, slice(0, padding) if side == "left" else slice(length + completion, None)] = 0
    offset = padding if side == "left" else 0
    masks = position_masks(parse_positions(spec), mask, torch.tensor([length]))
    assert masks.first[0].nonzero().flatten().tolist() == [offset + index for index in first]
    assert masks.last[0].nonzero().flatten().tolist() == [offset + index for index in last]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("g2", {"generated": [5, 6]}),
        ("g9", {"generated": [5, 6, 7]}),  # the completion has three
        ("f1+l2+g1", {"first": [0], "last": [3, 4], "generated": [5]}),
        ("all+g2", {"first": list(range(5)), "generated": [5, 6]}),
    ],
)
def test_tokens_behind_the_prompt_are_the_completions_first(
    spec: str, parts: dict[str, list[int]], side: Literal["left", "right"]
) -> None:
    batch = Collator(0, side)([Encoded(tuple(range(1, 9)), 5), Encoded(tuple(range(12)), 9)])
    positions = parse_positions(spec)
    masks = position_masks(positions, batch.attention_mask, batch.prompt_lengths)
    offset = 4 if side == "left" else 0
    found = [mask[0].nonzero().flatten().sub(offset).tolist() for mask in masks.parts(positions)]
    assert dict(zip(positions.parts, found, strict=True)) == parts
    assert masks.either[0].nonzero().flatten().sub(offset).tolist() == sorted(itertools.chain(*parts.values()))


@pytest.mark.parametrize("spec", ["2:2", "3:1", "0:1,5:2"])
def test_a_range_of_nothing_is_refused(spec: str) -> None:
    with pytest.raises(ValueError, match="ends above its start"):
        parse_positions(spec)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
    ("spec", "edited"),
    [("all", range(5)), ("0:2,3:4", [0, 1, 3]), ("3:9", [3, 4]), ("7:9", []), ("spans", [1, 2])],
)
def test_other_positions_are_of_the_prompt_alone(spec: str, edited: list[int], side: Literal["left", "right"]) -> None:
    rows = [Encoded(tuple(range(1, 9)), 5, spans=((1, 3),)), Encoded(tuple(range(12)), 9, spans=((0, 1),))]
    batch = Collator(0, side)(rows)
    masks = position_masks(parse_positions(spec), batch.attention_mask, batch.prompt_lengths, batch.spans)
    offset = 4 if side == "left" else 0
    assert masks.either[0].nonzero().flatten().tolist() == [offset + index for index in edited]
    assert not masks.last.any()


def test_spans_that_rows_do_not_name_are_refused() -> None:
    with pytest.raises(ValueError, match="must name theirs"):
        position_masks(parse_positions("spans"), torch.ones(1, 3), torch.tensor([2]))


def test_rows_of_a_batch_are_independent() -> None:
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    masks = position_masks(parse_positions("l2"), mask, torch.tensor([2, 4]))
    assert masks.last.tolist() == [[False, False, True, True, False], [False, False, True, True, False]]


def test_texts_are_read_without_torch() -> None:
    code = "import sys, reft.edits.layers, reft.edits.positions; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
