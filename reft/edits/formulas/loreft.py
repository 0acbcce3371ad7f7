"""The formula of LoReFT."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from reft.edits.interventions import Intervention, drawn_linear
from reft.edits.methods.loreft import METHOD
from reft.edits.orthogonal import OrthonormalRows


class Formula(Intervention):
    """h + R^T(f(Wh + b) - Rh) (LoReFT; Wu et al. 2024, ReFT, equation 2).

    ``identity`` starts at W = R and b = 0 and needs the linear f.
    """

    METHOD = METHOD
    DECAYING = frozenset({"weight"})

    def _start(self, hidden_size: int, generator: torch.Generator) -> None:
        self.rotation = OrthonormalRows(hidden_size, self.form.dimensions, generator)
        self.weight, self.bias = drawn_linear(hidden_size, self.form, generator)
        if self.form.init == "identity":
            with torch.no_grad():
                self.weight.copy_(self.rotation())

    def edit(self, h: Tensor) -> Tensor:
        rotation = self.rotation()
        if self.form.activation == "linear":
            # Wh + b - Rh as (W - R)h + b: one product fewer, and exactly 0 at the identity.
            return functional.linear(h, self.weight - rotation, self.bias) @ rotation
        source = self._activate(functional.linear(h, self.weight, self.bias))
        return (source - functional.linear(h, rotation)) @ rotation
