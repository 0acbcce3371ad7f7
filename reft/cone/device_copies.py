"""Copies of constants on an accelerator, so that a step neither reads them through the bus nor waits for them."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch

from reft.cone.constants import Constants, RowKey
from reft.data import to_device


@dataclass
class _Copy:
    source: Constants  # whose copy it is: a row's constants may be joined by others
    copy: Constants
    size: int
    used: int


class DeviceCopies:
    """Copies of rows' constants on one accelerator, as long as they fit.

    They may take half of the memory that is free when a use of rows begins, beside what is here by then: what is free
    after a first step is what passes do not need. A row that finds no room is copied anew each time. Where a constant
    lies changes none of its bits.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[RowKey, _Copy] = OrderedDict()
        self._use = 0
        self._room = 0
        self.nbytes = 0
        """Memory of the accelerator that the copies take."""

    def begin(self, device: torch.device) -> None:
        """Start another use of rows: what was used before it may make room."""
        self._use += 1
        self._room = self.nbytes + free_memory(device) // 2

    def of(self, row: RowKey, constants: Constants, device: torch.device) -> Constants:
        """Return a row's constants on a device; as they are where that is the CPU."""
        if device.type == "cpu":
            return constants
        there = self._kept.get(row)
        if there is not None and there.source is constants:
            there.used = self._use
            self._kept.move_to_end(row)
            return there.copy
        self._drop(row)
        copy = Constants(
            {output: to_device(tensor, device) for output, tensor in constants.outputs.items()},
            constants.lowest,
            None if constants.keys_values is None else to_device(constants.keys_values, device),
        )
        if self._has_room(constants.nbytes):
            self._kept[row] = _Copy(constants, copy, constants.nbytes, self._use)
            self.nbytes += constants.nbytes
        return copy

    def _has_room(self, size: int) -> bool:
        """Whether so many bytes can be kept, once rows of earlier uses have made room for them."""
        while self.nbytes + size > self._room and self._kept:
            oldest = next(iter(self._kept))
            if self._kept[oldest].used == self._use:
                return False
            self._drop(oldest)
        return self.nbytes + size <= self._room

    def _drop(self, row: RowKey) -> None:
        entry = self._kept.pop(row, None)
        if entry is not None:
            self.nbytes -= entry.size


def free_memory(device: torch.device) -> int:
    """Return the bytes of an accelerator's memory that are free; 0 where its backend does not say."""
    if device.type == "cpu":
        return 0
    tell = getattr(torch.get_device_module(device), "mem_get_info", None)
    return 0 if tell is None else int(tell(device)[0])
