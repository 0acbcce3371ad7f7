"""The formula of NoReFT."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from reft.edits.interventions import Intervention, drawn_linear
from reft.edits.methods.forms import EditForm
from reft.edits.methods.noreft import METHOD


class Formula(Intervention):
    """h + W2^T(f(W1h + b) - W2h): LoReFT without orthonormality; W1 is ``weight``, W2 is ``projection``.

    With ``projection_bias``, W2h + b2 is subtracted, as pyreft's class with ``add_bias`` does. ``identity`` starts at
    W1 = W2 and b = b2 and needs the linear f.
    """

    METHOD = METHOD
    DECAYING = frozenset({"weight", "projection"})

    def _start(self, hidden_size: int, generator: torch.Generator) -> None:
        paper = EditForm(self.form.dimensions, init="paper")
        self.projection, projection_bias = drawn_linear(hidden_size, paper, generator)
        self.weight, self.bias = drawn_linear(hidden_size, self.form, generator)
        if self.form.projection_bias:
            self.projection_bias = projection_bias
        with torch.no_grad():
            if self.form.init == "identity":
                self.weight.copy_(self.projection)
                if self.form.projection_bias:
                    self.bias.copy_(self.projection_bias)

    def edit(self, h: Tensor) -> Tensor:
        source = self._activate(functional.linear(h, self.weight, self.bias))
        taken = functional.linear(h, self.projection, self.projection_bias if self.form.projection_bias else None)
        return (source - taken) @ self.projection
