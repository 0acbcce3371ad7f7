"""Every edit of the family as one: h + f(D h + d) U, with some rows of D under an activation, or h * s + t for RED.

    loreft              h + R^T(f(Wh + b) - Rh)
    noreft              h + W2^T(f(W1h + b) - W2h)
    direft              h + W2^T f(W1h + b)
    direft_orthogonal   h + R^T f(Wh + b)
    consreft            h + R^T(b - Rh)
    lobireft            h + R^T b
    red                 h * s + b

With a linear f the two matrices that h is multiplied by are one, W - R; else both are rows of D, and U has R and -R.
So a batch of requests under adapters of any of these methods takes one product down and one up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda x: x,
    "relu": functional.relu,
    "leaky_relu": functional.leaky_relu,
    "gelu": functional.gelu,
    "gelu_pytorch_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "silu": functional.silu,
    "tanh": torch.tanh,
}


@dataclass(frozen=True)
class Method:
    """What a method trains.

    Attributes:
        wide: names of matrices [rank, hidden].
        thin: names of vectors [rank].
        down: the matrix under f; None where b alone is.
        away: the matrix that is subtracted; None if nothing is.
        up: the matrix that leads back.
    """

    wide: tuple[str, ...]
    thin: tuple[str, ...]
    down: str | None
    away: str | None
    up: str


METHODS = {
    "loreft": Method(("rotation", "weight"), ("bias",), "weight", "rotation", "rotation"),
    "noreft": Method(("projection", "weight"), ("bias",), "weight", "projection", "projection"),
    "direft": Method(("projection", "weight"), ("bias",), "weight", None, "projection"),
    "direft_orthogonal": Method(("rotation", "weight"), ("bias",), "weight", None, "rotation"),
    "consreft": Method(("rotation",), ("bias",), None, "rotation", "rotation"),
    "lobireft": Method(("rotation",), ("bias",), None, None, "rotation"),
}
DIAGONAL = "red"


@dataclass(frozen=True)
class LowRank:
    """An edit h + f(D h + d) U, fp32.

    Attributes:
        down: D [rows, hidden].
        bias: d [rows].
        up: U [rows, hidden].
        activation: f, a key of :data:`ACTIVATIONS`.
        activated: how many of the first rows are under f.
    """

    down: Tensor
    bias: Tensor
    up: Tensor
    activation: str
    activated: int


@dataclass(frozen=True)
class Diagonal:
    """An edit h * s + t, fp32, kept as h + h * (s - 1) + t.

    Attributes:
        scale: s - 1 [hidden].
        shift: t [hidden].
    """

    scale: Tensor
    shift: Tensor


Form = LowRank | Diagonal


def shapes(method: str, hidden: int, rank: int | None, *, projection_bias: bool) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of what an adapter file holds of one edit.

    Raises:
        ValueError: for a method that is not known, or no rank where there must be one.
    """
    if method == DIAGONAL:
        return {"scale": (hidden,), "bias": (hidden,)}
    if method not in METHODS or rank is None:
        known = ", ".join((*METHODS, DIAGONAL))
        raise ValueError(f"an edit is one of {known}, with a rank but for {DIAGONAL}; got {method} of rank {rank}")
    known_as = METHODS[method]
    thin = (*known_as.thin, "projection_bias") if projection_bias else known_as.thin
    return {**dict.fromkeys(known_as.wide, (rank, hidden)), **dict.fromkeys(thin, (rank,))}


def form_of(method: str, tensors: Mapping[str, Tensor], activation: str) -> Form:
    """Return the one form of an edit from the tensors of its method."""
    if method == DIAGONAL:
        return Diagonal(tensors["scale"] - 1, tensors["bias"])
    parts = METHODS[method]
    up, bias = tensors[parts.up], tensors["bias"]
    down = torch.zeros_like(up) if parts.down is None else tensors[parts.down]
    away = None if parts.away is None else tensors[parts.away]
    subtracted = tensors.get("projection_bias", torch.zeros_like(bias))
    if activation == "linear":
        down = down if away is None else down - away
        return LowRank(down, bias - subtracted, up, activation, 0)
    if away is None:
        return LowRank(down, bias, up, activation, len(bias))
    return LowRank(torch.cat((down, away)), torch.cat((bias, subtracted)), torch.cat((up, -up)), activation, len(bias))
