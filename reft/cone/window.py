"""The part of a batch that runs: each row's tokens from the first that can change on, after keys and values kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from reft.cone.constants import Constants, Ids
from reft.data import Encoded, span_mask, to_device
from reft.edits.positions import Positions, position_masks


@dataclass(frozen=True)
class Kept:
    """A row with its constants.

    Attributes:
        row: the row.
        start: how many of its tokens do not run.
        constants: of its tokens that run, and of what may follow them.
    """

    row: Encoded
    start: int
    constants: Constants

    @property
    def end(self) -> int:
        """Where the tokens end that run."""
        return end_of(self.row)

    def hidden(self, layer: int) -> Tensor:
        """Return the layer's output before any edit at the tokens that run, [tokens, hidden]."""
        inside = self.constants.outputs[layer, ()][self.start :]
        _, after = one_pass(self.row)
        return torch.cat([inside, self.constants.outputs[layer, after]]) if after else inside

    def keys_values(self, above: int) -> Tensor | None:
        """Return keys and values of the layers from ``above`` up where no token runs, [layers, 2, heads, tokens, dim].

        None where there are none.
        """
        kept, lowest = self.constants.keys_values, self.constants.lowest
        if kept is None or lowest is None:
            return None
        assert above >= lowest
        return kept[above - lowest :, :, :, : self.start]


@dataclass(frozen=True)
class Window:
    """A batch's columns that run, behind those that do not.

    The columns before the pass are aligned at their right, those of the pass at their left: a row's tokens stand side
    by side, as layers that look at a window need.

    What says where edits are is on the CPU, so that the places are found without waiting for an accelerator.

    Attributes:
        input_ids: [batch, tokens], int64.
        mask: [batch, before + tokens], 1 at the rows' tokens, on the CPU.
        prompt_lengths: [batch], int64, on the CPU.
        spans: bool [batch, before + tokens], on the CPU.
        hidden: [batch, tokens, hidden], output of the lowest edited layer before its edit.
        frozen: layer -> keys and values before the pass, each [batch, heads, before, dim].
    """

    input_ids: Tensor
    mask: Tensor
    prompt_lengths: Tensor
    spans: Tensor
    hidden: Tensor
    frozen: Mapping[int, tuple[Tensor, Tensor]]

    @property
    def tokens(self) -> int:
        """How many columns run."""
        return self.input_ids.shape[1]

    @property
    def before(self) -> int:
        """How many columns stand before them."""
        return self.mask.shape[1] - self.tokens


def end_of(row: Encoded) -> int:
    """Return where the tokens of a row end that run; the last of a completion predicts nothing."""
    return max(row.prompt_length, row.num_tokens - 1)


def one_pass(row: Encoded) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the tokens of a row that are computed in one pass, and those behind them in another.

    One pass is quicker. But it keeps keys and values of all its tokens, and those of a completion are never read: a
    completion longer than its prompt is apart.
    """
    end = end_of(row)
    cut = end if end <= 2 * row.prompt_length else row.prompt_length
    return row.input_ids[:cut], row.input_ids[cut:end]


def first_edited(positions: frozenset[Positions], row: Encoded) -> int:
    """Return the first edited token of a row, counted from 0; the prompt's last where none is edited."""
    return _first_edited(positions, row.prompt_length, row.spans if any(each.spans for each in positions) else ())


@lru_cache(maxsize=1 << 16)
def _first_edited(positions: frozenset[Positions], length: int, spans: tuple[tuple[int, int], ...]) -> int:
    mask, own = torch.ones(1, length, dtype=torch.bool), span_mask([spans], torch.Size((1, length)))
    edited = [position_masks(each, mask, torch.tensor([length]), own).either[0] for each in positions]
    return min([length - 1, *torch.stack(edited).any(0).nonzero().flatten().tolist()])


def edits_some(positions: frozenset[Positions], row: Encoded) -> bool:
    """Whether a token of a row that runs is edited."""
    end = end_of(row)
    mask, own = torch.ones(1, end, dtype=torch.bool), span_mask([row.spans], torch.Size((1, end)))
    length = torch.tensor([row.prompt_length])
    return any(bool(position_masks(each, mask, length, own).either.any()) for each in positions)


