"""What is run of the choices after prompts: all tokens of a choice but the last, which predicts nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reft.cone.constants import Ids
from reft.data import to_device

Pick = tuple[int, int]
"""A column of log-probabilities, and the token whose one is meant."""


@dataclass(frozen=True)
class Stem:
    """How some of the choices of a prompt begin.

    Attributes:
        row: of the prompt.
        ids: all tokens of the choices but the last.
        places: which choices of the row begin so.
    """

    row: int
    ids: Ids
    places: tuple[int, ...]


def stems_of(choices: Sequence[Sequence[Ids]]) -> list[Stem]:
    """Return how the choices of each row begin, each beginning of a row once: in order of length, to pad little."""
    found: dict[tuple[int, Ids], list[int]] = {}
    for row, own in enumerate(choices):
        for place, choice in enumerate(own):
            found.setdefault((row, choice[:-1]), []).append(place)
    stems = [Stem(row, ids, tuple(places)) for (row, ids), places in found.items()]
    return sorted(stems, key=lambda stem: (len(stem.ids), stem.ids, stem.row))


def in_passes(stems: Sequence[Stem], rows: int) -> Iterator[Sequence[Stem]]:
    """Yield as many stems at a time as there are rows in a batch."""
    for start in range(0, len(stems), rows):
        yield stems[start : start + rows]


def log_probabilities(logits: Tensor) -> Tensor:
    """Return them in nats over the last dimension, fp32 or wider."""
    return (logits if logits.dtype == torch.float64 else logits.float()).log_softmax(-1)


def add_picked(words: Tensor, picked: Sequence[Sequence[Pick]]) -> list[Tensor]:
    """Return for each choice the sum of the log-probabilities that are picked for it, on the CPU.

    Args:
        words: [columns, vocabulary].
        picked: of each choice.
    """
    columns, tokens = zip(*(pick for picks in picked for pick in picks), strict=True)
    column, token = (to_device(torch.tensor(each), words.device) for each in (columns, tokens))
    return [part.sum() for part in words[column, token].cpu().split([len(picks) for picks in picked])]
