"""Distributed alignment search: the rotation under which a swap does to a network what a hypothesis does to a variable.

The network is frozen; R alone is learned, by the cross-entropy of the counterfactual labels (Geiger et al. 2023,
Finding Alignments Between Interpretable Causal Variables and Distributed Neural Representations). Boundless DAS learns
the dimension too (Wu et al. 2023, Interpretability at Scale).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from reft.causal.accuracy import Sources
from reft.causal.counterfactuals import Counterfactual
from reft.causal.probes import Probe, S, X
from reft.causal.swaps import BoundlessSwap, RotatedSwap, Swap
from reft.training.fit import NonFiniteLossError
from reft.training.schedule import require


@dataclass(frozen=True)
class DasConfig:
    """How a rotation is learned; checks itself.

    Attributes:
        epochs: passes over the counterfactual rows.
        batch_size: rows of a step.
        learning_rate: Adam's at the first step, of R; it falls in a line.
        seed: of the rows' order.
        boundary_rate: Adam's learning rate of a boundless swap's boundary, at the first step.
        boundary_penalty: weight of the boundary beta in the loss: what makes it give up rows that it can do without.
        hot: a boundless swap's temperature at the first step, in rows.
        cold: at the last one; between, it falls in a geometric series.

    Raises:
        ValueError: at construction, for a value out of range.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    seed: int
    boundary_rate: float = 1e-2
    boundary_penalty: float = 0.05
    hot: float = 50.0
    cold: float = 0.1

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1", getattr(self, name))
        for name in ("learning_rate", "boundary_rate", "hot", "cold"):
            value = getattr(self, name)
            require(value > 0 and math.isfinite(value), f"{name} must be above 0 and finite", value)
        require(self.boundary_penalty >= 0, "boundary_penalty must not be negative", self.boundary_penalty)

    def temperature(self, step: int, total_steps: int) -> float:
        """Return a boundless swap's temperature at a step, from 0."""
        return self.hot * (self.cold / self.hot) ** (step / max(1, total_steps - 1))


@dataclass(frozen=True)
class DasStep:
    """One step: its number from 1, how many there are, and the mean loss of its rows before it, in nats."""

    step: int
    total_steps: int
    loss: float


def learn_rotation(
    probe: Probe[X, S], site: S, swap: RotatedSwap | BoundlessSwap, rows: Sequence[Counterfactual[X]], config: DasConfig
) -> Iterator[DasStep]:
    """Learn a swap's rotation at a site, in place, one step for each item of the iterator.

    Args:
        probe: the network.
        site: where the states are swapped.
        swap: what is learned.
        rows: counterfactual rows to learn from.
        config: how.

    Raises:
        ValueError: for no rows, or a variable that the swap does not know.
        NonFiniteLossError: from the iterator, before a step with a NaN or infinite loss is applied.
    """
    sources = Sources(probe, site, rows, batch_size=config.batch_size)
    steps = math.ceil(len(rows) / config.batch_size)
    total = config.epochs * steps
    optimizer = _optimizer(swap, config)
    rates = [group["lr"] for group in optimizer.param_groups]
    generator = torch.Generator().manual_seed(config.seed)
    for step in range(total):
        if step % steps == 0:
            order = torch.randperm(len(rows), generator=generator)
        places = order[step % steps * config.batch_size :][: config.batch_size]
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * (total - step) / total
        if isinstance(swap, BoundlessSwap):
            swap.temperature = config.temperature(step, total)
        chosen = [rows[place] for place in places.tolist()]
        with torch.enable_grad():
            logits = probe.answers([row.base for row in chosen], site, sources.swapped(swap, places))
            labels = torch.tensor([row.label for row in chosen], device=logits.device)
            loss = functional.cross_entropy(logits.float(), labels)
            penalised = loss + config.boundary_penalty * swap.share if isinstance(swap, BoundlessSwap) else loss
            optimizer.zero_grad(set_to_none=True)
            penalised.backward()
        if not torch.isfinite(loss):
            raise NonFiniteLossError(
                f"the loss of an alignment must be finite; got {loss.item()} at step {step + 1}; lower learning_rate"
            )
        optimizer.step()
        yield DasStep(step + 1, total, loss.item())


def _optimizer(swap: RotatedSwap | BoundlessSwap, config: DasConfig) -> torch.optim.Adam:
    groups: list[dict[str, object]] = [{"params": list(swap.rotation.parameters()), "lr": config.learning_rate}]
    if isinstance(swap, BoundlessSwap):
        groups.append({"params": [swap.boundary], "lr": config.boundary_rate})
    return torch.optim.Adam(groups)


def measured(swap: Swap) -> Swap:
    """Return the swap that is measured after learning: a boundless one with its boundary made hard."""
    return swap.hardened() if isinstance(swap, BoundlessSwap) else swap
