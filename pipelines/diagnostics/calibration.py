"""Whether the probabilities of answers are to be believed: how often answers with each probability are right."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipelines.contracts.diagnostics import Calibration, ReliabilityBin
from pipelines.tasks.family import Confidences

BINS = 10  # of equal width, as Guo et al. 2017 take


def calibration(answered: Confidences) -> Calibration:
    """The expected calibration error (Naeini et al. 2015): the bins' gaps, weighted by their rows.

    A bin holds its upper end, as theirs does; bins without rows are left out.
    """
    edges = np.linspace(0.0, 1.0, BINS + 1)
    places = np.clip(np.searchsorted(edges, answered.said, side="left") - 1, 0, BINS - 1)
    bins = [
        ReliabilityBin(
            low=float(edges[place]),
            high=float(edges[place + 1]),
            rows=int(inside.sum()),
            confidence=float(answered.said[inside].mean()),
            accuracy=float(answered.right[inside].mean()),
        )
        for place in range(BINS)
        if (inside := places == place).any()
    ]
    return Calibration(expected_error(bins), bins)


def expected_error(bins: Sequence[ReliabilityBin]) -> float:
    """The mean over rows of how far confidence and accuracy of their bins are apart."""
    rows = sum(each.rows for each in bins)
    return sum(each.rows * abs(each.accuracy - each.confidence) for each in bins) / rows
