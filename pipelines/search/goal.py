"""What the trials of a study are ordered by: the task's measure, or the loss of the validation rows."""

from __future__ import annotations

import numpy as np
from optuna.trial import FrozenTrial

from pipelines.tasks.measures import Floats

LOSSES = "losses"  # user attribute of a trial, where search.judge is loss: that of the validation rows at each report
LEAST = 1e-300  # of a probability, whose logarithm is a number


def goal(trial: FrozenTrial) -> float:
    """The figure of a complete trial that sampler, pruner and choice go by; higher is better."""
    losses: dict[str, float] | None = trial.user_attrs.get(LOSSES)
    return float(trial.values[0]) if losses is None else -losses[str(max(map(int, losses)))]


def loss(likely: Floats) -> float:
    """Minus the logarithm of the probability of the right answer, the mean over rows, in nats."""
    return float(-np.log(np.maximum(likely, LEAST)).mean())
