"""How a mixture's training rows are drawn: shares against the rule, and rows by seed and text alone."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from pipelines.contracts.prepared import Row
from pipelines.errors import PipelineError
from pipelines.tasks.draw import MixedSplit, draw, reject_measured, shares
from pipelines.tasks.row_store import RowStore, StoredSplit, row_store


@pytest.mark.parametrize(
    ("total", "weights", "caps", "found"),
    [
        (80, {"a": 1.0, "b": 1.0}, {"a": 100, "b": 100}, {"a": 40, "b": 40}),
        (80, {"a": 1.0, "b": 3.0}, {"a": 100, "b": 100}, {"a": 20, "b": 60}),
        (80, {"a": 1.0, "b": 3.0}, {"a": 100, "b": 30}, {"a": 50, "b": 30}),  # a gives what b lacks
        (90, {"a": 1.0, "b": 1.0, "c": 2.0}, {"a": 10, "b": 100, "c": 100}, {"a": 10, "b": 27, "c": 53}),  # 80 by 1 : 2
        (10, {"a": 1.0, "b": 1.0, "c": 1.0}, {"a": 9, "b": 9, "c": 9}, {"a": 4, "b": 3, "c": 3}),  # the first of equals
        (30, {"a": 5.0, "b": 1.0}, {"a": 10, "b": 20}, {"a": 10, "b": 20}),
    ],
)
def test_shares_follow_the_weights_and_stay_below_the_caps(
    total: int, weights: dict[str, float], caps: dict[str, int], found: dict[str, int]
) -> None:
    assert shares(total, weights, caps) == found


def test_shares_of_any_weights_add_up_and_no_task_below_its_cap_has_less_than_its_quota() -> None:
    rng = random.Random(0)
    for _ in range(300):
        caps = {name: rng.randint(3, 60) for name in "abcd"}
        weights = {name: rng.choice((1.0, 2.0, 2.5, 3.0)) for name in caps}
        total = rng.randint(12, sum(caps.values()))  # of 12, one part in ten or more is a row
        found = shares(total, weights, caps)
        assert sum(found.values()) == total
        assert all(found[name] <= caps[name] for name in caps)
        for name, given in found.items():
            if given < caps[name]:
                assert given >= int(total * weights[name] / sum(weights.values()))


def test_too_few_rows_and_a_task_without_one_are_refused() -> None:
    with pytest.raises(PipelineError, match=r"training rows together.*Got: 5, without.*train_rows to 5"):
        shares(6, {"a": 1.0, "b": 1.0}, {"a": 2, "b": 3})
    with pytest.raises(PipelineError, match=r"must give a training row.*Got: none of b"):
        shares(2, {"a": 100.0, "b": 1.0}, {"a": 9, "b": 9})


def row(number: int, text: str, group: str | None = None) -> Row:
    return Row(f"f:{number}", f"{text}?", " yes", "yes", key=text, group=group, tokens=1)


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[dict[str, RowStore]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(row_store(tmp_path / name, 7)) for name in ("one", "two")}


def fill(store: RowStore, split: str, rows: Sequence[Row]) -> None:
    for each in rows:
        store.add("train", each)
    store.flush()
    ids = [each.id for each in rows]
    for number, body in store.database.execute("SELECT n, body FROM rows").fetchall():
        if any(f'"{own}"' in body for own in ids):
            store.database.execute("UPDATE rows SET split = ? WHERE n = ?", (split, number))


def texts(store: RowStore, split: str) -> list[str]:
    return [each.key for each in StoredSplit(store, split)]  # type: ignore[arg-type]


def test_the_seed_and_the_texts_choose_the_rows_and_the_order_of_the_file_does_not(stores: dict[str, RowStore]) -> None:
    made = [row(number, f"text {number}") for number in range(1, 41)]
    fill(stores["one"], "train", made)
    fill(stores["two"], "train", made[::-1])
    assert [draw(store, "same", 12, 7) for store in stores.values()] == [28, 28]
    chosen = texts(stores["one"], "train")
    assert len(chosen) == 12
    assert texts(stores["two"], "train") == chosen
    stores["two"].database.execute("UPDATE rows SET split = 'train'")
    draw(stores["two"], "same", 12, 8)
    assert texts(stores["two"], "train") != chosen


def test_no_task_is_trained_on_what_another_measures_on_and_test_rows_stay(stores: dict[str, RowStore]) -> None:
    fill(stores["one"], "test", [row(1, "asked of both"), row(2, "one's own")])
    fill(stores["one"], "validation", [row(3, "validated in one")])
    fill(stores["two"], "train", [row(4, "asked of both"), row(5, "validated in one"), row(6, "free")])
    fill(stores["two"], "validation", [row(7, "another", group="one's own"), row(8, "kept")])
    fill(stores["two"], "test", [row(9, "validated in one too")])
    reject_measured(stores)
    assert texts(stores["one"], "test") == sorted(texts(stores["one"], "test"), key=texts(stores["one"], "test").index)
    assert set(texts(stores["one"], "test")) == {"asked of both", "one's own"}
    assert texts(stores["one"], "validation") == ["validated in one"]
    assert texts(stores["two"], "train") == ["free"]
    assert texts(stores["two"], "validation") == ["kept"]
    assert [(each.line, each.reason) for each in stores["two"].rejected()] == [
        (4, "the text is also in the test split of one"),
        (5, "the text is also in the validation split of one"),
        (7, "the text is also in the test split of one"),
    ]


def test_rows_of_all_tasks_stand_in_one_order_with_their_tasks_names(stores: dict[str, RowStore]) -> None:
    fill(stores["one"], "train", [row(number, f"text {number}") for number in range(1, 9)])
    fill(stores["two"], "train", [row(number, f"text {number}") for number in range(9, 21)])
    mixed = MixedSplit(stores, "train", 7)
    together = list(mixed)
    assert len(mixed) == len(together) == 20
    assert {each.task for each in together[:10]} == {"one", "two"}  # a part of the rows is of both
    assert [each.key for each in together if each.task == "one"] == texts(stores["one"], "train")
    assert [mixed[3], *mixed[5:7]] == [together[3], *together[5:7]]
