"""Splits of rows that more are added to: whatever comes, and in whatever order, no row changes its split."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.contracts.prepared import Row, Split
from pipelines.errors import PipelineError
from pipelines.tasks.collect import distinct
from pipelines.tasks.growth import TORN, place, reject_torn
from pipelines.tasks.keys.prepare import GrowingParams, PrepareParams
from pipelines.tasks.row_store import RowStore, row_store
from pipelines.tasks.rows import near_key
from pipelines.tasks.splits import cut

SEED = 7
SHARES = GrowingParams(validation=0.3, test=0.3)
Found = dict[Split, list[Row]]


def splits_of(
    rows: Sequence[Row], shares: GrowingParams = SHARES, *, seed: int = SEED, least: int = 0, test: Sequence[Row] = ()
) -> tuple[Found, dict[str, int]]:
    """The splits that stage prepare cuts of rows in this order, and the rejections by reason."""
    pools: dict[Split, Sequence[Row]] = {"train": rows, **({"test": test} if test else {})}
    keys = SimpleNamespace(
        growing=shares, domain_column=None, group_column="g", train_rows=least, validation_rows=least, test_rows=least
    )
    with tempfile.TemporaryDirectory() as folder, row_store(Path(folder) / "prepared", seed) as store:
        for pool, own in pools.items():
            fill(store, pool, own, shares)
        found, unused = cut(store, list(pools), cast(PrepareParams, keys))
        assert unused == 0
        return {split: list(own) for split, own in found.items()}, {why: n for why, n, _ in store.reasons()}


def fill(store: RowStore, pool: Split, rows: Sequence[Row], shares: GrowingParams) -> None:
    """As stage prepare does with each source."""
    for row in rows:
        store.add(pool, row)
    store.flush()
    place(store, pool, shares)
    reject_torn(store, pool)
    distinct(store, pool)


def row(number: int, text: str, *, group: str | None = None, label: str = "a", domain: float | None = None) -> Row:
    return Row(f"rows:{number}", text, f" {label}", label=label, domain=domain, group=group, key=text)


ROWS = st.lists(
    st.builds(
        lambda text, sign, group, label, domain: row(0, f"text {text}{sign}", group=group, label=label, domain=domain),
        st.integers(0, 12),
        st.sampled_from(("", "", "!")),
        st.one_of(st.none(), st.integers(0, 5).map(lambda n: f"group {n}")),
        st.sampled_from("aaab"),
        st.one_of(st.none(), st.sampled_from((0.0, 1.0))),
    ),
    max_size=14,
)


@settings(max_examples=60, deadline=None)
@given(parts=st.lists(ROWS, min_size=1, max_size=4), data=st.data())
def test_whatever_is_added_and_wherever_no_text_and_no_group_changes_its_split(
    parts: list[list[Row]], data: st.DataObject
) -> None:
    """A part is added at any place among those that are there, as one is whose name sorts before theirs."""
    together: list[list[Row]] = []
    texts: dict[str, str] = {}
    groups: dict[str, str] = {}
    for part in parts:
        together.insert(data.draw(st.integers(0, len(together))), part)
        found, _ = splits_of([row for each in together for row in each])
        for split, rows in found.items():
            for one in rows:
                assert texts.setdefault(one.key, split) == split
                if one.group is not None:
                    assert groups.setdefault(one.group, split) == split


def test_a_split_is_the_hash_of_seed_and_letters_against_the_shares() -> None:
    """The rule written out: the first eight bytes of the SHA-256 as a draw between 0 and 1."""
    rows = [row(number, f"Text, number {number}!") for number in range(400)]
    found, rejected = splits_of(rows)
    for split, own in found.items():
        for one in own:
            digest = hashlib.sha256(f"{SEED}\x1f{near_key(one.key)}".encode()).digest()
            draw = int.from_bytes(digest[:8], "big") / 2**64
            assert split == ("test" if draw < 0.3 else "validation" if draw >= 0.7 else "train")
    assert sum(map(len, found.values())) == 400
    assert rejected == {}
    # 400 draws of 0.3: 120, with a standard deviation of 9.2; three of them
    assert abs(len(found["test"]) - 120) < 28
    assert abs(len(found["validation"]) - 120) < 28


def test_a_share_that_is_changed_moves_nothing_between_validation_and_test() -> None:
    rows = [row(number, f"text {number}") for number in range(200)]
    before, _ = splits_of(rows)
    after, _ = splits_of(rows, GrowingParams(validation=0.5, test=0.1))
    keys = {split: ({one.key for one in before[split]}, {one.key for one in after[split]}) for split in before}
    assert keys["test"][1] < keys["test"][0]
    assert keys["validation"][0] < keys["validation"][1]
    assert not keys["test"][0] & keys["validation"][1]


def test_a_text_in_groups_of_two_splits_is_in_none() -> None:
    by_split = {split: own[0].key for split, own in splits_of([row(n, f"g{n}") for n in range(50)])[0].items()}
    torn = [row(1, "one text", group=by_split["test"]), row(2, "one text", group=by_split["train"])]
    for order in (torn, torn[::-1]):
        found, rejected = splits_of([*order, row(3, "another", group=by_split["test"])])
        assert {split: [one.key for one in own] for split, own in found.items()} == {
            "train": [], "validation": [], "test": ["another"],
        }  # fmt: skip
        assert rejected == {TORN: 2}


def test_a_text_of_the_test_source_is_in_no_other_split_whatever_its_group() -> None:
    fixed = [row(n, f"text {n}", group="fixed") for n in range(20)]
    found, rejected = splits_of(
        [row(n, f"text {n}", group=f"other {n}") for n in range(40)],
        GrowingParams(validation=0.3, test=None), test=fixed,
    )  # fmt: skip
    assert len(found["test"]) == 20
    assert rejected == {"the text is also in the test source": 20}
    assert {one.key for own in found.values() for one in own} == {f"text {n}" for n in range(40)}
    assert len(found["validation"]) > 0


def test_too_few_rows_in_a_split_are_an_error_that_names_it() -> None:
    with pytest.raises(PipelineError, match=r"train split must have at least prepare.train_rows = 9 rows.*Got: \d;"):
        splits_of([row(n, f"text {n}") for n in range(12)], least=9)
