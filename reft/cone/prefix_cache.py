"""Passes of a decoder over tokens that stand behind others, whose keys and values are given and stay as they are."""

from __future__ import annotations

import inspect
from collections.abc import Container
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, CacheLayerMixin

from reft.cone.grouped_attention import Pairs, grouped
from reft.cone.kept_layers import Reached
from reft.cone.unread_masks import unread_masks
from reft.data import to_device


class PrefixCache(Cache):
    """Keys and values of the tokens before a pass.

    It is not changed by a pass, so a layer may be run again for its gradients.

    Args:
        num_layers: of the base.
        before: columns before the pass, in every layer alike.
        frozen: layer -> keys and values, each [batch, heads, before, dim]; of a layer that does not run, none.
        recording: layers whose keys and values after the pass are kept in ``seen``.
        last: a layer at whose keys and values the pass is left, with :class:`Reached`; None for none.
        apart: whether the pass is to run with :mod:`reft.cone.grouped_attention`.
    """

    def __init__(
        self,
        num_layers: int,
        before: int,
        frozen: Pairs,
        *,
        recording: Container[int] = (),
        last: int | None = None,
        apart: bool = False,
    ) -> None:
        self.frozen = frozen
        self.apart = apart
        self._own = [
            _PrefixLayer(before, frozen.get(number), recording=number in recording, last=number == last, apart=apart)
            for number in range(num_layers)
        ]
        super().__init__(layers=self._own)

    @property
    def seen(self) -> dict[int, tuple[Tensor, Tensor]]:
        """Layer -> keys and values after the pass, for the layers that were recorded."""
        return {number: layer.seen for number, layer in enumerate(self._own) if layer.seen is not None}


class _PrefixLayer(CacheLayerMixin):
    """One layer's keys and values of the tokens before the pass.

    All of them, also where the layer looks at a window: the model builds its window masks from their number.
    """

    is_sliding = False

    def __init__(
        self, before: int, frozen: tuple[Tensor, Tensor] | None, *, recording: bool, last: bool, apart: bool
    ) -> None:
        super().__init__()
        self.is_initialized = True
        self.seen: tuple[Tensor, Tensor] | None = None
        self._before = before
        self._frozen = frozen
        self._recording = recording
        self._last = last
        self._apart = apart

    def update(self, key_states: Tensor, value_states: Tensor, *_args: Any, **_kwargs: Any) -> tuple[Tensor, Tensor]:
        """Return what the pass's tokens attend to: keys and values before and in it, or where apart in it alone."""
        new = joined = (key_states, value_states)
        if self._frozen is not None and (self._recording or not self._apart):
            keys, values = self._frozen
            joined = (torch.cat([keys, key_states], dim=-2), torch.cat([values, value_states], dim=-2))
        if self._recording:
            self.seen = joined
        if self._last:
            raise Reached
        return new if self._apart else joined

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Do nothing: all there is was given."""

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the number of columns that the mask is of, and the first of them."""
        return self._before + query_length, 0

    def get_seq_length(self) -> int:
        """Return the columns before the pass."""
        return self._before

    def get_max_length(self) -> int:
        """Return -1: no bound."""
        return -1


def run_behind(base: nn.Module, input_ids: Tensor, mask: Tensor, cache: PrefixCache) -> Tensor:
    """Run tokens behind those of a cache.

    Args:
        base: a decoder.
        input_ids: [batch, tokens].
        mask: [batch, before + tokens], 1 at the rows' tokens, which stand side by side; on the CPU.
        cache: what is before.

    Returns:
        The logits, as the base gives them.
    """
    device, tokens = input_ids.device, input_ids.shape[1]
    seen = to_device(mask, device)
    # Rows that begin in the first column look at no padding, which stands behind them: an accelerator's own causal
    # kernel, which takes no mask, is then the quicker one.
    hides = cache.apart or device.type == "cpu" or mask.shape[1] > tokens
    arguments: dict[str, Any] = {
        "attention_mask": seen if hides else None,
        "past_key_values": cache,
        "use_cache": False,
    }
    if "position_ids" in inspect.signature(base.forward).parameters:
        arguments["position_ids"] = (seen.cumsum(-1) - 1).clamp(min=0)[:, -tokens:]
    with grouped(base.config, cache.frozen) if cache.apart else unread_masks(base, device):
        logits: Tensor = base(input_ids=input_ids, **arguments).logits
    return logits
