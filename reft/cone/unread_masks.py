"""Passes on an accelerator whose attention masks are built without their values being looked at.

transformers looks at a mask's values to leave out one that hides nothing, which waits for all that the device has been
given so far, in every pass. What is computed is the same to rounding: a mask that hides nothing is added.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from reft.cone.grouped_attention import GROUPED

NAME = "reft_sdpa"
ENCODERS = frozenset({"bert", "roberta"})


@contextmanager
def unread_masks(base: Any, device: torch.device) -> Iterator[None]:
    """Let a base that looks its attention up by name build masks without looking at them inside the context.

    On the CPU, where looking costs nothing, everything stays as it is; so it does for other bases.

    Args:
        base: a ``transformers`` model.
        device: where it is.
    """
    config = base.config
    known = config.model_type in GROUPED | ENCODERS and getattr(config, "_attn_implementation", None) == "sdpa"
    if device.type == "cpu" or not known:
        yield
        return
    AttentionInterface.register(NAME, sdpa_attention_forward)
    AttentionMaskInterface.register(NAME, _mask)
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = "sdpa"


def _mask(*args: Any, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor | None:
    """Return transformers' mask, built whatever it hides; where no padding is told, there is nothing to look at."""
    if attention_mask is not None:
        kwargs["allow_is_causal_skip"] = kwargs["allow_is_bidirectional_skip"] = False
    return sdpa_mask(*args, attention_mask=attention_mask, **kwargs)
