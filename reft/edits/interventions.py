"""The edits: small modules that map hidden states to hidden states, h -> h, one formula a class.

No tokenizer, no files, no positions. R has orthonormal rows; W, W1 and W2 are free; f is the activation.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from reft.edits.forms import EditForm, check_form
from reft.edits.orthogonal import OrthonormalRows

ACTIVATIONS = MappingProxyType(
    {
        "linear": lambda x: x,
        "relu": functional.relu,
        "leaky_relu": functional.leaky_relu,
        "gelu": functional.gelu,
        "gelu_pytorch_tanh": lambda x: functional.gelu(x, approximate="tanh"),
        "silu": functional.silu,
        "tanh": torch.tanh,
    }
)
"""By transformers' names. Each maps 0 to 0, so W = 0 and b = 0 is an edit of nothing."""


class Intervention(nn.Module, ABC):
    """One edit of the family: h + an edit, in the parameters' fp32 whatever the base runs in; the sum is cast back.

    Args:
        hidden_size: width d of the hidden states.
        form: rank, start, activation and dropout.
        generator: source of the initial values, on the CPU.

    Raises:
        ValueError: if the rank is not between 1 and hidden_size, or the method has no such form.
    """

    DECAYING: ClassVar[frozenset[str]] = frozenset()
    """The parameters that weight decay pulls: matrices. R must not shrink, and a bias is not decayed by custom."""

    NAME: ClassVar[str]
    """What a config calls the method."""

    bias: nn.Parameter
    weight: nn.Parameter
    projection: nn.Parameter
    projection_bias: nn.Parameter
    rotation: OrthonormalRows

    def __init__(self, hidden_size: int, form: EditForm, generator: torch.Generator) -> None:
        super().__init__()
        check_form(self.NAME, form)
        if form.rank > hidden_size:
            raise ValueError(
                f"rank must be between 1 and the hidden size {hidden_size}, because an edit lives in a subspace; "
                f"got {form.rank}; choose a smaller rank"
            )
        self.form = form
        self._activate = ACTIVATIONS[form.activation]
        self._start(hidden_size, generator)

    @staticmethod
    @abstractmethod
    def tensor_shapes(hidden_size: int, form: EditForm) -> dict[str, tuple[int, ...]]:
        """Return the names and shapes of what :meth:`export_tensors` gives."""

    @classmethod
    def count_parameters(cls, hidden_size: int, form: EditForm) -> int:
        """Return the number of trained values."""
        return sum(math.prod(shape) for shape in cls.tensor_shapes(hidden_size, form).values())

    @abstractmethod
    def _start(self, hidden_size: int, generator: torch.Generator) -> None:
        """Make the parameters and give them their first values."""

    @abstractmethod
    def edit(self, h: Tensor) -> Tensor:
        """Return what is added to ``h`` [..., hidden], in the parameters' dtype."""

    def forward(self, h: Tensor) -> Tensor:
        """Edit hidden states.

        Args:
            h: [..., hidden], any floating dtype.

        Returns:
            Tensor of the same shape and dtype.
        """
        with torch.autocast(h.device.type, enabled=False):
            wide = h.to(self.bias.dtype)
            edit = self.edit(wide)
            if self.form.dropout and self.training:
                if self.form.dropout_on == "output":
                    return functional.dropout(wide + edit, self.form.dropout).to(h.dtype)
                edit = functional.dropout(edit, self.form.dropout)
            return (wide + edit).to(h.dtype)

    @torch.no_grad()
    def export_tensors(self) -> dict[str, Tensor]:
        """Return what an adapter file holds, on the CPU; R itself (``rotation``), not what it is parametrised by."""
        tensors: dict[str, Tensor] = dict(self.named_parameters(recurse=False))
        if isinstance(self._modules.get("rotation"), OrthonormalRows):
            tensors["rotation"] = self.rotation()
        return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}

    @torch.no_grad()
    def import_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over checked tensors of :meth:`export_tensors`; without gradients the edit is then bit-equal."""
        for name, parameter in self.named_parameters(recurse=False):
            parameter.copy_(tensors[name])
        if "rotation" in tensors:
            self.rotation.set_rotation(tensors["rotation"].to(self.bias.device))


class LoreftIntervention(Intervention):
    """h + R^T(f(Wh + b) - Rh) (LoReFT; Wu et al. 2024, ReFT, equation 2).

    ``identity`` starts at W = R and b = 0 and needs the linear f.
    """

    NAME = "loreft"
    DECAYING = frozenset({"weight"})

    @staticmethod
    def tensor_shapes(hidden_size: int, form: EditForm) -> dict[str, tuple[int, ...]]:
        return {"rotation": (form.rank, hidden_size), "weight": (form.rank, hidden_size), "bias": (form.rank,)}

    def _start(self, hidden_size: int, generator: torch.Generator) -> None:
        self.rotation = OrthonormalRows(hidden_size, self.form.rank, generator)
        self.weight, self.bias = _linear(hidden_size, self.form, generator)
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


class NoreftIntervention(Intervention):
    """h + W2^T(f(W1h + b) - W2h): LoReFT without orthonormality; W1 is ``weight``, W2 is ``projection``.

    With ``projection_bias``, W2h + b2 is subtracted, as pyreft's class with ``add_bias`` does. ``identity`` starts at
    W1 = W2 and b = b2 and needs the linear f.
    """

    NAME = "noreft"
    DECAYING = frozenset({"weight", "projection"})

    @staticmethod
    def tensor_shapes(hidden_size: int, form: EditForm) -> dict[str, tuple[int, ...]]:
        wide, thin = (form.rank, hidden_size), (form.rank,)
        shapes: dict[str, tuple[int, ...]] = {"projection": wide, "weight": wide, "bias": thin}
        return {**shapes, "projection_bias": thin} if form.projection_bias else shapes

    def _start(self, hidden_size: int, generator: torch.Generator) -> None:
        paper = EditForm(self.form.rank, init="paper")
        self.projection, projection_bias = _linear(hidden_size, paper, generator)
        self.weight, self.bias = _linear(hidden_size, self.form, generator)
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


class DireftIntervention(Intervention):
    """h + W2^T f(W1h + b) (the paper's DiReFT, equation 3; pyreft's ``NodireftIntervention``).

    ``identity`` starts at W2 = 0, as LoRA does, so it goes with every f.
    """

    NAME = "direft"
    DECAYING = frozenset({"weight", "projection"})

    @staticmethod
    def tensor_shapes(hidden_size: int, form: EditForm) -> dict[str, tuple[int, ...]]:
        wide = (form.rank, hidden_size)
        return {"projection": wide, "weight": wide, "bias": (form.rank,)}

    def _start(self, hidden_size: int, generator: torch.Generator) -> None:
        self.projection, _ = _linear(hidden_size, self.form, generator)
        self.weight, self.bias = _linear(hidden_size, EditForm(self.form.rank, init="paper"), generator)

    def edit(self, h: Tensor) -> Tensor:
        return self._activate(functional.linear(h, self.weight, self.bias)) @ self.projection


class DireftOrthogonalIntervention(Intervention):
    """h + R^T f(Wh + b) (pyreft's ``DireftIntervention``).

    ``identity`` starts at W = 0 and b = 0 and needs an f with a slope there, which relu has not.
    """

    NAME = "direft_orthogonal"
    DECAYING = frozenset({"weight"})

    @staticmethod
    def tensor_shapes(hidden_size: int, form: EditForm) -> dict[str, tuple[int, ...]]:
        return LoreftIntervention.tensor_shapes(hidden_size, form)

    def _start(self, hidden_size: int, generator: torch.Generator) -> None:
        self.rotation = OrthonormalRows(hidden_size, self.form.rank, generator)
        self.weight, self.bias = _linear(hidden_size, self.form, generator)

    def edit(self, h: Tensor) -> Tensor:
        return self._activate(functional.linear(h, self.weight, self.bias)) @ self.rotation()


class ConsreftIntervention(Intervention):
    """h + R^T(b - Rh): the subspace is set to the constant b. It cannot start at the identity."""

    NAME = "consreft"

    @staticmethod
    def tensor_shapes(hidden_size: int, form: EditForm) -> dict[str, tuple[int, ...]]:
        return {"rotation": (form.rank, hidden_size), "bias": (form.rank,)}

    def _start(self, hidden_size: int, generator: torch.Generator) -> None:
        self.rotation = OrthonormalRows(hidden_size, self.form.rank, generator)
        self.bias = nn.Parameter(torch.rand(self.form.rank, generator=generator))

    def edit(self, h: Tensor) -> Tensor:
        rotation = self.rotation()
        return (self.bias - functional.linear(h, rotation)) @ rotation


class LobireftIntervention(Intervention):
    """h + R^T b: a learned bias of rank r. ``identity`` starts at b = 0, ``paper`` at b uniform in [0, 1)."""

    NAME = "lobireft"

    @staticmethod
    def tensor_shapes(hidden_size: int, form: EditForm) -> dict[str, tuple[int, ...]]:
        return ConsreftIntervention.tensor_shapes(hidden_size, form)

    def _start(self, hidden_size: int, generator: torch.Generator) -> None:
        self.rotation = OrthonormalRows(hidden_size, self.form.rank, generator)
        drawn = torch.rand(self.form.rank, generator=generator)
        self.bias = nn.Parameter(drawn if self.form.init == "paper" else torch.zeros_like(drawn))

    def edit(self, h: Tensor) -> Tensor:
        return (self.bias @ self.rotation()).expand_as(h)


_CLASSES: tuple[type[Intervention], ...] = (
    LoreftIntervention,
    NoreftIntervention,
    DireftIntervention,
    DireftOrthogonalIntervention,
    ConsreftIntervention,
    LobireftIntervention,
)
METHODS: Mapping[str, type[Intervention]] = MappingProxyType({method.NAME: method for method in _CLASSES})


def _linear(hidden_size: int, form: EditForm, generator: torch.Generator) -> tuple[nn.Parameter, nn.Parameter]:
    """Return a matrix [rank, hidden] and a bias [rank]: zeros, or for ``paper`` as ``nn.Linear`` draws them."""
    weight, bias = torch.zeros(form.rank, hidden_size), torch.zeros(form.rank)
    if form.init == "paper":
        bound = 1 / math.sqrt(hidden_size)
        weight.uniform_(-bound, bound, generator=generator)
        bias.uniform_(-bound, bound, generator=generator)
    return nn.Parameter(weight), nn.Parameter(bias)
