"""The formula of DiReFT."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from reft.edits.interventions import Intervention, drawn_linear
from reft.edits.methods.direft import METHOD
from reft.edits.methods.forms import EditForm


class Formula(Intervention):
    """h + W2^T f(W1h + b) (the paper's DiReFT, equation 3; pyreft's ``NodireftIntervention``).

    ``identity`` starts at W2 = 0, as LoRA does, so it goes with every f.
    """

    METHOD = METHOD
    DECAYING = frozenset({"weight", "projection"})

    def _start(self, hidden_size: int, generator: torch.Generator) -> None:
        self.projection, _ = drawn_linear(hidden_size, self.form, generator)
        self.weight, self.bias = drawn_linear(hidden_size, EditForm(self.form.dimensions, init="paper"), generator)

    def edit(self, h: Tensor) -> Tensor:
        return self._activate(functional.linear(h, self.weight, self.bias)) @ self.projection
