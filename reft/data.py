"""Texts to token ids, and rows to padded batches."""

from __future__ import annotations

import math
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
        spans: half-open ranges of prompt tokens that this row has edited where positions are ``spans``.
        domain: the row's domain variable t, finite, for methods that read one; None where there is none.
    """

    input_ids: tuple[int, ...]
    prompt_length: int
    spans: tuple[tuple[int, int], ...] = ()
    domain: float | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.prompt_length <= len(self.input_ids):
            raise ValueError(
                f"a row needs 1 to {len(self.input_ids)} prompt tokens, its own length; "
                f"got {self.prompt_length}; leave out rows with an empty prompt"
            )
        check_spans(self.spans, self.prompt_length)
        if self.domain is not None:
            check_domain(self.domain)

    @property
    def num_tokens(self) -> int:
        """How many tokens the model reads."""
        return len(self.input_ids)

    @property
    def num_targets(self) -> int:
        """How many tokens the model is to predict."""
        return len(self.input_ids) - self.prompt_length

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """The prompt's ids alone."""
        return self.input_ids[: self.prompt_length]


@dataclass(frozen=True)
class Batch:
    """Padded rows; all tensors int64 but ``spans`` and ``domains``.

    Attributes:
        input_ids: [batch, sequence].
        attention_mask: [batch, sequence], 1 at tokens and 0 at padding.
        labels: [batch, sequence], the token's id at completion tokens, -100 elsewhere.
        prompt_lengths: [batch], in tokens.
        spans: bool [batch, sequence], the tokens that the rows name themselves.
        domains: float64 [batch], the rows' t, or None where they have none. It stays on the CPU: some devices have no
            float64, and a time stamp needs it.
        read_from: the batch on the CPU that this one was copied from; None for one that was made where it is.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    prompt_lengths: Tensor
    spans: Tensor | None = None
    domains: Tensor | None = None
    read_from: Batch | None = None

    @property
    def readable(self) -> Batch:
        """The same rows where their values are read without waiting for a device, if they are there too."""
        return self if self.read_from is None else self.read_from

    def to(self, device: torch.device | str) -> Batch:
        """Return the same batch on ``device``."""
        return Batch(
            to_device(self.input_ids, device),
            to_device(self.attention_mask, device),
            to_device(self.labels, device),
            to_device(self.prompt_lengths, device),
            None if self.spans is None else to_device(self.spans, device),
            self.domains,
            self.readable,
        )


def encode(
    tokenizer: Callable[..., Any],
    prompt: str,
    completion: str,
    *,
    add_special_tokens: bool = True,
    character_spans: Sequence[tuple[int, int]] = (),
    domain: float | None = None,
) -> Encoded:
    """Tokenise a prompt and its completion apart and join them.

    Apart, the prompt has the same ids in training as in use, where no completion follows it; tokenised together, a
    merge across the boundary could change its last token. What the tokenizer puts behind every text (an end token,
    BERT's [SEP]) is left out: the answer follows there, and positions counted from the prompt's end are the text's.

    Args:
        tokenizer: a transformers tokenizer.
        prompt: text that the model reads.
        completion: text that it is to answer; never gets special tokens.
        add_special_tokens: whether the prompt gets the tokenizer's own; false for a prompt that went through a
            chat template, which has written them already.
        character_spans: half-open ranges of the prompt's characters; the tokens that hold any of them become the
            row's spans. Needs a tokenizer that gives offsets (a "fast" one).
        domain: the row's domain variable t, if it has one.

    Raises:
        ValueError: if the prompt has no token, a span is not in it or holds none, or the domain is NaN or infinite.
    """
    spans: tuple[tuple[int, int], ...] = ()
    if character_spans:
        offsets = tokenizer(prompt, add_special_tokens=add_special_tokens, return_offsets_mapping=True)
        spans = token_spans(character_spans, offsets["offset_mapping"], prompt)
    if add_special_tokens:
        prompt_ids = prompt_tokens(tokenizer, prompt)
    else:
        prompt_ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    completion_ids = tokenizer(completion, add_special_tokens=False)["input_ids"]
    return Encoded((*prompt_ids, *completion_ids), len(prompt_ids), spans, domain)


def prompt_tokens(tokenizer: Callable[..., Any], prompt: str) -> list[int]:
    """Return a prompt's ids with what the tokenizer puts before every text, and without what it puts behind it."""
    if getattr(tokenizer, "is_fast", False):  # its mask is of what it added itself, whatever stands in the text
        read = tokenizer(prompt, return_special_tokens_mask=True)
        ids, mask = read["input_ids"], read["special_tokens_mask"]
        if 0 in mask:
            return list(ids[: len(mask) - mask[::-1].index(0)])
    else:
        ids = tokenizer(prompt)["input_ids"]
    return list(ids[: len(ids) - added_tokens(tokenizer)[1]])


def added_tokens(tokenizer: Callable[..., Any]) -> tuple[int, int]:
    """Return how many tokens the tokenizer puts by itself before and behind every text."""
    whole, bare = tokenizer("a")["input_ids"], tokenizer("a", add_special_tokens=False)["input_ids"]
    more = len(whole) - len(bare)
    before = next((start for start in range(more + 1) if whole[start : start + len(bare)] == bare), more)
    return before, more - before


def token_spans(
    character_spans: Sequence[tuple[int, int]], offsets: Sequence[tuple[int, int]], text: str
) -> tuple[tuple[int, int], ...]:
    """Return, for each span of a text's characters, the tokens that hold any of them, as half-open ranges.

    Args:
        character_spans: half-open ranges of characters.
        offsets: first and last character of each token, as a "fast" tokenizer gives them; empty for special tokens.
        text: what was tokenised.

    Raises:
        ValueError: if a span is not in the text, or holds no token.
    """
    found = []
    for start, stop in character_spans:
        if not 0 <= start < stop <= len(text):
            raise ValueError(
                f"a character span is a range of the prompt's {len(text)} characters; got {(start, stop)}; correct it"
            )
        held = [place for place, (low, high) in enumerate(offsets) if low < high and low < stop and start < high]
        if not held:
            raise ValueError(f"a character span must hold a token; got {(start, stop)} of {text!r}; widen it")
        found.append((held[0], held[-1] + 1))
    return tuple(found)


def check_spans(spans: Sequence[tuple[int, int]], length: int) -> None:
    """Raise ValueError unless every span is a half-open range of the first ``length`` tokens, and not empty."""
    if not all(0 <= start < stop <= length for start, stop in spans):
        raise ValueError(f"a span is a range of the {length} prompt tokens, like (0, 2); got {spans}; correct it")


def check_domain(value: object) -> None:
    """Raise ValueError unless ``value`` can be a row's domain variable t: a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"a row's domain is a finite number; got {value!r}; correct it, or leave the row out")


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Return a tensor on a device, without waiting for the copy where the device's own order of work allows it.

    CUDA copies beside the program from memory that is pinned; torch keeps that until the copy is done. Metal may read
    after the source has gone, so there a copy is waited for.
    """
    target = torch.device(device)
    if tensor.device.type != "cpu" or target.type == "cpu":
        return tensor.to(target)
    source = tensor.pin_memory() if target.type == "cuda" else tensor
    return source.to(target, non_blocking=target.type != "mps")


def stack_domains(values: Sequence[float | None]) -> Tensor | None:
    """Return the domains of a batch's rows, float64 [rows]; None if no row has one.

    Raises:
        ValueError: if some rows have a domain and others have none.
    """
    lacking = [place for place, value in enumerate(values) if value is None]
    if len(lacking) == len(values):
        return None
    if lacking:
        raise ValueError(
            f"either all rows of a batch have a domain or none; got none for row {lacking[0]} of {len(values)}; "
            "give each row its own"
        )
    return torch.tensor(values, dtype=torch.float64)


def pad_right(rows: Sequence[Sequence[int]], fill: int) -> Tensor:
    """Return rows of numbers as one tensor, int64 [rows, longest]."""
    width = max(len(row) for row in rows)
    return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows], dtype=torch.long)


