"""Pairs with known verdicts are read or made, rows are chosen alike each time, and both orders make one score."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from pipelines.errors import PipelineError
from pipelines.judge.pairs import MADE, made_known, read_known, sampled, score


def write(path: Path, preferences: list[object]) -> Path:
    rows = [
        {"instruction": f"Say {n}.", "output_1": f"one {n}", "output_2": f"two {n}", "preference": preference}
        for n, preference in enumerate(preferences)
    ]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def test_known_verdicts_are_read_as_alpacaeval_writes_them(tmp_path: Path) -> None:
    found = read_known(write(tmp_path / "known.jsonl", [1, 2, 1.0, "2"] * 3))
    assert [pair.better for pair in found] == ["one", "other"] * 6
    assert (found[1].instruction, found[1].one, found[1].other) == ("Say 1.", "one 1", "two 1")


@pytest.mark.parametrize(
    ("preferences", "rule"),
    [
        ([1, 2, 1.5] * 5, "1 or 2 as preference.*line 3"),
        ([1] * 20, "5 of preference 1 and 5 of preference 2.*Got: 20 and 0.*exchange the outputs"),
        ([1, 2] * 4, "Got: 4 and 4"),
    ],
)
def test_known_verdicts_that_say_nothing_of_a_judge_are_refused(
    tmp_path: Path, preferences: list[object], rule: str
) -> None:
    with pytest.raises(PipelineError, match=rule):
        read_known(write(tmp_path / "known.jsonl", preferences))
    with pytest.raises(PipelineError, match="in a file that ends in"):
        read_known(tmp_path / "nowhere.jsonl")


def test_made_pairs_have_the_reference_on_either_side_and_a_worse_one_of_three_kinds() -> None:
    rows = [(f"r:{n}", f"Say {n}.", f"It is {n}, as {'so ' * n}often.") for n in range(100)]
    found, right = made_known(rows), {instruction: text for _, instruction, text in rows}
    assert len(found) == MADE
    assert abs(sum(pair.better == "one" for pair in found) - MADE / 2) <= 3
    kinds, leads = [], []
    for pair in found:
        better, worse = (pair.one, pair.other) if pair.better == "one" else (pair.other, pair.one)
        assert better == right[pair.instruction]
        assert worse != better
        kinds.append("longer" if worse.startswith(better) else "shorter" if better.startswith(worse) else "another")
        if kinds[-1] == "another":
            assert worse in right.values()
            leads.append(abs(len(worse) - len(better)))
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {"longer": 20, "shorter": 20, "another": 20}
    assert sorted(leads)[10] <= 30  # of lengths from 15 to 315, the nearest of those before


def test_more_rows_keep_the_made_pairs_of_fewer() -> None:
    """In the order of the sample, whatever that of the file; so a larger one asks nothing of them again."""
    rows = [(f"r:{n}", f"Say {n}.", f"It is {n}, as {'so ' * (n * 7 % 50)}often.") for n in range(200)]
    made = [made_known(sampled(rows, count, lambda row: row[1])) for count in (2, 10, 40, 61, 100, 200)]
    assert [len(pairs) for pairs in made] == [1, 9, 39, MADE, MADE, MADE]
    for few, more in pairwise(made):
        assert set(few) <= set(more)


def test_more_rows_hold_those_of_fewer_and_keep_their_order() -> None:
    items = [f"row {n}" for n in range(50)]
    few, more = sampled(items, 5, str), sampled(items, 20, str)
    assert len(few) == 5
    assert set(few) < set(more) < set(items)
    assert more == sorted(more, key=items.index)
    assert set(sampled(items[::-1], 5, str)) == set(few)  # whatever the file's order
    assert sampled(items, None, str) == sampled(items, 60, str) == items


@pytest.mark.parametrize(
    ("one_first", "other_first", "value"),
    [
        ("first", "second", 1.0), ("second", "first", 0.0), ("first", "first", 0.5), ("tie", "tie", 0.5),
        ("first", "tie", 0.75), ("tie", "second", 0.75), ("second", "tie", 0.25), ("tie", "first", 0.25),
        ("first", "unreadable", None), (None, "first", None), ("refused", "refused", None),
    ],
)  # fmt: skip
def test_a_score_is_the_mean_of_what_both_orders_give_the_one(
    one_first: str | None, other_first: str | None, value: float | None
) -> None:
    assert score((one_first, other_first)) == value  # type: ignore[arg-type]
