"""Whether rows that run side by side have the bits of each alone.

A processor may give a row other bits beside others than alone, in two ways:

- A matrix product is computed by tiles of tokens, and tokens at an edge in another order. Which ones follows from the
  product's shape and the number of tokens, not from the numbers. So one layer of each kind is run in both ways the
  first time that so many rows of a length are to run, and what its modules take and give is compared bit for bit.
- An activation is computed by vectors of numbers, and those left over one by one, by another formula. It differs
  seldom, so that trying does not show it. So rows whose activations do not fill their vectors are told by counting.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from reft.edits.hooks import Stack

PassShape = tuple[int, int, int]
"""Tokens before a pass, tokens in it, and rows."""

_BITS = 5  # of a padded length that are not 0 at its end: a row is at most a sixteenth longer
_FEW = 32  # numbers of a token that may have the same bits by chance
_VECTORS = 64  # numbers that a processor's vector loop takes at once, at most: bf16 in two registers of 512 bits
_SHARE = 1 << 15  # numbers that torch does not split between threads


@dataclass
class SideBySide:
    """What was found out, for one base on one machine.

    Attributes:
        same: shape of a pass and first layer of a kind -> whether each row had the bits of it alone.
    """

    same: dict[tuple[PassShape, int], bool] = field(default_factory=dict)
    _kinds: list[int] = field(default_factory=list)

    def kinds(self, stack: Stack) -> Sequence[int]:
        """Return for each layer the first layer of its kind: of equal modules, settings, and shapes of weights."""
        if not self._kinds:
            first: dict[Any, int] = {}
            self._kinds = [first.setdefault(_kind(layer), number) for number, layer in enumerate(stack.layers)]
        return self._kinds


@dataclass(frozen=True)
class Watched:
    """What a layer's modules took and gave in one pass, in the order of their calls.

    Attributes:
        tensors: each [rows, ...].
        activations: numbers that each module without weights gave.
        narrowest: numbers that a module with weights gave for each token, at least.
    """

    tensors: list[Tensor] = field(default_factory=list)
    activations: list[int] = field(default_factory=list)
    narrowest: list[int] = field(default_factory=list)

    def row(self, row: int, rows: int) -> list[Tensor]:
        """Return the part of one of the rows of each tensor; nothing of one that has none."""
        return [each.reshape(rows, -1)[row] if each.numel() % rows == 0 else each[:0] for each in self.tensors]


@contextmanager
def watched(stack: Stack, layers: Collection[int], tokens: int) -> Iterator[Mapping[int, Watched]]:
    """Note what goes into and comes out of the modules of some layers inside the context.

    Args:
        stack: the base's layers.
        layers: which of them.
        tokens: of all rows together.
    """
    found = {layer: Watched() for layer in layers}

    def note(own: Watched, module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        taken, left = _floats(given), _floats(output)
        own.tensors.extend(each.detach().clone() for each in left)
        if any(True for _ in module.children()):
            return
        if any(True for _ in module.parameters()):
            own.tensors.extend(each.detach().clone() for each in taken)
            own.narrowest.append(sum(each.numel() for each in left) // tokens)
        else:
            unchanged = {each.data_ptr() for each in taken}  # as by dropout in evaluation
            own.activations.extend(each.numel() for each in left if each.data_ptr() not in unchanged)

    with ExitStack() as undo:
        for layer, own in found.items():
            for module in stack.layers[layer].modules():
                hook = module.register_forward_hook(lambda *call, own=own: note(own, *call))
                undo.callback(hook.remove)
        yield found


def agree(together: Watched, alone: Sequence[Watched], threads: int) -> bool:
    """Whether each row has the bits of it alone, and will have them whatever the numbers are.

    Args:
        together: a layer in a pass of several rows.
        alone: the same layer in a pass of each.
        threads: that a pass runs in.
    """
    if min(together.narrowest, default=0) < _FEW or not all(
        whole_vectors(numbers, threads) for each in (together, *alone) for numbers in each.activations
    ):
        return False
    return all(
        len(together.tensors) == len(each.tensors) and all(map(_equal, together.row(row, len(alone)), each.row(0, 1)))
        for row, each in enumerate(alone)
    )


def whole_vectors(numbers: int, threads: int) -> bool:
    """Whether an elementwise operation leaves no number over, neither at its end nor at that of a thread's share."""
    shares = min(threads, -(-numbers // _SHARE))
    return numbers % _VECTORS == 0 and -(-numbers // max(shares, 1)) % _VECTORS == 0


def by_twos(rows: int) -> list[int]:
    """Return numbers of rows that run side by side, of which there are few: powers of two, the largest first."""
    return [1 << bit for bit in reversed(range(rows.bit_length())) if rows >> bit & 1]


def padded_length(tokens: int) -> int:
    """Return how long rows of so many tokens are made, so that those of about one length run side by side.

    It follows from the row alone, so that a row has the same bits whatever others there are.
    """
    step = 1 << max(0, (tokens - 1).bit_length() - _BITS)
    return -(-tokens // step) * step


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)


def _floats(values: Any) -> list[Tensor]:
    several = values if isinstance(values, tuple) else (values,)
    return [each for each in several if isinstance(each, Tensor) and each.is_floating_point()]


def _kind(layer: nn.Module) -> Any:
    """Return what a layer's operations follow from, beside their number of tokens."""
    modules = []
    for name, module in layer.named_modules():
        settings = {key: value for key, value in vars(module).items() if isinstance(value, int | float | str)}
        settings.pop("layer_idx", None)
        modules.append((name, type(module), tuple(sorted(settings.items()))))
    tensors = [
        (name, each.dtype, each.shape, each.stride(), each.data_ptr() % 64)
        for name, each in [*layer.named_parameters(), *layer.named_buffers()]
    ]
    return tuple(modules), tuple(tensors)