def span_mask(spans: Sequence[Sequence[tuple[int, int]]], shape: torch.Size) -> Tensor:
    """Return the tokens in each row's spans, for rows that begin in the first column, bool [rows, sequence]."""
    mask = torch.zeros(shape, dtype=torch.bool)
    for row, own in enumerate(spans):
        for start, stop in own:
            mask[row, start:stop] = True
    return mask


@dataclass(frozen=True)
class Collator:
    """Pads rows to the longest one.

    The attention mask comes from the rows' lengths, never from token values: the padding id may stand in a text.
    """

    pad_id: int
    padding_side: PaddingSide = "left"

    def __call__(self, rows: Sequence[Encoded]) -> Batch:
        """Return the rows, in their order, as one batch on the CPU.

        Raises:
            ValueError: if some rows have a domain and others have none.
        """
        width = max(len(row.input_ids) for row in rows)
        shape = (len(rows), width)
        input_ids = torch.full(shape, self.pad_id, dtype=torch.long)
        attention_mask = torch.zeros(shape, dtype=torch.long)
        labels = torch.full(shape, IGNORED, dtype=torch.long)
        spans = torch.zeros(shape, dtype=torch.bool)
        for place, row in enumerate(rows):
            length = len(row.input_ids)
            start = width - length if self.padding_side == "left" else 0
            ids = torch.tensor(row.input_ids, dtype=torch.long)
            input_ids[place, start : start + length] = ids
            attention_mask[place, start : start + length] = 1
            labels[place, start + row.prompt_length : start + length] = ids[row.prompt_length :]
            for low, high in row.spans:
                spans[place, start + low : start + high] = True
        prompt_lengths = torch.tensor([row.prompt_length for row in rows], dtype=torch.long)
        domains = stack_domains([row.domain for row in rows])
        return Batch(input_ids, attention_mask, labels, prompt_lengths, spans, domains)
