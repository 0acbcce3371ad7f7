"""The edits of a layer, of all adapters, stacked: a batch under many adapters takes one gathered low-rank product."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from reft_vllm.forms import ACTIVATIONS, Diagonal, Form, LowRank

_LINEAR = 0
_CODES = {name: code for code, name in enumerate(ACTIVATIONS)}
_FUNCTIONS = tuple(ACTIVATIONS.values())


@dataclass(frozen=True)
class Tiles:
    """Edited tokens of a pass, cut into tiles of as many tokens, each under one edit.

    Attributes:
        tokens: the flat places of the edited tokens, [edited].
        gathered: the same in tiles, padded with a tile's own first token, [tiles * width].
        rows: the row of each tile's edit in the bank, [tiles].
        kept: the places in ``gathered`` of those in ``tokens``, [edited]; None where no tile is padded.
        width: tokens of a tile.
    """

    tokens: Tensor
    gathered: Tensor
    rows: Tensor
    kept: Tensor | None
    width: int


class Bank:
    """The edits at one layer; each has a row, which keeps its number until it is removed.

    Args:
        hidden: width of the hidden states.
        device: where they are.
    """

    def __init__(self, hidden: int, device: torch.device) -> None:
        self._hidden = hidden
        self._device = device
        self._free: list[int] = []
        self._down = torch.zeros(0, 1, hidden, device=device)
        self._up = torch.zeros(0, 1, hidden, device=device)
        self._bias = torch.zeros(0, 1, device=device)
        self._codes = torch.zeros(0, 1, dtype=torch.int8, device=device)
        self._diagonal: tuple[Tensor, Tensor] | None = None
        self._used: dict[int, Form] = {}
        self._active: tuple[int, ...] = ()  # the codes of activations that some row has

    def __len__(self) -> int:
        return len(self._used)

    @property
    def bytes(self) -> int:
        """Of its tensors."""
        tensors = (self._down, self._up, self._bias, self._codes, *(self._diagonal or ()))
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def add(self, form: Form) -> int:
        """Put an edit in and return its row."""
        ranks = form.down.shape[0] if isinstance(form, LowRank) else 1
        self._grow(len(self._used) + 1, ranks)
        row = self._free.pop()
        for tensor in (self._down, self._up, self._bias, self._codes, *(self._diagonal or ())):
            tensor[row].zero_()
        if isinstance(form, LowRank):
            self._down[row, :ranks] = form.down.to(self._device)
            self._up[row, :ranks] = form.up.to(self._device)
            self._bias[row, :ranks] = form.bias.to(self._device)
            self._codes[row, : form.activated] = _CODES[form.activation]
        else:
            self._put_diagonal(row, form)
        self._used[row] = form
        self._look_at_activations()
        return row

    def remove(self, row: int) -> None:
        """Take an edit out; its row is the next one's."""
        del self._used[row]
        self._free.append(row)
        self._look_at_activations()

    def edit(self, h: Tensor, rows: Tensor) -> Tensor:
        """Return edited hidden states, fp32.

        Args:
            h: [tiles, width, hidden], fp32.
            rows: [tiles], the row of each tile's edit.
        """
        z = torch.baddbmm(self._bias[rows].unsqueeze(1), h, self._down[rows].mT)
        for code in self._active:
            z = torch.where((self._codes[rows] == code).unsqueeze(1), _FUNCTIONS[code](z), z)
        edited = torch.baddbmm(h, z, self._up[rows])
        if self._diagonal is not None:
            scale, shift = self._diagonal
            edited = edited.addcmul_(h, scale[rows].unsqueeze(1)).add_(shift[rows].unsqueeze(1))
        return edited

    def _put_diagonal(self, row: int, form: Diagonal) -> None:
        if self._diagonal is None:
            zeros = torch.zeros(len(self._down), self._hidden, device=self._device)
            self._diagonal = (zeros, zeros.clone())
        self._diagonal[0][row] = form.scale.to(self._device)
        self._diagonal[1][row] = form.shift.to(self._device)

    def _grow(self, rows: int, ranks: int) -> None:
        """Make room for as many edits of as many rows; what is there keeps its place."""
        had, had_ranks = self._down.shape[:2]
        if self._free and ranks <= had_ranks:
            return
        wanted = had if self._free else max(rows, 2 * had, 4)
        self._free += range(wanted - 1, had - 1, -1)
        wide = max(ranks, had_ranks)
        self._down = _larger(self._down, wanted, wide, self._hidden)
        self._up = _larger(self._up, wanted, wide, self._hidden)
        self._bias = _larger(self._bias, wanted, wide)
        self._codes = _larger(self._codes, wanted, wide)
        if self._diagonal is not None:
            scale, shift = self._diagonal
            self._diagonal = (_larger(scale, wanted, self._hidden), _larger(shift, wanted, self._hidden))

    def _look_at_activations(self) -> None:
        codes = {_CODES[form.activation] for form in self._used.values() if isinstance(form, LowRank)}
        self._active = tuple(sorted(codes - {_LINEAR}))


def _larger(tensor: Tensor, *shape: int) -> Tensor:
    made = tensor.new_zeros(shape)
    made[tuple(slice(0, size) for size in tensor.shape)] = tensor
    return made


def apply(bank: Bank, tiles: Tiles, hidden: Tensor, residual: Tensor | None) -> None:
    """Edit a layer's output in place: the state is ``hidden`` [tokens, width], plus ``residual`` where there is one.

    Of edited tokens the whole state is in ``hidden`` afterwards and 0 in ``residual``, so that their sum is the edited
    state to the bit; the others keep their bits.
    """
    state = hidden.index_select(0, tiles.gathered)
    if residual is not None:
        state = state + residual.index_select(0, tiles.gathered)
    wide = state.float().view(-1, tiles.width, state.shape[-1])
    edited = bank.edit(wide, tiles.rows).view(-1, state.shape[-1]).to(hidden.dtype)
    hidden.index_copy_(0, tiles.tokens, edited if tiles.kept is None else edited.index_select(0, tiles.kept))
    if residual is not None:
        residual.index_fill_(0, tiles.tokens, 0)


Entry = tuple[int, int, int]
"""The row of an edit, and the half-open range of flat places that it is of."""


def make_tiles(entries: tuple[Entry, ...], device: torch.device, *, widest: int = 32) -> Tiles:
    """Cut the edited tokens of a layer into tiles; the width is that of the longest entry, up to ``widest``."""
    width = min(widest, max(stop - start for _, start, stop in entries))
    tokens: list[int] = []
    gathered: list[int] = []
    kept: list[int] = []
    rows: list[int] = []
    for row, start, stop in entries:
        for begin in range(start, stop, width):
            end = min(begin + width, stop)
            tokens += range(begin, end)
            kept += range(len(gathered), len(gathered) + end - begin)
            gathered += range(begin, end)
            gathered += [begin] * (width - end + begin)
            rows.append(row)
    padded = len(gathered) > len(tokens)
    return Tiles(
        tokens=_on(tokens, device),
        gathered=_on(gathered, device),
        rows=_on(rows, device),
        kept=_on(kept, device) if padded else None,
        width=width,
    )


def _on(numbers: list[int], device: torch.device) -> Tensor:
    tensor = torch.tensor(numbers, dtype=torch.long)
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)
