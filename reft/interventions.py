"""The edits: small modules that map hidden states to hidden states, h -> h, one formula a class.

No tokenizer, no files, no positions. Another member of the family (NoReFT, DiReFT, ...) is another class in
:data:`METHODS`.
"""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from reft.orthogonal import OrthonormalRows

Init = Literal["identity", "paper"]
INITS: tuple[str, ...] = get_args(Init)


class LoreftIntervention(nn.Module):
    """h + R^T(Wh + b - Rh), R with orthonormal rows (LoReFT; Wu et al. 2024, ReFT, equation 2).

    The arithmetic is in the parameters' fp32, whatever the base runs in, and the result is cast back.

    Args:
        hidden_size: width of the hidden states.
        rank: dimensions of the edited subspace.
        init: ``identity`` starts at W = R and b = 0, an edit that changes nothing; ``paper`` starts W and b as
            ``nn.Linear`` does beside a random R, as the authors' code does.
        generator: source of the initial values, on the CPU.

    Raises:
        ValueError: if rank is not between 1 and hidden_size.
    """

    PARAMETERS_THAT_DECAY = frozenset({"weight"})
    """R must not shrink, and a bias is not decayed by custom; so weight decay pulls W alone."""

    def __init__(self, hidden_size: int, rank: int, init: Init, generator: torch.Generator) -> None:
        super().__init__()
        self.rotation = OrthonormalRows(hidden_size, rank, generator)
        self.weight = nn.Parameter(torch.empty(rank, hidden_size))
        self.bias = nn.Parameter(torch.zeros(rank))
        with torch.no_grad():
            if init == "identity":
                self.weight.copy_(self.rotation())
            else:
                bound = 1 / math.sqrt(hidden_size)
                self.weight.uniform_(-bound, bound, generator=generator)
                self.bias.uniform_(-bound, bound, generator=generator)

    @staticmethod
    def count_parameters(hidden_size: int, rank: int) -> int:
        """Return r(2d + 1): R and W of r x d each, and b."""
        return rank * (2 * hidden_size + 1)

    @staticmethod
    def tensor_shapes(hidden_size: int, rank: int) -> dict[str, tuple[int, ...]]:
        """Return the names and shapes of what :meth:`export_tensors` gives."""
        return {"rotation": (rank, hidden_size), "weight": (rank, hidden_size), "bias": (rank,)}

    def forward(self, h: Tensor) -> Tensor:
        """Edit hidden states.

        Args:
            h: [..., hidden], any floating dtype.

        Returns:
            Tensor of the same shape and dtype.
        """
        with torch.autocast(h.device.type, enabled=False):
            wide = h.to(self.weight.dtype)
            rotation = self.rotation()
            # Wh + b - Rh as (W - R)h + b: one product fewer, and exactly 0 at the identity.
            change = functional.linear(wide, self.weight - rotation, self.bias)
            return (wide + change @ rotation).to(h.dtype)

    @torch.no_grad()
    def export_tensors(self) -> dict[str, Tensor]:
        """Return what an adapter file holds: R itself (``rotation``), W and b, on the CPU."""
        tensors = {"rotation": self.rotation(), "weight": self.weight, "bias": self.bias}
        return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}

    @torch.no_grad()
    def import_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take over checked tensors of :meth:`export_tensors`; without gradients the edit is then bit-equal."""
        self.rotation.set_rotation(tensors["rotation"].to(self.weight.device))
        self.weight.copy_(tensors["weight"])
        self.bias.copy_(tensors["bias"])


METHODS = MappingProxyType({"loreft": LoreftIntervention})
