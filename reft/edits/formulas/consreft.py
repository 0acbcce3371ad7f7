"""The formula of ConsReFT."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from reft.edits.interventions import Intervention
from reft.edits.methods.consreft import METHOD
from reft.edits.orthogonal import OrthonormalRows


class Formula(Intervention):
    """h + R^T(b - Rh): the subspace is set to the constant b. It cannot start at the identity."""

    METHOD = METHOD

    def _start(self, hidden_size: int, generator: torch.Generator) -> None:
        self.rotation = OrthonormalRows(hidden_size, self.form.dimensions, generator)
        self.bias = nn.Parameter(torch.rand(self.form.dimensions, generator=generator))

    def edit(self, h: Tensor) -> Tensor:
        rotation = self.rotation()
        return (self.bias - functional.linear(h, rotation)) @ rotation
