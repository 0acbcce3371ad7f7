"""What does not change while a frozen base's interventions train, kept by row: in memory, and on disk.

Every constant has the bits of one way to compute it (:mod:`reft.cone.compute`): from its row alone, by a batch of
one. So they follow from base, row, layer, dtype, device and threads, and from neither the other rows nor
what was kept: computed, kept in memory or read from disk, it is the same.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from reft.cone.files import ConstantFiles
from reft.cone.side_by_side import by_twos, padded_length
from reft.files import canonical_json

Ids = tuple[int, ...]

RowKey = tuple[Ids, ...]
"""What the base reads of a row: its tokens, and segments where it has them."""

Output = tuple[int, Ids]
"""A layer, and a continuation of the row: the layer's output before any edit, at the continuation's tokens, which come
after the row's; at the row's own tokens where the continuation is empty."""

Shape = tuple[Hashable, ...]


@dataclass(frozen=True)
class Want:
    """Which constants of a row.

    Attributes:
        outputs: of layers, at tokens.
        lowest: keys and values of this layer and those above it, at all tokens but the last; None for none.
    """

    outputs: frozenset[Output]
    lowest: int | None = None

    def without(self, there: Want) -> Want:
        """Return what is wanted beside what is there."""
        has_keys = self.lowest is None or (there.lowest is not None and there.lowest <= self.lowest)
        return Want(self.outputs - there.outputs, None if has_keys else self.lowest)

    def shape(self, row: RowKey) -> Shape:
        """Return what rows have in common that run side by side: their lengths as they run, and the layers that do.

        What continues a row stands behind its own tokens, so these are then as many.
        """
        own = frozenset(layer for layer, after in self.outputs if not after)
        behind = max((layer for layer, after in self.outputs if after), default=-1)
        return _lengths(row) if behind >= 0 else _padded(row), own, behind, self.lowest

    def __bool__(self) -> bool:
        """Whether anything is wanted."""
        return bool(self.outputs) or self.lowest is not None


@dataclass(frozen=True)
class Constants:
    """Constants of one row, on the CPU, contiguous, in the base's dtype.

    Attributes:
        outputs: each [tokens, hidden].
        lowest: the lowest layer of ``keys_values``; None for none.
        keys_values: [layers from ``lowest`` up, 2, heads, tokens - 1, dim].
    """

    outputs: Mapping[Output, Tensor]
    lowest: int | None = None
    keys_values: Tensor | None = None

    @property
    def extent(self) -> Want:
        """What is here."""
        return Want(frozenset(self.outputs), self.lowest)

    @property
    def nbytes(self) -> int:
        """Memory that the tensors take."""
        return sum(tensor.nbytes for tensor in self.tensors().values())

    def joined(self, newer: Constants) -> Constants:
        """Return both rows' worth: the same row's constants from two computations."""
        keys = self if newer.keys_values is None else newer
        return Constants({**self.outputs, **newer.outputs}, keys.lowest, keys.keys_values)

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by name; :meth:`from_tensors` reads them back."""
        named = {f"output/{place}": self.outputs[output] for place, output in enumerate(sorted(self.outputs))}
        return named if self.keys_values is None else {**named, "keys_values": self.keys_values}

    def record(self) -> dict[str, Any]:
        """Return what the tensors' names leave out, as plain JSON values."""
        return {"lowest": self.lowest, "outputs": [[layer, list(ids)] for layer, ids in sorted(self.outputs)]}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> Constants:
        """Build what :meth:`tensors` and :meth:`record` describe."""
        outputs = {
            (layer, tuple(ids)): tensors[f"output/{place}"] for place, (layer, ids) in enumerate(record["outputs"])
        }
        return cls(outputs, record["lowest"], tensors.get("keys_values"))


Compute = Callable[[Mapping[RowKey, Want]], list[Constants]]
"""What computes constants of rows of one shape, each as if it were alone, in the rows' order."""

MOST = 16
"""Rows that are computed side by side at most; more are not faster."""

TOKENS = 512
"""Tokens of these rows together, but of one row any number."""


@dataclass
class _Entry:
    constants: Constants
    size: int
    used: int


