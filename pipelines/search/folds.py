"""Which rows a run of a search trains on, and which it is asked.

Trials are asked the validation rows, which so choose the best of them, and flatter these. A run that confirms one is
asked training rows instead, and trains without them, on the validation rows in their place: cross-validation (Stone
1974), a fold for each run. No run reads a test row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.contracts.prepared import Row

OF_TRIALS = 0  # the place of the fold that every trial has


@dataclass(frozen=True)
class Fold:
    """The rows of a run: no row is in both."""

    train: list[Row]
    asked: list[Row]


def fold(train: Sequence[Row], validation: Sequence[Row], *, place: int, count: int) -> Fold:
    """Return the rows of the fold at a place.

    Args:
        train: the training split.
        validation: the validation split.
        place: 0 for a trial; from 1, for a run that confirms one: it is asked the next :func:`fold_size` training rows,
            from the first again after the last.
        count: how many rows it trains on, if the training split has so many.
    """
    if place == OF_TRIALS:
        return Fold(list(train[:count]), list(validation))
    size = fold_size(len(train), len(validation))
    asked = [(start + (place - 1) * size) % len(train) for start in range(size)]
    others = sorted(set(range(len(train))) - set(asked))
    return Fold([*(train[row] for row in others), *validation][: min(count, len(train))], [train[row] for row in asked])


def fold_size(train: int, validation: int) -> int:
    """How many rows a run that confirms is asked, in splits of so many.

    As many as a trial, but half of the training rows at most: so two runs are asked different rows.
    """
    return max(1, min(validation, train // 2))
