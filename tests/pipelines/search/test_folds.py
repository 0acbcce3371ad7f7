"""Which rows the runs of a search have: a run never trains on what it is asked, and no row is asked twice in vain."""

from __future__ import annotations

from collections import Counter

import pytest

from pipelines.contracts.prepared import Row
from pipelines.search.folds import fold


def rows(split: str, count: int) -> list[Row]:
    return [Row(id=f"{split}{place}", prompt="a", completion=" b", label="good") for place in range(count)]


def ids(found: list[Row]) -> list[str]:
    return [row.id for row in found]


def test_a_trial_has_the_first_training_rows_and_is_asked_the_validation_rows() -> None:
    found = fold(rows("t", 5), rows("v", 2), place=0, count=4)
    assert (ids(found.train), ids(found.asked)) == (["t0", "t1", "t2", "t3"], ["v0", "v1"])


def test_a_run_that_confirms_is_asked_training_rows_and_has_the_validation_rows_in_their_place() -> None:
    found = fold(rows("t", 4), rows("v", 2), place=1, count=4)
    assert (ids(found.train), ids(found.asked)) == (["t2", "t3", "v0", "v1"], ["t0", "t1"])
    found = fold(rows("t", 4), rows("v", 2), place=2, count=3)
    assert (ids(found.train), ids(found.asked)) == (["t0", "t1", "v0"], ["t2", "t3"])


@pytest.mark.parametrize(("train", "validation"), [(400, 200), (1000, 200), (16, 8), (10, 4), (8, 8), (5, 9)])
def test_folds_share_no_row_with_what_they_train_on_and_take_their_turns(train: int, validation: int) -> None:
    asked: Counter[str] = Counter()
    for place in range(1, 5):
        found = fold(rows("t", train), rows("v", validation), place=place, count=2 * train)
        assert len(found.asked) == min(train // 2, validation)
        assert len(found.train) == len(set(ids(found.train))) == train
        assert not set(ids(found.train)) & set(ids(found.asked))
        asked.update(ids(found.asked))
    assert max(asked.values()) - min(asked.get(one, 0) for one in ids(rows("t", train))) <= 1
