"""Texts to token ids, and rows to padded batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

IGNORED = -100
"""The label of a token that is not learned, as in transformers."""

PaddingSide = Literal["left", "right"]


@dataclass(frozen=True)
class Example:
    """What the model reads, and what it is to answer."""

    prompt: str
    completion: str


@dataclass(frozen=True)
class Encoded:
    """Token ids of a prompt and its completion, joined.

    Attributes:
        input_ids: the prompt's ids, then the completion's.
        prompt_length: how many of them are the prompt's, at least 1.
    """

    input_ids: tuple[int, ...]
    prompt_length: int

    def __post_init__(self) -> None:
        if not 1 <= self.prompt_length <= len(self.input_ids):
            raise ValueError(
                f"a row needs 1 to {len(self.input_ids)} prompt tokens, its own length; "
                f"got {self.prompt_length}; leave out rows with an empty prompt"
            )

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """The prompt's ids alone."""
        return self.input_ids[: self.prompt_length]


@dataclass(frozen=True)
class Batch:
    """Padded rows; all tensors int64.

    Attributes:
        input_ids: [batch, sequence].
        attention_mask: [batch, sequence], 1 at tokens and 0 at padding.
        labels: [batch, sequence], the token's id at completion tokens, -100 elsewhere.
        prompt_lengths: [batch], in tokens.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    prompt_lengths: Tensor

    def to(self, device: torch.device | str) -> Batch:
        """Return the same batch on ``device``."""
        tensors = (self.input_ids, self.attention_mask, self.labels, self.prompt_lengths)
        return Batch(*(tensor.to(device) for tensor in tensors))


def encode(tokenizer: Callable[..., Any], prompt: str, completion: str, *, add_special_tokens: bool = True) -> Encoded:
    """Tokenise a prompt and its completion apart and join them.

    Apart, the prompt has the same ids in training as in use, where no completion follows it; tokenised together, a
    merge across the boundary could change its last token.

    Args:
        tokenizer: a transformers tokenizer.
        prompt: text that the model reads.
        completion: text that it is to answer; never gets special tokens.
        add_special_tokens: whether the prompt gets the tokenizer's own; false for a prompt that went through a
            chat template, which has written them already.

    Raises:
        ValueError: if the prompt has no token.
    """
    prompt_ids = tokenizer(prompt, add_special_tokens=add_special_tokens)["input_ids"]
    completion_ids = tokenizer(completion, add_special_tokens=False)["input_ids"]
    return Encoded((*prompt_ids, *completion_ids), len(prompt_ids))


@dataclass(frozen=True)
class Collator:
    """Pads rows to the longest one.

    The attention mask comes from the rows' lengths, never from token values: the padding id may stand in a text.
    """

    pad_id: int
    padding_side: PaddingSide = "left"

    def __call__(self, rows: Sequence[Encoded]) -> Batch:
        """Return the rows, in their order, as one batch on the CPU."""
        width = max(len(row.input_ids) for row in rows)
        shape = (len(rows), width)
        input_ids = torch.full(shape, self.pad_id, dtype=torch.long)
        attention_mask = torch.zeros(shape, dtype=torch.long)
        labels = torch.full(shape, IGNORED, dtype=torch.long)
        for place, row in enumerate(rows):
            length = len(row.input_ids)
            start = width - length if self.padding_side == "left" else 0
            ids = torch.tensor(row.input_ids, dtype=torch.long)
            input_ids[place, start : start + length] = ids
            attention_mask[place, start : start + length] = 1
            labels[place, start + row.prompt_length : start + length] = ids[row.prompt_length :]
        prompt_lengths = torch.tensor([row.prompt_length for row in rows], dtype=torch.long)
        return Batch(input_ids, attention_mask, labels, prompt_lengths)
