"""Near duplicates across splits: each pair that is near is found, and no other."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from pipelines.contracts.prepared import Row, Split
from pipelines.diagnostics.near_rows import COMPARED, SIMILAR, near_rows, runs, similarity
from pipelines.diagnostics.neutral import read_neutral

WORDS = sorted(set(" ".join(read_neutral("default", Path()).passages).split()))


def text(rng: random.Random) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(20))


def rows(split: str, keys: list[str]) -> list[Row]:
    return [Row(f"{split}:{place}", "p", " c", key=key) for place, key in enumerate(keys)]


def test_the_index_of_two_texts_is_what_they_share_of_what_either_has() -> None:
    """abcdef and abcdeg have the runs abcde, bcdef and abcde, bcdeg: one of three."""
    assert similarity(runs("abcdef"), runs("abcdeg")) == 1 / 3
    assert runs("abc") == {"abc"}


def test_what_is_found_is_what_comparing_every_pair_finds(tmp_path: Path) -> None:
    rng = random.Random(0)
    train = [text(rng) for _ in range(60)]
    changed = [key.replace(key.split()[3], "lemon", 1) for key in train[:5]] + [f"{key} indeed" for key in train[5:]]
    test = [*changed[:10], *(text(rng) for _ in range(30))]
    validation = [changed[20], test[2] + "!", text(rng)]
    splits: dict[Split, list[Row]] = {
        "train": rows("train", train), "validation": rows("validation", validation), "test": rows("test", test)
    }  # fmt: skip
    wanted = {}
    for split, other in (("test", "train"), ("test", "validation"), ("validation", "train")):
        for row in splits[split]:  # type: ignore[index]
            alike, best = max((similarity(runs(row.key), runs(theirs.key)), theirs.id) for theirs in splits[other])  # type: ignore[index]
            if alike >= SIMILAR:
                wanted[split, row.id, other] = best, round(alike, 4)
    found = {
        (near.split, near.id, near.other_split): (near.other_id, near.similarity)
        for near in near_rows(splits, tmp_path)
    }
    assert found == wanted
    assert {key[::2] for key in wanted} == {("test", "train"), ("test", "validation"), ("validation", "train")}


def test_of_many_rows_of_one_pattern_few_are_compared_themselves(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """They share half of their runs, so that each has a band in common with hundreds."""
    rng = random.Random(0)
    pattern = "what do you think of {} and of {}, and which of both would you take home today"
    texts = [pattern.format(text(rng)[:30], text(rng)[:30]) for _ in range(1200)]
    leak = texts[0].replace("today", "now")
    splits: dict[Split, list[Row]] = {
        "train": rows("train", texts[:600]), "validation": rows("validation", [leak]), "test": rows("test", texts[600:])
    }  # fmt: skip
    compared: list[float] = []

    def counted(one: frozenset[str], other: frozenset[str]) -> float:
        compared.append(similarity(one, other))
        return compared[-1]

    monkeypatch.setattr("pipelines.diagnostics.near_rows.similarity", counted)
    assert [(near.id, near.other_id) for near in near_rows(splits, tmp_path)] == [("validation:0", "train:0")]
    assert len(compared) < 3000  # of 360,000 pairs


def test_what_a_row_of_a_crowd_costs_has_a_bound_and_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Two numbers in a long sentence: all of 3,000 measured rows are near all of 100 training rows, 300,000 pairs."""
    pattern = "how much is {} and {} together, said as a number and without any word before or after it, please"
    splits: dict[Split, list[Row]] = {
        "train": rows("train", [pattern.format(place, 7) for place in range(100)]), "validation": [],
        "test": rows("test", [pattern.format(8, place) for place in range(3000)]),
    }  # fmt: skip
    compared: list[float] = []

    def counted(one: frozenset[str], other: frozenset[str]) -> float:
        compared.append(similarity(one, other))
        return compared[-1]

    monkeypatch.setattr("pipelines.diagnostics.near_rows.similarity", counted)
    found = near_rows(splits, tmp_path)
    assert all(near.similarity >= SIMILAR for near in found)
    assert len({near.id for near in found}) == len(found) > COMPARED
    assert len(compared) <= 100 * COMPARED
    assert "100 rows have a pattern in common with so many others" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_a_leak_in_a_crowd_is_found(tmp_path: Path) -> None:
    """The rows of the pattern share half of their runs; the leak shares nearly all of one's."""
    rng = random.Random(0)
    pattern = "what do you think of {} and of {}, and which of both would you take home today"
    texts = [pattern.format(text(rng)[:30], text(rng)[:30]) for _ in range(4000)]
    splits: dict[Split, list[Row]] = {
        "train": rows("train", [texts[3500].replace("today", "now"), text(rng)]), "validation": [],
        "test": rows("test", texts),
    }  # fmt: skip
    assert [(near.id, near.other_id) for near in near_rows(splits, tmp_path)] == [("test:3500", "train:0")]


def test_a_planted_leak_is_found_and_rows_of_one_split_are_not_compared(tmp_path: Path) -> None:
    leak = "the film was far too long, the music far too loud, and nobody in it seemed to care about anything"
    splits: dict[Split, list[Row]] = {
        "train": rows("train", ["something else", leak]), "validation": rows("validation", ["another text entirely"]),
        "test": rows("test", [leak.replace("was far", "was"), leak.replace("was", "is")]),
    }  # fmt: skip
    assert [(near.id, near.other_id) for near in near_rows(splits, tmp_path)] == [
        ("test:0", "train:1"),
        ("test:1", "train:1"),
    ]
