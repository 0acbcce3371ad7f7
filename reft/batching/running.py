"""A running batch: prompts of several adapters of one base, which join and leave at any token.

transformers has continuous batching of its own, over one packed row of paged blocks. It is not used here, because
(transformers 5.23) nothing that a layer's hook can see says which token of that row belongs to which request, nor how
far its prompt goes, and that is what decides where an adapter edits; its sharing of blocks between equal prefixes is
keyed by token ids alone, while keys and values behind an edit belong to the adapter as well; it draws, and tells
log-probabilities, for all rows alike and without alternatives; and while it runs, the base has its attention, so that
nothing else could be asked of it in between.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from reft.batching.cache import RowsCache, check_base
from reft.batching.sampling import Chosen, Sampling, choose
from reft.data import Collator, Encoded, to_device
from reft.models.decoder import ReftModel, contiguous_columns, position_ids
from reft.models.mixed import AdapterSet

Finish = Literal["stop", "length", "broken"]
"""Why a row ended: a token that ends a text, as many tokens as were asked for, or logits that are no numbers."""


@dataclass(frozen=True)
class Prompt:
    """What is to be continued, and how.

    Attributes:
        ids: its tokens, at least one.
        adapter: whose edits it is read with; None for the frozen base.
        max_new_tokens: upper bound of the continuation, at least 1.
        ends: tokens that end it.
        sampling: how tokens are chosen.
    """

    ids: tuple[int, ...]
    adapter: ReftModel | None
    max_new_tokens: int
    ends: frozenset[int] = frozenset()
    sampling: Sampling = field(default_factory=Sampling)

    @property
    def columns(self) -> int:
        """How many it may come to have."""
        return len(self.ids) + self.max_new_tokens

    @property
    def edited_behind(self) -> int:
        """How many tokens behind it are edited."""
        if self.adapter is None:
            return 0
        config = self.adapter.config
        return max(config.positions_at(layer).generated for layer in config.layers)


@dataclass(frozen=True)
class Token:
    """The next token of a row, and whether it was the last."""

    chosen: Chosen
    finish: Finish | None


@dataclass(eq=False)
class Row:
    """A prompt in a running batch, and how far it is."""

    prompt: Prompt
    written: int = 0
    last: int = -1

    def __post_init__(self) -> None:
        self.generator = self.prompt.sampling.generator()

    @property
    def read(self) -> int:
        """How many tokens have been read: all but the last one that was written."""
        return len(self.prompt.ids) + max(self.written - 1, 0)

    def take(self, chosen: Chosen) -> Token:
        """Note the next token."""
        self.written, self.last = self.written + 1, chosen.id
        if chosen.id < 0:
            return Token(chosen, "broken")
        if chosen.id in self.prompt.ends:
            return Token(chosen, "stop")
        return Token(chosen, "length" if self.written == self.prompt.max_new_tokens else None)


class RunningBatch:
    """The rows that are being continued; of one thread.

    Args:
        base: the frozen base of all adapters, in evaluation mode.

    Raises:
        ValueError: for a base whose rows cannot join and leave a batch.
    """

    def __init__(self, base: Any) -> None:
        check_base(base)
        self._base = base
        self._taken = frozenset(inspect.signature(base.forward).parameters)
        self._collate = Collator(pad_id=0, padding_side="left")
        self.rows: list[Row] = []
        self._cache = RowsCache()
        self._mask = torch.zeros(0, 0)

    @torch.no_grad()
    def admit(self, rows: Sequence[Row]) -> list[Token]:
        """Read prompts in one pass and let them join; return the first token of each."""
        batch = self._collate([Encoded(row.prompt.ids, len(row.prompt.ids)) for row in rows])
        cache = RowsCache()
        editing = self._editing(rows, batch.attention_mask)
        places = position_ids(batch.attention_mask)
        tokens = self._next(rows, self._pass(batch.input_ids, batch.attention_mask, places, cache, editing))
        self._join(rows, cache, batch.attention_mask)
        self.drop([row for row, token in zip(rows, tokens, strict=True) if token.finish is not None])
        return tokens

    @torch.no_grad()
    def step(self) -> list[Token]:
        """Read the last token of each row; return the next of each, in the order that the rows had before."""
        rows = list(self.rows)
        ids, places = ([[value] for value in values] for values in zip(*((r.last, r.read) for r in rows), strict=True))
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(rows), 1)], dim=-1)
        behind = [row if row.written <= row.prompt.edited_behind else None for row in rows]
        editing = self._editing(behind, self._mask)
        read = torch.tensor(ids), self._mask, torch.tensor(places)
        tokens = self._next(rows, self._pass(*read, self._cache, editing))
        self.drop([row for row, token in zip(rows, tokens, strict=True) if token.finish is not None])
        return tokens

    def drop(self, rows: Sequence[Row]) -> None:
        """Let rows leave, and padding that no other row needs."""
        kept = [place for place, row in enumerate(self.rows) if row not in rows]
        if len(kept) == len(self.rows):
            return
        self.rows = [self.rows[place] for place in kept]
        if not kept:
            self._cache, self._mask = RowsCache(), self._mask[:0, :0]
            return
        first = self._mask.shape[-1] - max(row.read for row in self.rows)
        self._mask = self._mask[kept, first:]
        self._cache.keep(kept, first)

    def _join(self, rows: Sequence[Row], cache: RowsCache, mask: Tensor) -> None:
        if self.rows:
            end = max(self._mask.shape[-1], mask.shape[-1])
            wide = [torch.nn.functional.pad(each, (end - each.shape[-1], 0)) for each in (self._mask, mask)]
            self._cache.join(cache)
            self._mask = torch.cat(wide)
        else:
            self._cache, self._mask = cache, mask
        self.rows += rows

    def _editing(self, rows: Sequence[Row | None], mask: Tensor) -> AbstractContextManager[None]:
        """The edits of one pass that ends in the mask's last column; rows without any are None or of the base."""
        adapters = {id(row.prompt.adapter): row.prompt.adapter for row in rows if row is not None}
        named = {str(key): adapter for key, adapter in adapters.items() if adapter is not None}
        if not named:
            return nullcontext()
        names = [None if row is None or row.prompt.adapter is None else str(id(row.prompt.adapter)) for row in rows]
        lengths = [1 if row is None else len(row.prompt.ids) for row in rows]
        return AdapterSet(named).rows(names).editing(mask, torch.tensor(lengths))

    def _pass(
        self, ids: Tensor, mask: Tensor, places: Tensor, cache: RowsCache, editing: AbstractContextManager[None]
    ) -> Tensor:
        """Return the logits of the last column, [rows, vocabulary]; what is given is on the CPU."""
        ids, mask, places = (to_device(each, self._base.device) for each in (ids, mask, places))
        given: dict[str, Any] = {"position_ids": places, "logits_to_keep": 1}
        more = {name: value for name, value in given.items() if name in self._taken}
        with editing, contiguous_columns(self._base):
            output = self._base(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **more)
        return output.logits[:, -1]

    @staticmethod
    def _next(rows: Sequence[Row], logits: Tensor) -> list[Token]:
        chosen = choose(logits, [row.prompt.sampling for row in rows], [row.generator for row in rows])
        return [row.take(each) for row, each in zip(rows, chosen, strict=True)]
