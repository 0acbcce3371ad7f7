"""A matrix with orthonormal rows, R = qf(A)^T by thin QR.

torch's ``parametrizations.orthogonal`` keeps a full [hidden, hidden] buffer for each matrix, and its trivialised form
collapses to R = 0 after one AdamW step with weight decay. Here A is [hidden, rank], the cost is O(hidden rank^2),
and R depends only on the span and orientation of A's columns, so scaling A (which is what decay does) leaves R as it
is.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def qf(matrix: Tensor) -> Tensor:
    """Return the Q factor of ``matrix`` [hidden, rank] whose triangular factor has a positive diagonal.

    The sign rule makes the factor unique, so ``qf`` is continuous and ``qf(Q) = Q`` to rounding for orthonormal
    columns.
    """
    q, triangle = torch.linalg.qr(matrix, mode="reduced")
    diagonal = triangle.diagonal(dim1=-2, dim2=-1)
    return q * torch.where(diagonal < 0, -1.0, 1.0).to(q.dtype)


def orthonormality_error(rotation: Tensor) -> float:
    """Return the largest entry of |R R^T - I| for ``rotation`` [rank, hidden]."""
    gram = rotation.double() @ rotation.double().mT
    return (gram - torch.eye(gram.shape[0], dtype=gram.dtype, device=gram.device)).abs().max().item()


class OrthonormalRows(nn.Module):
    """Learns R [rank, hidden] with R R^T = I through an unconstrained A [hidden, rank]; fp32.

    Without gradients the last R is kept and used for as long as A has the same bits. That saves the factorisation
    in evaluation, and makes a loaded R exact: qf(R) may differ from R in the last bit, the kept R does not.

    Raises:
        ValueError: if rank is not between 1 and hidden.
    """

    kept_base: Tensor
    kept_rotation: Tensor

    def __init__(self, hidden_size: int, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        if not 1 <= rank <= hidden_size:
            raise ValueError(
                f"rank must be between 1 and the hidden size {hidden_size}, because R has orthonormal rows; "
                f"got {rank}; choose a smaller rank"
            )
        # Contiguous: QR returns columns, and a fused optimiser takes the layout of its state for the parameter's.
        self.base = nn.Parameter(qf(torch.randn(hidden_size, rank, generator=generator)).contiguous())
        # Not persistent: both follow from ``base``. Buffers, so that they move with the module.
        self.register_buffer("kept_base", torch.empty(0), persistent=False)
        self.register_buffer("kept_rotation", torch.empty(0), persistent=False)

    def forward(self) -> Tensor:
        """Return R [rank, hidden]."""
        if torch.is_grad_enabled() and self.base.requires_grad:
            return _rows(self.base)
        with torch.no_grad():
            if not torch.equal(self.kept_base, self.base):
                self.kept_base = self.base.detach().clone()
                self.kept_rotation = _rows(self.base)
        return self.kept_rotation

    @torch.no_grad()
    def set_rotation(self, rotation: Tensor) -> None:
        """Make R equal ``rotation`` [rank, hidden], to the bit without gradients and to rounding with them."""
        self.base.copy_(rotation.mT)
        self.kept_base = self.base.detach().clone()
        self.kept_rotation = rotation.to(self.base).contiguous().clone()


def _rows(base: Tensor) -> Tensor:
    # Contiguous like a loaded R: another memory layout may take another matrix kernel, with other last bits.
    return qf(base).mT.contiguous()
