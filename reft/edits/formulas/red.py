"""The formula of RED."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reft.edits.interventions import Intervention
from reft.edits.methods.red import METHOD


class Formula(Intervention):
    """h * s + b, coordinate by coordinate. It starts at s = 1 and b = 0, which changes nothing; s is ``scale``."""

    METHOD = METHOD

    scale: nn.Parameter

    def _start(self, hidden_size: int, _generator: torch.Generator) -> None:
        self.scale = nn.Parameter(torch.ones(hidden_size))
        self.bias = nn.Parameter(torch.zeros(hidden_size))

    def edit(self, h: Tensor) -> Tensor:
        return h * (self.scale - 1) + self.bias
