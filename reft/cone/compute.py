"""The one way in which constants are computed: each row as if alone, in a batch of one, unedited.

A decoder's row is made a little longer at its end, by tokens that none of its own sees, to a length that others have.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from reft.cone.constants import MOST, TOKENS, Constants, Ids, Output, RowKey, Want
from reft.cone.grouped_attention import Pairs, is_small, takes_groups
from reft.cone.kept_layers import kept_output, output_fields, recorded
from reft.cone.prefix_cache import PrefixCache, run_behind
from reft.cone.side_by_side import SideBySide, Watched, agree, by_twos, padded_length, watched
from reft.data import to_device
from reft.edits.hooks import Stack

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from reft.cone.edited import EditedModel

FILLER = 0
"""A token that every vocabulary has."""

_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")


@torch.no_grad()
def whole_row(model: EditedModel, row: Any, want: Want) -> Constants:
    """Run a row through the base of any kind of model, up to the highest layer that is wanted of it.

    Args:
        model: whose base it is.
        row: of the model's kind.
        want: outputs at the row's own tokens.
    """
    layers = {layer for layer, _ in want.outputs}
    with model.disabled(), _precise(model.base), recorded(model.stack, layers, last=max(layers)) as seen:
        model.target_losses(model.collate([row], 0).to(model.device))
    return Constants({(layer, ()): _kept(seen[layer][0]) for layer in layers})


@dataclass(frozen=True)
class _Pass:
    """What is run and recorded in a pass of a decoder over rows of one length.

    Attributes:
        layers: whose outputs are wanted.
        last: the layer that the pass is left after; None for the last one's keys and values.
        recording: layers whose keys and values are wanted.
    """

    layers: frozenset[int]
    last: int | None
    recording: frozenset[int] = frozenset()


@dataclass(frozen=True)
class _Seen:
    """What a pass gave: by layer outputs [rows, tokens, hidden], and keys and values [rows, heads, tokens, dim]."""

    outputs: Mapping[int, Tensor]
    pairs: Pairs

    @classmethod
    def joined(cls, rows: Sequence[_Seen]) -> _Seen:
        outputs = {layer: torch.cat([row.outputs[layer] for row in rows]) for layer in rows[0].outputs}
        pairs = {
            layer: (torch.cat([row.pairs[layer][0] for row in rows]), torch.cat([row.pairs[layer][1] for row in rows]))
            for layer in rows[0].pairs
        }
        return cls(outputs, pairs)

    def row(self, row: int) -> _Seen:
        """Return one row's outputs."""
        return _Seen({layer: output[row : row + 1].contiguous() for layer, output in self.outputs.items()}, {})


