"""Near duplicates across splits: each pair that is near is found, and no other."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from pipelines.contracts.prepared import Row, Split
from pipelines.diagnostics.near_rows import SIMILAR, near_rows, runs, similarity
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


def test_what_is_found_is_what_comparing_every_pair_finds() -> None:
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
    found = {(near.split, near.id, near.other_split): (near.other_id, near.similarity) for near in near_rows(splits)}
    assert found == wanted
    assert {key[::2] for key in wanted} == {("test", "train"), ("test", "validation"), ("validation", "train")}


def test_of_many_rows_of_one_pattern_few_are_compared_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert [(near.id, near.other_id) for near in near_rows(splits)] == [("validation:0", "train:0")]
    assert len(compared) < 3000  # of 360,000 pairs


def test_a_planted_leak_is_found_and_rows_of_one_split_are_not_compared() -> None:
    leak = "the film was far too long, the music far too loud, and nobody in it seemed to care about anything"
    splits: dict[Split, list[Row]] = {
        "train": rows("train", ["something else", leak]), "validation": rows("validation", ["another text entirely"]),
        "test": rows("test", [leak.replace("was far", "was"), leak.replace("was", "is")]),
    }  # fmt: skip
    assert [(near.id, near.other_id) for near in near_rows(splits)] == [("test:0", "train:1"), ("test:1", "train:1")]
