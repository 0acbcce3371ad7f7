"""What a store keeps in memory, which rows it has computed together, and what becomes of what is not there any more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from reft.cone.constants import Constants, ConstantStore, Ids, RowKey, Want
from reft.cone.files import ConstantFiles

BIG = 1 << 30


def constants(numbers: int) -> Constants:
    return Constants({(0, ()): torch.zeros(1, numbers)})


def test_what_is_in_use_is_not_pushed_out_of_memory() -> None:
    """Rows read in turns that do not all fit would each push out the next, and none would be found."""
    store = ConstantStore(10_000, None, [], "")
    want = Want(frozenset([(0, ())]))
    made: list[int] = []

    def compute(wanted: Mapping[RowKey, Want]) -> list[Constants]:
        made.extend(row[0][0] for row in wanted)
        return [constants(1000) for _ in wanted]  # 4000 bytes

    def use(*rows: int) -> list[int]:
        made.clear()
        for row in rows:
            store.get(((row,),), want, compute)
        return list(made)

    store.begin()
    assert use(0, 1, 2) == [0, 1, 2]
    assert use(0, 1, 2, 0, 1, 2) == [2, 2]
    store.begin()
    assert use(1, 3) == [3]  # pushes out 0, the oldest
    assert use(1, 3, 0) == [0]
    assert store.nbytes == 8000


def test_rows_to_come_are_computed_beside_one_of_their_shape_while_there_is_room(tmp_path: Path) -> None:
    want, other = Want(frozenset([(0, ())])), Want(frozenset([(1, ())]))
    made: list[list[Ids]] = []

    def compute(wanted: Mapping[RowKey, Want]) -> list[Constants]:
        made.append([row[0] for row in wanted])
        return [Constants({next(iter(each.outputs)): torch.zeros(len(row[0]), 250)}) for row, each in wanted.items()]

    def use(store: ConstantStore, rows: Sequence[Ids]) -> list[list[Ids]]:
        made.clear()
        for row in rows:
            store.get((row,), want, compute)
        return list(made)

    rows: list[Ids] = [(1,), (2,), (3, 4), (5,), (6, 7), (8,)]
    files = ConstantFiles(tmp_path, BIG)
    store = ConstantStore(BIG, files, [], "b")
    store.begin(((row,), other if row == (5,) else want) for row in rows)
    assert use(store, rows) == [[(1,)], [(2,), (8,)], [(3, 4), (6, 7)], [(5,)]]  # the first tells how large they are
    store.begin(((row,), want) for row in rows)
    assert use(store, rows) == []
    again = ConstantStore(BIG, files, [], "b")
    again.begin(((row,), want) for row in [*rows, (9,), (10,)])
    assert use(again, [(9,), (10,), *rows]) == [[(9,)], [(10,)]]
    small = ConstantStore(3000, None, [], "b")
    small.begin(((row,), want) for row in rows)
    assert use(small, rows) == [[(1,)], [(2,), (5,)], [(3, 4)], [(6, 7)], [(8,)]]
    assert small.nbytes == 3000


def test_rows_of_about_one_length_are_computed_together_but_not_with_what_continues_them() -> None:
    """33 and 34 tokens are both made 34."""
    bare, continued = Want(frozenset([(0, ())])), Want(frozenset([(0, ()), (0, (7,))]))
    made: list[list[int]] = []

    def compute(wanted: Mapping[RowKey, Want]) -> list[Constants]:
        made.append([len(row[0]) for row in wanted])
        return [Constants({output: torch.zeros(1, 4) for output in want.outputs}) for want in wanted.values()]

    for want, together in ((bare, [[32], [33, 34, 33], [35]]), (continued, [[32], [33, 33], [34], [35]])):
        store = ConstantStore(BIG, None, [], "")
        rows: list[RowKey] = [((place,) * tokens,) for place, tokens in enumerate((32, 33, 34, 33, 35))]
        store.begin((row, want) for row in rows)
        made.clear()
        for row in rows:
            store.get(row, want, compute)
        assert made == together


def test_a_file_that_another_process_removes_meanwhile_loses_no_part(tmp_path: Path) -> None:
    first, both = Want(frozenset([(0, ())])), Want(frozenset([(0, ()), (1, ())]))

    def compute(wanted: Mapping[RowKey, Want]) -> list[Constants]:
        for path in tmp_path.rglob("*.safetensors"):
            path.unlink()
        return [Constants({output: torch.ones(1, 4) for output in want.outputs}) for want in wanted.values()]

    store = ConstantStore(0, ConstantFiles(tmp_path, BIG), [], "b")
    store.get(((1,),), first, compute)
    assert not both.without(store.get(((1,),), both, compute).extent)


def test_rows_of_a_training_are_still_to_come_after_a_report() -> None:
    want = Want(frozenset([(0, ())]))
    made: list[int] = []

    def compute(wanted: Mapping[RowKey, Want]) -> list[Constants]:
        made.append(len(wanted))
        return [constants(4) for _ in wanted]

    store = ConstantStore(BIG, None, [], "")
    store.begin([(((row,),), want) for row in range(40)])
    store.get(((0,),), want, compute)
    store.begin([(((100,),), want)])
    store.get(((100,),), want, compute)
    store.get(((30,),), want, compute)
    assert made == [1, 16, 16]
    store.begin()
    store.begin()
    store.get(((39,),), want, compute)
    assert made[3:] == [1]