class Prompts:
    """Constants of a decoder's prompts, and of continuations of them after the prompt's keys and values.

    Rows that are of one length, once made a little longer, run side by side where each has the bits of it alone
    (:mod:`reft.cone.side_by_side`). Elsewhere each row is run alone; also where the size of a product follows from what
    the rows say, with experts, and then as long as it is.

    Args:
        base: the decoder.
        stack: its layers.
        known: what was found out about passes over several rows; this adds to it.
    """

    def __init__(self, base: PreTrainedModel, stack: Stack, known: SideBySide) -> None:
        self._base = base
        self._stack = stack
        self._known = known
        self._device = next(base.parameters()).device
        self._dense = not any(getattr(base.config, name, None) for name in _EXPERTS)

    @torch.no_grad()
    def compute(self, wanted: Mapping[RowKey, Want]) -> list[Constants]:
        """Return constants of prompts of one shape (:meth:`reft.cone.constants.Want.shape`), in their order.

        No layer runs that nothing wanted follows from: of the highest, only the keys and values are computed, and a
        continuation stops at the highest layer whose output is wanted.
        """
        prompts, wants = [row[0] for row in wanted], list(wanted.values())
        alike: dict[int, list[int]] = {}
        for place, ids in enumerate(prompts):
            alike.setdefault(self._length(len(ids)), []).append(place)
        found: dict[int, Constants] = {}
        for length, places in alike.items():
            own = self._of_length([prompts[place] for place in places], [wants[place] for place in places], length)
            found |= zip(places, own, strict=True)
        return [found[place] for place in range(len(prompts))]

    def _length(self, tokens: int) -> int:
        """Return how long a prompt of so many tokens is made for its pass: a table of positions may end before that."""
        if not self._dense:
            return tokens
        most = getattr(self._base.config.get_text_config(), "max_position_embeddings", None) or sys.maxsize
        return max(tokens, min(padded_length(tokens), most))

    def _of_length(self, prompts: Sequence[Ids], wants: Sequence[Want], length: int) -> list[Constants]:
        """Return constants of prompts that are made ``length`` tokens long: no token sees those behind it."""
        count, keys = len(self._stack.layers), wants[0].lowest
        top = max((layer for want in wants for layer, _ in want.outputs), default=-1)
        continued = any(after for want in wants for _, after in want.outputs)
        lowest = count if keys is None else keys
        recording = frozenset(layer for layer in range(count) if layer >= lowest or (continued and layer <= top))
        filled = [(*ids, *[FILLER] * (length - len(ids))) for ids in prompts]
        seen = self._run(filled, _Pass(_layers(wants[0], ()), top if keys is None else None, recording))
        outputs: list[dict[Output, Tensor]] = [
            {(layer, ()): _kept(output[row, : len(ids)]) for layer, output in seen.outputs.items()}
            for row, ids in enumerate(prompts)
        ]
        for before, layers, behind in _continuations(wants, prompts):
            rows = [row for row, _ in behind]
            below = {layer: pair for layer, pair in seen.pairs.items() if layer <= max(layers)}
            own = _chosen(below, rows, before)
            after = self._run([ids for _, ids in behind], _Pass(layers, max(layers)), own)
            for place, (row, ids) in enumerate(behind):
                outputs[row] |= {(layer, ids): _kept(output[place]) for layer, output in after.outputs.items()}
        if keys is None:
            return [Constants(each) for each in outputs]
        above = [pair for layer, pair in seen.pairs.items() if layer >= lowest]
        return [
            Constants(each, lowest, _keys_values(above, row, len(prompts[row]))) for row, each in enumerate(outputs)
        ]

    def _run(self, rows: Sequence[Ids], what: _Pass, before: Pairs | None = None) -> _Seen:
        """Run rows of one length after the keys and values before them."""
        seen: list[_Seen] = []
        start = 0
        for count in by_twos(len(rows)):
            chosen = slice(start, start + count)
            seen.append(self._few(rows[chosen], what, _chosen(before or {}, chosen)))
            start += count
        return seen[0] if len(seen) == 1 else _Seen.joined(seen)

    def _few(self, rows: Sequence[Ids], what: _Pass, frozen: Pairs) -> _Seen:
        """Run rows side by side if that gives the bits of each alone, else one by one."""
        together = self._together(rows, what, frozen) if len(rows) > 1 and self._dense else None
        if together is not None:
            return together
        return _Seen.joined([self._pass([ids], what, _chosen(frozen, [row])) for row, ids in enumerate(rows)])

    def _together(self, rows: Sequence[Ids], what: _Pass, frozen: Pairs) -> _Seen | None:
        """Run rows side by side; None where a kind of layer is known or found to give one of them other bits."""
        shape = (_length(frozen), len(rows[0]), len(rows))
        runs = len(self._stack.layers) if what.last is None else what.last + 1
        kinds = [(shape, layer) for layer in sorted(set(self._known.kinds(self._stack)[:runs]))]
        if not all(self._known.same.get(kind, True) for kind in kinds):
            return None
        unknown = [layer for shape, layer in kinds if (shape, layer) not in self._known.same]
        if not unknown:
            return self._pass(rows, what, frozen)
        below = frozenset(layer - 1 for layer in unknown if layer)
        with watched(self._stack, unknown, len(rows) * len(rows[0])) as together:
            seen = self._pass(rows, replace(what, layers=what.layers | below), frozen)
        threads = torch.get_num_threads() if self._device.type == "cpu" else 1
        for layer in unknown:
            alone = [
                self._alone(layer, ids, seen.row(row), _chosen(frozen, [row]), to_keys=what.last is None)
                for row, ids in enumerate(rows)
            ]
            self._known.same[shape, layer] = agree(together[layer], alone, threads)
        wanted = {layer: output for layer, output in seen.outputs.items() if layer in what.layers}
        return _Seen(wanted, seen.pairs) if all(self._known.same[kind] for kind in kinds) else None

    def _alone(self, layer: int, ids: Ids, below: _Seen, frozen: Pairs, *, to_keys: bool) -> Watched:
        """Run one layer of a row alone.

        Args:
            layer: which.
            ids: the row.
            below: with the output of the layer below it.
            frozen: keys and values before the row.
            to_keys: whether a pass is left at the last layer's keys and values.
        """
        what = _Pass(frozenset(), None if to_keys and layer == len(self._stack.layers) - 1 else layer)
        skipped: AbstractContextManager[None] = nullcontext()
        if layer:
            fields = output_fields(self._base, self._stack)
            skipped = kept_output(self._stack, layer - 1, below.outputs[layer - 1], fields=fields)
        with skipped, watched(self._stack, [layer], len(ids)) as found:
            self._pass([ids], what, {each: pair for each, pair in frozen.items() if each == layer})
        return found[layer]

    def _pass(self, rows: Sequence[Ids], what: _Pass, frozen: Pairs) -> _Seen:
        count, before, tokens = len(self._stack.layers), _length(frozen), len(rows[0])
        apart = takes_groups(self._base.config) and is_small(tokens, before)
        last = count - 1 if what.last is None else None
        cache = PrefixCache(count, before, frozen, recording=what.recording, last=last, apart=apart)
        mask = torch.ones(len(rows), before + tokens, dtype=torch.long)
        with _precise(self._base), recorded(self._stack, what.layers, last=what.last) as outputs:
            run_behind(self._base, to_device(torch.tensor(rows), self._device), mask, cache)
        return _Seen(outputs, cache.seen)


