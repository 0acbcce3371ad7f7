"""A matrix R with orthonormal rows whose learning rate means what it means in the authors' code, at O(hidden rank^2).

pyreft and pyvene give R to ``torch.nn.utils.parametrizations.orthogonal``: R^T = B H(X), with B a full orthogonal
[hidden, hidden] matrix whose first columns are the R^T that training starts from, and H(X) a product of ``rank``
reflections that starts at X = 0. How far an optimiser's step turns R follows from that map. With a step of the same
size in A, R^T = qf(A) turns half as far, and then less and less, since the columns of A grow.

Here is the same map in other arithmetic. A product of the reflections I - 2 v_i v_i^T / |v_i|^2 is I - V T V^T with
T^-1 = striu(V^T V) + diag(|v_i|^2) / 2 (the compact WY form; Schreiber and Van Loan 1989, Puglisi 1992): some products
of thin matrices and a triangular solve of [rank, rank]. torch forms the [hidden, hidden] product, and its derivative
is slow. B is such a product too, of the reflections of the QR decomposition of the R^T that training starts from,
so nothing is [hidden, hidden].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable


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
    """Learns R [rank, hidden] with R R^T = I through X^T = ``turn`` [rank, hidden], which starts at 0; fp32.

    Only what is above the diagonal of ``turn`` counts, and any value of it gives an orthonormal R. So weight decay
    cannot shrink R: it pulls R back to where training started. torch's map for a square R is another one, the
    exponential of a skew matrix, whose first step turns R half as far; there ``turn`` is halved.

    Without gradients the last R is kept and used for as long as ``turn`` has the same bits. That saves the products
    in evaluation, and makes a loaded R exact: what comes from the map may differ from it in the last bit.

    Attributes:
        turn: what is learned.
        frame: rows that B's reflections are normal to, [rank, hidden].
        frame_factor: B's T, [rank, rank].
        signs: of B's first columns, [rank, 1]: of their reflected unit vectors, R starts as these multiples.

    Raises:
        ValueError: if rank is not between 1 and hidden.
    """

    frame: Tensor
    frame_factor: Tensor
    signs: Tensor
    kept_turn: Tensor
    kept_rotation: Tensor

    def __init__(self, hidden_size: int, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        if not 1 <= rank <= hidden_size:
            raise ValueError(
                f"rank must be between 1 and the hidden size {hidden_size}, because R has orthonormal rows; "
                f"got {rank}; choose a smaller rank"
            )
        self.turn = nn.Parameter(torch.zeros(rank, hidden_size))
        frame, factor, signs = _reflections(qf(torch.randn(hidden_size, rank, generator=generator)))
        self.register_buffer("frame", frame)
        self.register_buffer("frame_factor", factor)
        self.register_buffer("signs", signs)
        # Not persistent: both follow from the others. Buffers, so that they move with the module.
        self.register_buffer("kept_turn", torch.empty(0), persistent=False)
        self.register_buffer("kept_rotation", torch.empty(0), persistent=False)

    def forward(self) -> Tensor:
        """Return R [rank, hidden]."""
        if torch.is_grad_enabled() and self.turn.requires_grad:
            return self._turned()
        with torch.no_grad():
            if not torch.equal(self.kept_turn, self.turn):
                self.kept_turn = self.turn.detach().clone()
                self.kept_rotation = self._turned()
        return self.kept_rotation

    @torch.no_grad()
    def set_rotation(self, rotation: Tensor) -> None:
        """Make R equal ``rotation`` [rank, hidden], to the bit without gradients and to rounding with them.

        It becomes what training starts from.
        """
        parts = _reflections(rotation.mT.to(self.frame))
        for buffer, part in zip((self.frame, self.frame_factor, self.signs), parts, strict=True):
            buffer.copy_(part)
        self.turn.zero_()
        self.kept_turn = self.turn.detach().clone()
        self.kept_rotation = rotation.to(self.frame).contiguous().clone()

    def _turned(self) -> Tensor:
        rank, hidden = self.turn.shape
        turn = self.turn if rank < hidden else self.turn / 2
        return cast(Tensor, _Turned.apply(turn, self.frame, self.frame_factor, self.signs))

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], *arguments: Any) -> None:
        super()._load_from_state_dict(state_dict, *arguments)
        self.kept_turn = torch.empty(0)  # another R may have a turn of the same bits


class _Turned(torch.autograd.Function):
    """R = -D E^T (I - V T V^T)^T (I - F T_F F^T)^T, for v = V^T and f = F^T [rank, hidden], with its derivative.

    E is the first ``rank`` columns of the identity, V = E + tril(X, -1) and D = diag(``signs``). Written out,
    R = D (S^T v + M^T f - E^T) with S = T v E and M = T_F (f E - f V S), which takes four products with thin matrices.
    torch's B is (I - F T_F F^T) diag(D, I), and its X is ours with the signs of D on its rows and columns, to which
    an optimiser that works entry by entry is blind.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, turn: Tensor, frame: Tensor, frame_factor: Tensor, signs: Tensor) -> Tensor:
        rank = turn.shape[0]
        rows = turn.triu(1)
        rows.diagonal().fill_(1)
        # The sums over ``hidden`` decide how orthonormal R is, so they and what [rank, rank] follows are wider.
        wide, wide_frame = rows.to(_wider(turn)), frame.to(_wider(turn))
        inverse, overlap = _inverse_factor(wide @ wide.mT), wide @ wide_frame.mT
        own = torch.linalg.solve_triangular(inverse, wide[:, :rank], upper=True)
        framed = frame_factor.to(wide) @ (wide_frame[:, :rank] - overlap.mT @ own)
        inverse, overlap, own, framed = (each.to(turn) for each in (inverse, overlap, own, framed))
        rotation = (own.mT @ rows).addmm_(framed.mT, frame)
        rotation.diagonal().sub_(1)
        ctx.save_for_backward(rows, frame, frame_factor, signs, inverse, own, overlap)
        return rotation.mul_(signs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        rows, frame, frame_factor, signs, inverse, own, overlap = ctx.saved_tensors
        with torch.autocast(gradient.device.type, enabled=False):
            gradient = gradient * signs
            of_framed = frame_factor.mT @ (frame @ gradient.mT)
            of_own = rows @ gradient.mT - overlap @ of_framed
            of_top = torch.linalg.solve_triangular(inverse.mT, of_own, upper=False)
            of_inverse = -of_top @ own.mT
            of_gram = of_inverse.triu(1) + torch.diag(of_inverse.diagonal() / 2)
            of_rows = (own @ gradient).addmm_(of_gram + of_gram.mT, rows).addmm_(own @ of_framed.mT, frame, alpha=-1)
            of_rows[:, : len(rows)] += of_top
        return of_rows.triu_(1), None, None, None


def _wider(tensor: Tensor) -> torch.dtype:
    """Return fp64, where the device has it."""
    return torch.float64 if tensor.device.type != "mps" else tensor.dtype


def _inverse_factor(gram: Tensor) -> Tensor:
    """Return T^-1 [rank, rank] for V^T V."""
    return gram.triu(1) + torch.diag(gram.diagonal() / 2)


def _reflections(start: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return frame, factor and signs with (I - F T F^T) E D = ``start``, which has orthonormal columns."""
    hidden, rank = start.shape
    packed, scales = torch.geqrf(start)
    frame = packed.mT.triu(1) + torch.eye(rank, hidden, dtype=start.dtype, device=start.device)
    # Where LAPACK can do without a reflection its scale is 0; here it is done, and the sign undoes it.
    signs = packed.diagonal().sign() * torch.where(scales == 0, -1.0, 1.0).to(start.dtype)
    wide = frame.to(_wider(frame))
    factor = torch.linalg.inv(_inverse_factor(wide @ wide.mT)).to(start)
    return frame.contiguous(), factor, signs[:, None]
