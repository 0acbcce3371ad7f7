"""Attention whose keys and values before a pass stay where they are.

torch's fused attention wants old and new keys in one tensor, repeated for the heads that share them, and computes
gradients of all of them. Here the queries of the heads that share keys are one matrix, old keys are neither copied nor
repeated nor given gradients, and the result is the same to rounding. The scores are kept for the backward pass, so it
is for small passes: :func:`is_small`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

NAME = "reft_grouped"

# fmt: off
GROUPED = frozenset({
    "cohere", "gemma", "gemma3_text", "gpt2", "gpt_neox", "granite", "llama", "mistral", "mixtral", "olmo2", "opt",
    "phi", "phi3", "qwen2", "qwen3", "starcoder2",
})
# fmt: on
"""Model types whose attention is a softmax of scaled products and a mask, looked up by the name in their config."""

_LARGEST = 1 << 16  # products of one head and row

Pairs = Mapping[int, tuple[Tensor, Tensor]]

_BEFORE: ContextVar[Pairs] = ContextVar("keys and values before the pass")


def is_small(tokens: int, before: int) -> bool:
    """Whether the scores of ``tokens`` tokens after ``before`` others may be kept for the backward pass."""
    return tokens * (before + tokens) <= _LARGEST


def takes_groups(config: Any) -> bool:
    """Whether a model of this config can run inside :func:`grouped`."""
    plain = not any(getattr(config, name, None) for name in ("attn_logit_softcapping", "reorder_and_upcast_attn"))
    return config.model_type in GROUPED and config._attn_implementation == "sdpa" and plain


@contextmanager
def grouped(config: Any, before: Pairs) -> Iterator[None]:
    """Let the model of this config use this attention inside the context.

    Args:
        config: the base's.
        before: layer -> keys and values [batch, heads, before, dim] of the tokens before the pass.
    """
    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, _bias)
    implementation = config._attn_implementation
    token = _BEFORE.set(before)
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = implementation
        _BEFORE.reset(token)


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float | None = None,
    **_settings: Any,
) -> tuple[Tensor, None]:
    """Attend from the pass's tokens to those before and in it, as an attention function of transformers.

    Args:
        module: the layer's attention, which knows its number.
        query: [batch, heads, tokens, dim].
        key: [batch, groups, tokens, dim]; a group is of heads that share keys.
        value: as ``key``.
        attention_mask: [batch, 1, tokens, before + tokens], added to the scores.
        scaling: of the products; 1 / sqrt(dim) by default.

    Returns:
        [batch, tokens, heads, dim], and no weights.
    """
    batch, heads, tokens, dim = query.shape
    groups = key.shape[1]
    rows = query.reshape(batch, groups, heads // groups * tokens, dim) * (dim**-0.5 if scaling is None else scaling)
    before = _BEFORE.get().get(cast(int, module.layer_idx))
    parts = [(key, value)] if before is None else [before, (key, value)]
    scores = [rows @ keys.mT for keys, _ in parts]
    joined = torch.cat(scores, dim=-1) if len(scores) > 1 else scores[0]
    masked = joined.view(batch, heads, tokens, -1) + attention_mask
    exact = masked.dtype if masked.dtype.itemsize >= 4 else torch.float32
    weights = torch.softmax(masked, dim=-1, dtype=exact).to(value.dtype).view_as(joined)
    taken = [
        share @ values
        for share, (_, values) in zip(weights.split([keys.shape[2] for keys, _ in parts], dim=-1), parts, strict=True)
    ]
    mixed = taken[0] if len(taken) == 1 else taken[0] + taken[1]
    return mixed.view(batch, heads, tokens, dim).transpose(1, 2).contiguous(), None


def _bias(*args: Any, dtype: torch.dtype, **kwargs: Any) -> Tensor:
    """Return transformers' mask as what is added to the scores: 0, or the lowest number of the dtype.

    Not minus infinity: a padded token that sees no token must not become NaN, which would spread.
    """
    kwargs["allow_is_causal_skip"] = False
    mask = sdpa_mask(*args, dtype=dtype, **kwargs)
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min)
