"""Drawing a mixture's training rows: how many of each task, which, and none that another task measures on."""

from __future__ import annotations

import hashlib
import heapq
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipelines.contracts.prepared import Row, Split
from pipelines.errors import PipelineError
from pipelines.tasks.row_store import RowStore, StoredSplit, encoded
from pipelines.tasks.rows import split_digest

# A text of the splits on the right may not stand in the split on the left of another task.
_KEPT_FROM: dict[Split, tuple[Split, ...]] = {"validation": ("test",), "train": ("test", "validation")}


def shares(total: int, weights: Mapping[str, float], caps: Mapping[str, int]) -> dict[str, int]:
    """How many rows each task gives: in proportion to the weights, but none more than its cap.

    What a task with too few rows lacks, the others give in proportion to their weights. Parts of rows go to the largest
    remainders, the first of equal ones first.

    Raises:
        PipelineError: if all tasks together have fewer rows, or one would give none.
    """
    if total > sum(caps.values()):
        raise PipelineError(
            f"the tasks must have prepare.train_rows, {total}, training rows together",
            got=f"{sum(caps.values())}, without those that another task measures on",
            do=f"Lower prepare.train_rows to {sum(caps.values())}, or raise train_rows of tasks.",
        )
    found: dict[str, int] = {}
    while True:
        others, left = [name for name in weights if name not in found], total - sum(found.values())
        whole = sum(weights[name] for name in others)
        quotas = {name: left * weights[name] / whole for name in others}
        full = [name for name in others if quotas[name] >= caps[name]]
        if not full:
            break
        found |= {name: caps[name] for name in full}
    found |= {name: math.floor(quota) for name, quota in quotas.items()}
    by_remainder = sorted(quotas, key=lambda name: found[name] - quotas[name])
    for name in by_remainder[: total - sum(found.values())]:
        found[name] += 1
    if empty := [name for name in weights if found[name] == 0]:
        raise PipelineError(
            "each task of a mixture must give a training row",
            got=f"none of {', '.join(empty)}",
            do="Raise its weight, or prepare.train_rows.",
        )
    return {name: found[name] for name in weights}


def reject_measured(stores: Mapping[str, RowStore]) -> None:
    """Take out of each task's training rows what another validates or tests on, and of its validation rows the latter.

    A task's test rows are the same as without the others.
    """
    held = {name: {split: _units(store, split) for split in ("test", "validation")} for name, store in stores.items()}
    for name, store in stores.items():
        others = [(other, own) for other, own in held.items() if other != name]
        for split, kept_from in _KEPT_FROM.items():
            found = []
            for number, key, unit in store.database.execute("SELECT n, key, unit FROM rows WHERE split = ?", (split,)):
                own = {_short(key), _short(unit)}
                where = ((other, each) for each in kept_from for other, units in others if own & units[each])
                found += [(number, *place) for place in itertools.islice(where, 1)]
            for number, other, measured in sorted(found):
                row = store.row(number)
                store.note(row.reject(f"the text is also in the {measured} split of {other}", row.prompt), number)
                store.database.execute("UPDATE rows SET split = NULL WHERE n = ?", (number,))


def draw(store: RowStore, task: str, count: int, seed: int) -> int:
    """Keep so many of a task's training rows, which the seed and their texts choose; return how many are left out."""
    query = "SELECT key, n FROM rows WHERE split = 'train'"
    chosen = heapq.nsmallest(count, ((_place(seed, task, key), n) for key, n in store.database.execute(query)))
    before = int(store.value("SELECT count(*) FROM rows WHERE split = 'train'"))
    store.database.execute("UPDATE rows SET split = NULL WHERE split = 'train'")
    store.database.executemany("UPDATE rows SET split = 'train' WHERE n = ?", [(number,) for _, number in chosen])
    return before - len(chosen)


class MixedSplit(Sequence[Row]):
    """The rows of a split of all tasks, each with its task's name, in the order of one store."""

    def __init__(self, stores: Mapping[str, RowStore], split: Split, seed: int) -> None:
        self._parts, self._seed = {name: StoredSplit(store, split) for name, store in stores.items()}, seed

    def __len__(self) -> int:
        return sum(map(len, self._parts.values()))

    def __iter__(self) -> Iterator[Row]:
        named = [_named(name, rows) for name, rows in self._parts.items()]
        return heapq.merge(*named, key=lambda row: (split_digest(self._seed, row.key), encoded(row.key)))

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return list(itertools.islice(self, *place.indices(len(self))))
        return next(itertools.islice(self, range(len(self))[place], None))


def _named(task: str, rows: Iterable[Row]) -> Iterator[Row]:
    return (replace(row, task=task) for row in rows)


def _units(store: RowStore, split: Split) -> set[bytes]:
    """The texts and groups of a split's rows, shortened."""
    found = store.database.execute("SELECT key, unit FROM rows WHERE split = ?", (split,))
    return {_short(each) for row in found for each in row}


def _short(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=16).digest()


def _place(seed: int, task: str, key: bytes) -> bytes:
    return hashlib.sha256(f"{seed}\x1f{task}\x1f".encode() + key).digest()
