"""The formula of DiReFT with an orthonormal R."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from reft.edits.interventions import Intervention, drawn_linear
from reft.edits.methods.direft_orthogonal import METHOD
from reft.edits.orthogonal import OrthonormalRows


class Formula(Intervention):
    """h + R^T f(Wh + b) (pyreft's ``DireftIntervention``).

    ``identity`` starts at W = 0 and b = 0 and needs an f with a slope there, which relu has not.
    """

    METHOD = METHOD
    DECAYING = frozenset({"weight"})

    def _start(self, hidden_size: int, generator: torch.Generator) -> None:
        self.rotation = OrthonormalRows(hidden_size, self.form.dimensions, generator)
        self.weight, self.bias = drawn_linear(hidden_size, self.form, generator)

    def edit(self, h: Tensor) -> Tensor:
        return self._activate(functional.linear(h, self.weight, self.bias)) @ self.rotation()
