"""Training a right option against the wrong ones: cross-entropy of a softmax over the options' scores.

A question becomes a row for each of its options, so every model that has losses of rows can be trained so, by its cone
where it has one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from reft.data import Encoded, to_device
from reft.training.trainable import Trainable


@dataclass(frozen=True)
class Question:
    """A prompt with its options, one of which is right: one training row.

    Attributes:
        options: the prompt with each option as its completion.
        right: the place of the right one.
        lengths: of each option, what its log-likelihood is divided by to make its score; 1 for the sum of its tokens.

    Raises:
        ValueError: at construction, for fewer than two options, a right one that is none, an option without tokens, or
            lengths that are not one above 0 for each.
    """

    options: tuple[Encoded, ...]
    right: int
    lengths: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.options) < 2 or not 0 <= self.right < len(self.options):
            raise ValueError(
                f"a question has two options or more, and the right one is among them; got {len(self.options)} and "
                f"{self.right}; correct it"
            )
        if not all(option.num_targets for option in self.options):
            raise ValueError("each option of a question has a token or more; got one without; leave the row out")
        if len(self.lengths) != len(self.options) or min(self.lengths) <= 0:
            raise ValueError(
                f"each of {len(self.options)} options has a length above 0; got {self.lengths}; correct it"
            )

    @property
    def num_tokens(self) -> int:
        """How many tokens the model reads."""
        return sum(option.num_tokens for option in self.options)

    @property
    def num_targets(self) -> int:
        """A question has one loss: of the choice among its options."""
        return 1


def base_rows(rows: Sequence[Any]) -> list[Any]:
    """Return what the model runs of training rows: each option of a question; any other row as it is."""
    return [each for row in rows for each in (row.options if isinstance(row, Question) else (row,))]


def costs_of(model: Trainable, rows: Sequence[Any]) -> tuple[int, ...]:
    """Return each row's cost in a batch, of a question the sum over its options."""
    costs = iter(model.costs(base_rows(rows)))
    return tuple(sum(next(costs) for _ in base_rows([row])) for row in rows)


def losses_of(model: Trainable, rows: Sequence[Any], pad_id: int) -> Tensor:
    """Return the loss of each target of the rows, fp32 or wider [targets]; of a question in nats over its options."""
    if not any(isinstance(row, Question) for row in rows):
        return model.row_losses(rows, pad_id)
    options = base_rows(rows)
    parts = iter(model.row_losses(options, pad_id).split([option.num_targets for option in options]))
    losses = []
    for row in rows:
        if isinstance(row, Question):
            likely = -torch.stack([next(parts).sum() for _ in row.options])
            scores = likely / to_device(torch.tensor(row.lengths, dtype=likely.dtype), likely.device)
            losses.append(functional.cross_entropy(scores, to_device(torch.tensor(row.right), scores.device)).view(1))
        else:
            losses.append(next(parts))
    return torch.cat(losses)