def lay_out(rows: Sequence[Kept], layer: int, device: torch.device) -> Window:
    """Lay out a batch.

    Args:
        rows: its rows.
        layer: the lowest edited one.
        device: where the window is to be.
    """
    before = max(each.start for each in rows)
    width = max(each.end - each.start for each in rows)
    input_ids = torch.zeros(len(rows), width, dtype=torch.long)  # any id may pad: the mask hides it
    mask = torch.zeros(len(rows), before + width, dtype=torch.long)
    spans = torch.zeros(len(rows), before + width, dtype=torch.bool)
    first = rows[0].hidden(layer)
    hidden = first.new_zeros(len(rows), width, first.shape[-1])
    for place, each in enumerate(rows):
        shift, length = before - each.start, each.end - each.start
        input_ids[place, :length] = torch.tensor(each.row.input_ids[each.start : each.end])
        mask[place, shift : shift + each.end] = 1
        for low, high in each.row.spans:
            spans[place, shift + low : shift + high] = True
        hidden[place, :length] = each.hidden(layer)
    lengths = torch.tensor([each.row.prompt_length for each in rows])
    frozen = _aligned([each.keys_values(layer + 1) for each in rows], before) if before else []
    return Window(
        to_device(input_ids, device),
        mask,
        lengths,
        spans,
        to_device(hidden, device),
        {layer + 1 + above: (both[0], both[1]) for above, both in enumerate(to_device(one, device) for one in frozen)},
    )


@dataclass(frozen=True)
class Behind:
    """Prompts that were run, edited, and what they left for what follows them.

    Attributes:
        kept: the prompts.
        frozen: layer -> keys and values of the prompts' columns, each [prompts, heads, columns, dim].
        mask: [prompts, columns], 1 at the prompts' tokens, which end in the last column; on the CPU.
    """

    kept: Sequence[Kept]
    frozen: Mapping[int, tuple[Tensor, Tensor]]
    mask: Tensor


def lay_out_behind(prompts: Behind, following: Sequence[tuple[int, Ids]], layer: int, device: torch.device) -> Window:
    """Lay out what follows prompts: a row for each.

    Args:
        prompts: that were run.
        following: the place of a prompt, and what follows it; a prompt may stand here more than once.
        layer: the lowest edited one.
        device: where the window is to be.
    """
    rows = torch.tensor([row for row, _ in following])
    width = max(len(ids) for _, ids in following)
    input_ids = torch.zeros(len(following), width, dtype=torch.long)
    own = torch.zeros(len(following), width, dtype=prompts.mask.dtype)
    first = prompts.kept[0].constants.outputs[layer, ()]
    hidden = first.new_zeros(len(following), width, first.shape[-1])
    for place, (row, ids) in enumerate(following):
        input_ids[place, : len(ids)], own[place, : len(ids)] = torch.tensor(ids), 1
        hidden[place, : len(ids)] = prompts.kept[row].constants.outputs[layer, ids]
    mask = torch.cat([prompts.mask[rows], own], dim=-1)
    lengths = torch.tensor([prompts.kept[row].row.prompt_length for row, _ in following])
    own_rows = to_device(rows, device)
    frozen = {layer: (keys[own_rows], values[own_rows]) for layer, (keys, values) in prompts.frozen.items()}
    no_spans = torch.zeros_like(mask).bool()
    return Window(to_device(input_ids, device), mask, lengths, no_spans, to_device(hidden, device), frozen)


def _aligned(rows: Sequence[Tensor | None], before: int) -> list[Tensor]:
    """Return keys and values of all rows, aligned at the right: for each layer [2, batch, heads, before, dim].

    On the CPU a tensor a layer, not one for all: an allocator gives back so large a one each time, and gets it page by
    page. An accelerator's allocator does not, and one copy a row takes less of its time than one a row and layer.
    """
    some = next((row for row in rows if row is not None), None)
    if some is None:
        return []
    layers, _, heads, _, dim = some.shape
    at_once = 1 if some.device.type == "cpu" else layers
    joined: list[Tensor] = []
    for low in range(0, layers, at_once):
        both = some.new_empty(min(at_once, layers - low), 2, len(rows), heads, before, dim)
        for place, row in enumerate(rows):
            start = 0 if row is None else row.shape[3]
            both[:, :, place, :, : before - start] = 0
            if row is not None and start:
                both[:, :, place, :, before - start :] = row[low : low + at_once]
        joined += both.unbind()
    return joined
