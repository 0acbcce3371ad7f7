"""Rows of real text for the measurements: windows of running text, cut into a prompt and a completion."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from reft import Encoded

COMPLETION = 10  # tokens
SPREAD = 0.3  # a prompt has from 1 - SPREAD to 1 + SPREAD times the nominal tokens


@dataclass(frozen=True)
class Text:
    """What the rows are cut from: texts in their order, and what the tables say of their origin."""

    texts: tuple[str, ...]
    origin: str


def text_rows(
    tokenizer: Callable[..., Any], texts: Iterable[str], *, prompt: int, count: int, completion: int = COMPLETION
) -> list[Encoded]:
    """Cut running text into rows, one after the other.

    The texts are joined by blank lines. Prompts have ``prompt`` tokens on average, evenly spread over 30 percent to
    either side, which is how much the questions of multiple-choice tasks differ in length; completions have all
    the same number. The same arguments give the same rows.

    Args:
        tokenizer: a transformers tokenizer.
        texts: read as far as is needed.
        prompt: nominal tokens of a prompt.
        count: how many rows.
        completion: tokens of each completion; 0 for prompts alone.

    Raises:
        ValueError: if the texts end before the rows are full.
    """
    generator = torch.Generator().manual_seed(prompt)
    low, high = round(prompt * (1 - SPREAD)), round(prompt * (1 + SPREAD))
    lengths = torch.randint(low, high + 1, (count,), generator=generator).tolist()
    tokens = _tokens(tokenizer, texts)
    return [Encoded(tuple(_take(tokens, length + completion)), length) for length in lengths]


def _tokens(tokenizer: Callable[..., Any], texts: Iterable[str]) -> Iterator[int]:
    for text in texts:
        yield from tokenizer(f"{text}\n\n", add_special_tokens=False)["input_ids"]


def _take(tokens: Iterator[int], count: int) -> list[int]:
    taken = list(islice(tokens, count))
    if len(taken) < count:
        raise ValueError(f"a row of {count} tokens needs as much text; got {len(taken)} at its end; give more text")
    return taken
