"""Interchange intervention accuracy: how often a network answers as a hypothesis says it would.

With sources' states in the place of its own at a site, the share of counterfactual rows that the network answers with
their label (Geiger et al. 2021, section 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

from reft.causal.counterfactuals import Counterfactual, moved_variables
from reft.causal.probes import Probe, S, X, read_states
from reft.causal.swaps import Swap


@dataclass(frozen=True)
class Accuracy:
    """A share of right answers.

    Attributes:
        right: how many were.
        rows: of how many, at least 1.
        confidence: of the interval.
    """

    right: int
    rows: int
    confidence: float = 0.95

    @property
    def value(self) -> float:
        """The share."""
        return self.right / self.rows

    @property
    def interval(self) -> tuple[float, float]:
        """The bounds of the share's confidence interval (Wilson 1927)."""
        z = NormalDist().inv_cdf((1 + self.confidence) / 2)
        middle = (self.value + z * z / (2 * self.rows)) / (1 + z * z / self.rows)
        spread = (self.value * (1 - self.value) / self.rows + z * z / (4 * self.rows**2)) ** 0.5
        reach = z * spread / (1 + z * z / self.rows)
        return max(0.0, middle - reach), min(1.0, middle + reach)


class Sources:
    """What the sources of counterfactual rows have at a site, read once: the network is frozen.

    Args:
        probe: the network.
        site: where.
        rows: the rows; each may move other variables.
        batch_size: rows of one pass.
    """

    def __init__(self, probe: Probe[X, S], site: S, rows: Sequence[Counterfactual[X]], *, batch_size: int) -> None:
        self.variables = moved_variables(rows)
        base = read_states(probe, [row.base for row in rows], site, batch_size=batch_size)
        self._states: dict[str, Tensor] = {}
        self._taken: dict[str, Tensor] = {}
        for name in self.variables:
            places = [place for place, row in enumerate(rows) if any(each.variable == name for each in row.taken)]
            sources = [each.source for row in rows for each in row.taken if each.variable == name]
            chosen = torch.tensor(places, device=base.device)
            states = read_states(probe, sources, site, batch_size=batch_size)
            self._states[name] = base.index_copy(0, chosen, states)
            self._taken[name] = torch.zeros(len(rows), dtype=torch.bool, device=base.device).index_fill(0, chosen, True)
        self._base = base

    def swapped(self, swap: Swap, places: Tensor) -> Tensor:
        """Return the states of some rows after the swap of every variable that they move, [places, ..., hidden]."""
        places = places.to(self._base.device)
        edited = self._base[places]
        for name in self.variables:
            taken = self._taken[name][places].view(-1, *[1] * (edited.dim() - 1))
            edited = torch.where(taken, swap(edited, self._states[name][places], name), edited)
        return edited


@torch.no_grad()
def interchange_accuracy(
    probe: Probe[X, S], site: S, swap: Swap, rows: Sequence[Counterfactual[X]], *, batch_size: int
) -> Accuracy:
    """Return the interchange intervention accuracy of a swap at a site.

    Args:
        probe: the network.
        site: where the states are swapped.
        swap: how.
        rows: counterfactual rows, a row or more.
        batch_size: rows of one pass.

    Raises:
        ValueError: for no rows, or a variable that the swap does not know.
    """
    sources = Sources(probe, site, rows, batch_size=batch_size)
    right = 0
    for start in range(0, len(rows), batch_size):
        chosen = rows[start : start + batch_size]
        states = sources.swapped(swap, torch.arange(start, start + len(chosen)))
        right += _right(probe.answers([row.base for row in chosen], site, states), [row.label for row in chosen])
    return Accuracy(right, len(rows))


@torch.no_grad()
def unchanged_accuracy(probe: Probe[X, S], rows: Sequence[Counterfactual[X]], *, batch_size: int) -> Accuracy:
    """Return how often the network's own answer to the base is the counterfactual label: what no swap at all gives."""
    return answer_accuracy(probe, [row.base for row in rows], [row.label for row in rows], batch_size=batch_size)


@torch.no_grad()
def answer_accuracy(probe: Probe[X, S], inputs: Sequence[X], labels: Sequence[int], *, batch_size: int) -> Accuracy:
    """Return how often the network answers inputs, as they are, with their labels."""
    right = 0
    for start in range(0, len(inputs), batch_size):
        part = slice(start, start + batch_size)
        right += _right(probe.logits(inputs[part]), labels[part])
    return Accuracy(right, len(inputs))


def _right(logits: Tensor, labels: Sequence[int]) -> int:
    return int((logits.argmax(-1).cpu() == torch.tensor(labels)).sum())
