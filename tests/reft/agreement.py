"""Whether losses and gradients by the cone are those of whole rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reft.models.adapted import AdaptedModel


@dataclass(frozen=True)
class Difference:
    """The largest differences: of a target's loss in nats, of a gradient's entry in parts of the largest entry."""

    loss: float
    gradient: float
    largest: float

    def within(self, bound: float) -> bool:
        """Whether both are at most ``bound``; false for NaN, and where there is no gradient to compare."""
        return self.loss <= bound and self.gradient <= bound and self.largest > 1e-6


def difference(model: AdaptedModel, rows: Sequence[Any]) -> Difference:
    """Compare a batch by the cone with the sum over its rows, each alone and whole, at the same parameters.

    Alone, a row has no padding, which some families turn into NaN in float64.
    """
    parameters = list(model.trainable_parameters().values())

    def gradients(losses: Tensor) -> list[Tensor]:
        if not losses.requires_grad:  # no token of the rows is edited
            return [torch.zeros_like(p) for p in parameters]
        found = torch.autograd.grad(losses.sum(), parameters, allow_unused=True)
        return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]

    whole = torch.cat([model.target_losses(model.collate([row], 0).to(model.device)) for row in rows])
    cone = model.row_losses(rows, 0)
    pairs = list(zip(gradients(whole), gradients(cone), strict=True))
    largest = max(one.abs().max().item() for one, _ in pairs)
    worst = max((one - other).abs().max().item() for one, other in pairs)
    return Difference((whole - cone).abs().max().item(), worst / max(largest, 1e-6), largest)
