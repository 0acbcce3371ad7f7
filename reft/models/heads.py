"""The head of an encoder: which modules it is, where it starts, and how texts become rows for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import nn

from reft.models.encoder import Labelled, beside_backbone


def head_modules(base: nn.Module) -> tuple[str, ...]:
    """Return the names of the modules between an encoder's last layer and its answers.

    The pooler of the backbone, where it has one, and what lies beside the backbone: in BERT and in RoBERTa a dense
    layer, tanh and a linear layer on the first token, as in the paper's runs on GLUE.

    Raises:
        ValueError: if the base has no head.
    """
    beside, prefix = beside_backbone(base), cast(str, getattr(base, "base_model_prefix", ""))
    pooler = getattr(getattr(base, prefix), "pooler", None)
    has_pooler = isinstance(pooler, nn.Module) and any(True for _ in pooler.parameters())
    return (f"{prefix}.pooler", *beside) if has_pooler else beside


@torch.no_grad()
def start_head(base: nn.Module, names: Sequence[str], *, seed: int) -> None:
    """Set the modules of a head to where training starts, which follows from the seed alone.

    Linear layers as ``transformers`` starts them, normal of the width that the base's config says, without bias.

    Args:
        base: whose head it is.
        names: of the head's modules.
        seed: of the draws, which are made on the CPU, so that every device starts from the same numbers.

    Raises:
        ValueError: for a module that does not say where it starts.
    """
    described: Any = base.config
    spread, generator = float(getattr(described, "initializer_range", 0.02)), torch.Generator().manual_seed(seed)
    for inner in (module for name in names for module in base.get_submodule(name).modules()):
        if isinstance(inner, nn.Linear):
            inner.weight.copy_(torch.empty(inner.weight.shape).normal_(0.0, spread, generator=generator))
            if inner.bias is not None:
                inner.bias.zero_()
        elif isinstance(inner, nn.LayerNorm):
            inner.reset_parameters()
        elif any(True for _ in inner.parameters(recurse=False)):
            raise ValueError(
                f"a head is made of linear layers and layer norms; got {type(inner).__name__}; use another base"
            )


def encode_text(tokenizer: Callable[..., Any], text: str, second: str | None = None, *, label: float = 0.0) -> Labelled:
    """Tokenise a text, or a pair of texts, with the tokenizer's own special tokens, as encoders are trained.

    Args:
        tokenizer: a transformers tokenizer.
        text: what is read.
        second: the other text of a pair, which the tokenizer joins and marks in its own way; None for one text.
        label: what it is to be judged as; see :class:`reft.Labelled`.

    Raises:
        ValueError: if there is no token.
    """
    read = tokenizer(text) if second is None else tokenizer(text, second)
    return Labelled(tuple(read["input_ids"]), label, tuple(read.get("token_type_ids", ())))
