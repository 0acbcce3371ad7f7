"""Keys and values of a running batch, whose rows join and leave.

All rows end in the same column, so a shorter one has padding on its left, which the attention mask hides. Layers with a
sliding window keep all columns as well: which of them a token sees is the mask's to say, as in a pass without a cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer

from reft.cone.lower_layers import changing_rope
from reft.data import to_device
from reft.models.decoder import text_config

ROOM = 64  # columns: a buffer is copied once in so many tokens, where torch.cat would copy it at each


class Columns:
    """A tensor [rows, heads, columns, width] that grows at its end, in a buffer with room for what is to come."""

    def __init__(self, first: Tensor) -> None:
        self._end = 0
        self._buffer = self._room_for(first.shape[0], first.shape[-2], like=first)
        self.append(first)

    @property
    def tensor(self) -> Tensor:
        """What there is, as a view."""
        return self._buffer[..., : self._end, :]

    def append(self, new: Tensor) -> Tensor:
        """Put columns behind the last; return all."""
        start, self._end = self._end, self._end + new.shape[-2]
        if self._end > self._buffer.shape[-2]:
            larger = self._room_for(new.shape[0], self._end, like=new)
            larger[..., :start, :] = self._buffer[..., :start, :]
            self._buffer = larger
        self._buffer[..., start : self._end, :] = new
        return self.tensor

    def join(self, other: Columns) -> None:
        """Put the rows of another below these, all ending in one column."""
        mine, theirs = self.tensor, other.tensor
        rows, end = len(mine) + len(theirs), max(self._end, other._end)
        larger = self._room_for(rows, end, like=mine)
        larger[: len(mine), :, end - self._end : end] = mine
        larger[len(mine) :, :, end - other._end : end] = theirs
        self._buffer, self._end = larger, end

    def keep(self, rows: Sequence[int], first: int) -> None:
        """Keep these rows, and the columns from the first one on."""
        chosen = to_device(torch.tensor(rows), self._buffer.device)
        kept = self.tensor[:, :, first:].index_select(0, chosen)
        smaller = self._room_for(len(rows), kept.shape[-2], like=kept)
        smaller[..., : kept.shape[-2], :] = kept
        self._buffer, self._end = smaller, kept.shape[-2]

    @staticmethod
    def _room_for(rows: int, columns: int, *, like: Tensor) -> Tensor:
        # Zeros: padding is hidden by the mask, but its share of 0 is multiplied with what stands here.
        return like.new_zeros(rows, like.shape[1], columns + ROOM, like.shape[-1])


class RowsLayer(CacheLayerMixin):
    """Keys and values of one layer."""

    is_sliding = False

    def __init__(self) -> None:
        super().__init__()
        self._both: tuple[Columns, Columns] | None = None

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Take the first columns."""
        self._both = Columns(key_states), Columns(value_states)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_args: Any, **_kwargs: Any) -> tuple[Tensor, Tensor]:
        """Put columns behind those that are there, and return all."""
        if self._both is None:
            self.lazy_initialization(key_states, value_states)
            return self.both[0].tensor, self.both[1].tensor
        return self.both[0].append(key_states), self.both[1].append(value_states)

    @property
    def both(self) -> tuple[Columns, Columns]:
        """Keys and values."""
        assert self._both is not None, "a layer has columns once a pass has written some"
        return self._both

    def get_seq_length(self) -> int:
        """Return the number of columns."""
        return 0 if self._both is None else self._both[0].tensor.shape[-2]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return how many columns a pass of so many tokens sees, and which is the first."""
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        """Return -1, as there is no bound."""
        return -1

    def join(self, other: RowsLayer) -> None:
        """Put the rows of another below these."""
        for mine, theirs in zip(self.both, other.both, strict=True):
            mine.join(theirs)

    def keep(self, rows: Sequence[int], first: int) -> None:
        """Keep these rows, and the columns from the first one on."""
        for columns in self.both:
            columns.keep(rows, first)


class RowsCache(Cache):
    """Keys and values of all layers; a new one is empty."""

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=RowsLayer)

    def join(self, other: RowsCache) -> None:
        """Put the rows of another below these, all ending in one column."""
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            cast(RowsLayer, mine).join(cast(RowsLayer, theirs))

    def keep(self, rows: Sequence[int], first: int) -> None:
        """Keep these rows, and the columns from the first one on."""
        for layer in self.layers:
            cast(RowsLayer, layer).keep(rows, first)


def check_base(base: nn.Module) -> None:
    """Refuse a base whose rows cannot join and leave a batch.

    Raises:
        ValueError: for an encoder-decoder, a layer that keeps a state in place of keys and values, or positions that
            the longest row of a batch decides.
    """
    config = text_config(base)
    kinds = {type(layer) for layer in DynamicCache(config=config).layers}
    strange = sorted(kind.__name__ for kind in kinds - {DynamicLayer, DynamicSlidingWindowLayer})
    if changing_rope(base.config):
        strange.append("positions by the longest row")
    if strange:
        raise ValueError(
            "continuous batching needs a base whose layers keep keys and values, and whose rows do not change each "
            f"other's positions; {type(base).__name__} has {', '.join(strange)}; ask it with generate"
        )
