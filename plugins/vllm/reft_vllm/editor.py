"""What a worker edits: adapters in banks, a layer each, and for each pass which of its tokens are whose.

The model's layers call ``torch.ops.reft.edit`` behind themselves. That is a custom operator with a fake of its own, so
that a traced graph holds it as one node and asks for the edits of the moment when it runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from reft_vllm.adapter import Adapter
from reft_vllm.bank import Bank, Entry, Tiles, apply, make_tiles
from reft_vllm.positions import Range

_EDITORS: WeakValueDictionary[int, Editor] = WeakValueDictionary()
_LIBRARY = torch.library.Library("reft", "FRAGMENT")
_LIBRARY.define("edit(Tensor(a!) hidden, Tensor(b!)? residual, int editor, int layer) -> ()")


@dataclass(frozen=True)
class Asked:
    """What a request asks of an editor.

    Attributes:
        key: of the adapter.
        edited: of each of the adapter's groups, the edited positions.
    """

    key: str
    edited: tuple[tuple[Range, ...], ...]

    @property
    def end(self) -> int:
        """The first position behind all edits."""
        return max((stop for ranges in self.edited for _, stop in ranges), default=0)


@dataclass(frozen=True)
class Scheduled:
    """The tokens of a request in a pass: ``count`` from the position ``start`` on."""

    request: str
    start: int
    count: int


class Editor:
    """The adapters of one model in one process.

    Args:
        hidden: width of the hidden states.
        device: where they are.
    """

    def __init__(self, hidden: int, device: torch.device) -> None:
        self._hidden = hidden
        self._device = device
        self._banks: dict[int, Bank] = {}
        self._places: dict[str, tuple[tuple[tuple[int, int], ...], ...]] = {}  # key -> group -> (layer, row)
        self._requests: dict[str, tuple[Asked, int]] = {}
        self._tiles: dict[int, Tiles] = {}
        self._hooks: list[Any] = []
        self.number = max(_EDITORS, default=0) + 1
        _EDITORS[self.number] = self

    def attach(self, layers: Mapping[int, nn.Module]) -> None:
        """Edit the outputs of these layers from now on."""
        for layer, module in layers.items():
            self._hooks.append(module.register_forward_hook(_hook(self.number, layer)))

    @property
    def bytes(self) -> int:
        """What the adapters take, with the room that is kept for more."""
        return sum(bank.bytes for bank in self._banks.values())

    @property
    def keys(self) -> tuple[str, ...]:
        """The adapters that are in."""
        return tuple(self._places)

    def put(self, adapter: Adapter) -> None:
        """Put an adapter in; one that is in stays."""
        if adapter.key in self._places:
            return
        self._places[adapter.key] = tuple(
            tuple((layer, self._bank(layer).add(form)) for layer, form in group.forms.items())
            for group in adapter.groups
        )

    def drop(self, key: str) -> None:
        """Take an adapter out, if it is in."""
        for places in self._places.pop(key, ()):
            for layer, row in places:
                self._banks[layer].remove(row)

    def begin(self, request: str, asked: Asked) -> None:
        """Take in a request; what was known of one of the same name is forgotten."""
        self._requests[request] = (asked, asked.end)

    def end(self, requests: Iterable[str]) -> None:
        """Forget requests."""
        for request in requests:
            self._requests.pop(request, None)

    def plan(self, batch: Iterable[Scheduled]) -> None:
        """Find what the coming pass edits; its rows are the requests' tokens, one request behind the other."""
        wanted: dict[int, list[Entry]] = {}
        offset = 0
        for each in batch:
            asked, end = self._requests.get(each.request, (None, 0))
            if asked is not None and each.start < end:
                self._add(wanted, asked, each, offset)
            offset += each.count
        made: dict[tuple[Entry, ...], Tiles] = {}
        for layer, entries in wanted.items():
            key = tuple(entries)  # most layers have the same tokens in the same rows, and share their tiles
            if key not in made:
                made[key] = make_tiles(key, self._device)
            self._tiles[layer] = made[key]

    def clear(self) -> None:
        """Edit nothing until the next plan."""
        self._tiles = {}

    def edits(self, layer: int) -> bool:
        """Whether the pass edits anything at a layer."""
        return layer in self._tiles

    def edit(self, layer: int, hidden: Tensor, residual: Tensor | None) -> None:
        """Edit a layer's output in place."""
        tiles = self._tiles.get(layer)
        if tiles is not None:
            apply(self._banks[layer], tiles, hidden, residual)

    def _add(self, wanted: dict[int, list[Entry]], asked: Asked, each: Scheduled, offset: int) -> None:
        stop = each.start + each.count
        for places, ranges in zip(self._places[asked.key], asked.edited, strict=True):
            for first, last in ranges:
                first, last = max(first, each.start), min(last, stop)
                if first < last:
                    begin = offset + first - each.start
                    for layer, row in places:
                        wanted.setdefault(layer, []).append((row, begin, begin + last - first))

    def _bank(self, layer: int) -> Bank:
        if layer not in self._banks:
            self._banks[layer] = Bank(self._hidden, self._device)
        return self._banks[layer]


def _hook(editor: int, layer: int) -> Any:
    def hook(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        # A graph holds the operator whatever the pass at tracing edits; an eager pass without edits need not call it.
        if torch.compiler.is_compiling() or _EDITORS[editor].edits(layer):
            hidden, residual = output if isinstance(output, tuple) else (output, None)
            torch.ops.reft.edit(hidden, residual, editor, layer)

    return hook


def _edit(hidden: Tensor, residual: Tensor | None, editor: int, layer: int) -> None:
    _EDITORS[editor].edit(layer, hidden, residual)


def _edit_fake(_hidden: Tensor, _residual: Tensor | None, _editor: int, _layer: int) -> None:
    return None


_LIBRARY.impl("edit", _edit, "CompositeExplicitAutograd")
torch.library.register_fake("reft::edit", _edit_fake, lib=_LIBRARY)