def _continuations(
    wants: Sequence[Want], prompts: Sequence[Ids]
) -> Iterator[tuple[int, frozenset[int], list[tuple[int, Ids]]]]:
    """Yield which rows are continued by what, some at a time, all of one length after prompts of one.

    Args:
        wants: of the rows.
        prompts: the rows' own tokens.

    Yields:
        How many tokens stand before, the layers that are wanted, and rows with what continues them.
    """
    found: dict[tuple[int, int, frozenset[int]], list[tuple[int, Ids]]] = {}
    for row, want in enumerate(wants):
        for after in sorted({after for _, after in want.outputs if after}):
            found.setdefault((len(prompts[row]), len(after), _layers(want, after)), []).append((row, after))
    for (before, tokens, layers), behind in found.items():
        most = max(1, min(MOST, TOKENS // (before + tokens)))
        for start in range(0, len(behind), most):
            yield before, layers, behind[start : start + most]


def _precise(base: nn.Module) -> AbstractContextManager[None]:
    """Keep a caller's autocast out: constants are in the base's dtype."""
    return torch.autocast(next(base.parameters()).device.type, enabled=False)


def _layers(want: Want, ids: Ids) -> frozenset[int]:
    return frozenset(layer for layer, after in want.outputs if after == ids)


def _length(pairs: Pairs) -> int:
    return next((keys.shape[2] for keys, _ in pairs.values()), 0)


def _chosen(pairs: Pairs, rows: Sequence[int] | slice, tokens: int | None = None) -> Pairs:
    """Return some rows' keys and values, of their first tokens or of all, in one layout however they are chosen."""
    return {
        layer: (keys[rows][:, :, :tokens].contiguous(), values[rows][:, :, :tokens].contiguous())
        for layer, (keys, values) in pairs.items()
    }


def _kept(output: Tensor) -> Tensor:
    return output.to("cpu", copy=True)  # a view would hold the memory of all rows


def _keys_values(pairs: Sequence[tuple[Tensor, Tensor]], row: int, tokens: int) -> Tensor:
    """Return a row's keys and values of all its tokens but the last, [layers, 2, heads, tokens - 1, dim]."""
    own = [torch.stack([keys[row], values[row]])[:, :, : tokens - 1] for keys, values in pairs]
    return torch.stack(own).to("cpu")
