"""When training does what: rows and learning rate of each step, from the step's number alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch

from reft.files import canonical_json, sha256

WINDOW = 32  # steps whose rows are sorted together: enough for little padding, few enough to stay random


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How to train; checks itself.

    Attributes:
        epochs: passes over the rows.
        batch_size: rows in one forward pass.
        learning_rate: its height, reached after the warm-up.
        accumulation: batches to one optimiser step.
        warmup_ratio: share of all steps before that, in [0, 1).
        weight_decay: AdamW's, for the free matrices alone: R cannot shrink, so its parameter is left out, and so is b.
        max_grad_norm: bound of the gradient's norm over all parameters.
        seed: of the rows' order.
        checkpoint_every: optimiser steps between two checkpoints; there is also one after the last step.
        gradient_checkpointing: whether the base's layers are run again in the backward pass, for less memory.

    Raises:
        ValueError: at construction, for a value out of range.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    accumulation: int = 1
    warmup_ratio: float = 0.1
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    seed: int = 42
    checkpoint_every: int = 100
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulation", "checkpoint_every"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1", getattr(self, name))
        for name in ("learning_rate", "max_grad_norm"):
            value = getattr(self, name)
            require(value > 0 and math.isfinite(value), f"{name} must be above 0 and finite", value)
        require(0 <= self.warmup_ratio < 1, "warmup_ratio must be in [0, 1)", self.warmup_ratio)
        require(0 <= self.weight_decay < math.inf, "weight_decay must not be negative", self.weight_decay)


@dataclass(frozen=True)
class Schedule:
    """Which rows and which learning rate each step has: a function of the step's number alone, so resuming needs none.

    Attributes:
        costs: of each row in a batch, such as its tokens.
        config: the training's numbers.
        max_steps: bound of the number of steps; the learning rate falls to the end of what is run. None for none.
    """

    costs: tuple[int, ...]
    config: FitConfig
    max_steps: int | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps to one pass over the rows; the last may be of fewer rows."""
        return math.ceil(math.ceil(len(self.costs) / self.config.batch_size) / self.config.accumulation)

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole training."""
        steps = self.config.epochs * self.steps_per_epoch
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of ``step``, from 0: up in a line over the warm-up, then down in a line.

        No step has a rate of 0; in a training of few steps that would waste one.
        """
        warmup = math.ceil(self.config.warmup_ratio * self.total_steps)
        if step < warmup:
            return self.config.learning_rate * (step + 1) / warmup
        return self.config.learning_rate * (self.total_steps - step) / (self.total_steps - warmup)

    def batches(self, step: int) -> list[list[int]]:
        """Return the row numbers of each batch of ``step``, from 0."""
        epoch, place = divmod(step, self.steps_per_epoch)
        size = self.config.batch_size
        rows = size * self.config.accumulation
        order = _order(self.costs, rows, self.config.seed, epoch)
        chosen = order[place * rows : (place + 1) * rows]
        return [list(chosen[at : at + size]) for at in range(0, len(chosen), size)]


@lru_cache(maxsize=2)
def _order(costs: tuple[int, ...], step_rows: int, seed: int, epoch: int) -> tuple[int, ...]:
    """Return the order of the rows in an epoch: random, but with rows of about one cost in a step.

    Padding costs as much as text, so each window of ``WINDOW`` steps of a random order is sorted by cost before it is
    cut into steps, and the steps are put in a random order again. The rows that fill no step come last. How a step is
    cut into batches changes nothing. From the arguments alone, with ``torch.randperm`` on the CPU.
    """
    generator = torch.Generator().manual_seed(int(sha256(canonical_json([seed, epoch]))[:15], 16))
    order = torch.randperm(len(costs), generator=generator).tolist()
    full = len(order) - len(order) % step_rows
    steps: list[list[int]] = []
    for start in range(0, full, WINDOW * step_rows):
        window = sorted(order[start : min(start + WINDOW * step_rows, full)], key=lambda row: costs[row])
        steps += [window[at : at + step_rows] for at in range(0, len(window), step_rows)]
    shuffled = [steps[place] for place in torch.randperm(len(steps), generator=generator).tolist()]
    return tuple(row for step in [*shuffled, order[full:]] for row in step)


def require(holds: bool, rule: str, value: object) -> None:
    """Raise a ValueError with the rule and the value unless the rule holds."""
    if not holds:
        raise ValueError(f"{rule}; got {value}; correct it")