class ConstantStore:
    """Constants of one base's rows: in memory up to a budget, and in files.

    Past the budget, what was not used since :meth:`begin` goes, the oldest first; if there is no such thing, the new is
    not kept. (Rows that are read in turns and do not all fit would each push out the next.)

    Args:
        memory: bytes of the kept tensors.
        files: where they are kept between processes; None for nowhere.
        identity: plain JSON values of all that the bits follow from beside the row and the code here.
        base: name of the base's folder among the files.
    """

    def __init__(self, memory: int, files: ConstantFiles | None, identity: Sequence[Any], base: str) -> None:
        self._memory = memory
        self._files = files
        self._identity = list(identity)
        self._base = base
        self._kept: OrderedDict[RowKey, _Entry] = OrderedDict()
        self._use = 0
        self._in_use = 0  # of the bytes kept, those that this use has had
        self._announced: frozenset[RowKey] = frozenset()  # by the last begin
        self._ahead: dict[RowKey, Want] = {}  # and by the one before, as far as they were not had
        self._of_length: dict[tuple[int, ...], list[RowKey]] = {}  # rows ahead that were not looked at yet
        self._lacking: dict[Shape, dict[RowKey, Want]] = {}  # those that were
        self._per_token = 0.0  # bytes, at most
        self.nbytes = 0
        """Memory that the kept tensors take."""
        self.seconds = 0.0
        """Spent on computing and writing what was kept nowhere."""

    def begin(self, ahead: Iterable[tuple[RowKey, Want]] = ()) -> None:
        """Start another use of the rows, a training or a scoring; what was used before it may go.

        Args:
            ahead: rows that will be asked for, which may be computed beside another of their shape. Those of the use
                before that were not, still may be.
        """
        self._use += 1
        self._in_use = 0
        left = {row: want for row, want in self._ahead.items() if row in self._announced}  # by a training that goes on
        announced = dict(ahead)
        self._announced = frozenset(announced)
        self._ahead = {**left, **announced}
        self._of_length = {}
        for row in self._ahead:
            self._of_length.setdefault(_padded(row), []).append(row)
        self._lacking = {}
        if self._files is not None:
            self._files.begin()

    def get(self, row: RowKey, want: Want, compute: Compute) -> Constants:
        """Return a row's constants, at least what is wanted; ``compute`` makes what is kept nowhere."""
        self._ahead.pop(row, None)
        there = self._there(row)
        missing = want if there is None else want.without(there.extent)
        if there is not None and not missing:
            return there
        started = time.perf_counter()
        wanted = {row: missing, **self._mates(row, missing)}
        own, *others = compute(wanted)
        constants = self._add(row, own, there)
        for mate, newer in zip(list(wanted)[1:], others, strict=True):
            self._add(mate, newer, self._there(mate))
        self.seconds += time.perf_counter() - started
        return constants

    def _there(self, row: RowKey) -> Constants | None:
        """Return what is kept of a row, in memory from now on if there is room."""
        entry = self._kept.get(row)
        if entry is None:
            read = self._read(row)
            return None if read is None else self._keep(row, read, mapped=True)
        if entry.used != self._use:
            entry.used = self._use
            self._in_use += entry.size
        self._kept.move_to_end(row)
        return entry.constants

    def _add(self, row: RowKey, newer: Constants, there: Constants | None) -> Constants:
        constants = newer if there is None else there.joined(newer)
        self._per_token = max(self._per_token, constants.nbytes / sum(_lengths(row)))
        if self._files is not None:
            self._files.write(self._name(row), self._base, constants.tensors(), constants.record())
        return self._keep(row, constants, mapped=there is not None and row not in self._kept)

    def _mates(self, row: RowKey, missing: Want) -> dict[RowKey, Want]:
        """Return rows to come of the same shape, as many as are run beside this one and can be kept."""
        tokens = sum(_padded(row))
        if not self._ahead or 2 * tokens > TOKENS:
            return {}
        self._sort_out(_padded(row))
        room = (
            (self._memory - self._in_use) / (self._per_token * tokens) if self._per_token else 0
        )  # the first row tells
        most = max(by_twos(max(1, min(MOST, TOKENS // tokens, int(room))))) - 1
        alike = self._lacking.get(missing.shape(row), {})
        mates: dict[RowKey, Want] = {}
        while alike and len(mates) < most:
            mate = next(iter(alike))
            lacking = alike.pop(mate)
            if self._ahead.pop(mate, None) is not None:  # not had since
                mates[mate] = lacking
        return mates

    def _sort_out(self, lengths: tuple[int, ...]) -> None:
        """Find out what the rows to come of these lengths lack."""
        for row in self._of_length.pop(lengths, ()):
            want = self._ahead.get(row)
            there = None if want is None else self._there(row)
            if want is not None and (lacking := want if there is None else want.without(there.extent)):
                self._lacking.setdefault(lacking.shape(row), {})[row] = lacking

    def _read(self, row: RowKey) -> Constants | None:
        if self._files is None:
            return None
        found = self._files.read(self._name(row), self._base)
        return None if found is None else Constants.from_tensors(*found)

    def _name(self, row: RowKey) -> str:
        return hashlib.sha256(canonical_json([self._identity, row])).hexdigest()[:40]

    def _keep(self, row: RowKey, constants: Constants, *, mapped: bool) -> Constants:
        """Keep constants in memory if there is room; what a file is mapped to is copied, so that the file may go."""
        self._drop(row)
        size = constants.nbytes
        while self.nbytes + size > self._memory and self._kept:
            oldest = next(iter(self._kept))
            if self._kept[oldest].used == self._use:
                return constants
            self._drop(oldest)
        if size > self._memory:
            return constants
        if mapped:
            copies = {name: tensor.clone() for name, tensor in constants.tensors().items()}
            constants = Constants.from_tensors(copies, constants.record())
        self._kept[row] = _Entry(constants, size, self._use)
        self.nbytes += size
        self._in_use += size
        return constants

    def _drop(self, row: RowKey) -> None:
        entry = self._kept.pop(row, None)
        if entry is not None:
            self.nbytes -= entry.size
            self._in_use -= entry.size if entry.used == self._use else 0


def _lengths(row: RowKey) -> tuple[int, ...]:
    return tuple(len(part) for part in row)


def _padded(row: RowKey) -> tuple[int, ...]:
    return tuple(padded_length(len(part)) for part in row)
