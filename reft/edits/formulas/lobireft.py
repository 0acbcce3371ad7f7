"""The formula of LobiReFT."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reft.edits.interventions import Intervention
from reft.edits.methods.lobireft import METHOD
from reft.edits.orthogonal import OrthonormalRows


class Formula(Intervention):
    """h + R^T b: a learned bias of rank r. ``identity`` starts at b = 0, ``paper`` at b uniform in [0, 1)."""

    METHOD = METHOD

    def _start(self, hidden_size: int, generator: torch.Generator) -> None:
        self.rotation = OrthonormalRows(hidden_size, self.form.dimensions, generator)
        drawn = torch.rand(self.form.dimensions, generator=generator)
        self.bias = nn.Parameter(drawn if self.form.init == "paper" else torch.zeros_like(drawn))

    def edit(self, h: Tensor) -> Tensor:
        return (self.bias @ self.rotation()).expand_as(h)
