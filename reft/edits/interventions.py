"""What all edits are: small modules that map hidden states to hidden states, h -> h, by one formula each.

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

from reft.edits.methods.forms import EditForm, EditMethod
from reft.edits.methods.table import check_form
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

    METHOD: ClassVar[EditMethod]
    """What the edit is."""

    bias: nn.Parameter
    weight: nn.Parameter
    projection: nn.Parameter
    projection_bias: nn.Parameter
    rotation: OrthonormalRows

    def __init__(self, hidden_size: int, form: EditForm, generator: torch.Generator) -> None:
        super().__init__()
        check_form(self.METHOD.name, form)
        if form.rank is not None and form.rank > hidden_size:
            raise ValueError(
                f"rank must be between 1 and the hidden size {hidden_size}, because an edit lives in a subspace; "
                f"got {form.rank}; choose a smaller rank"
            )
        self.form = form
        self._activate = ACTIVATIONS[form.activation]
        self._start(hidden_size, generator)

    @classmethod
    def tensor_shapes(cls, hidden_size: int, form: EditForm) -> dict[str, tuple[int, ...]]:
        """Return the names and shapes of what :meth:`export_tensors` gives."""
        return cls.METHOD.tensors(hidden_size, form)

    @abstractmethod
    def _start(self, hidden_size: int, generator: torch.Generator) -> None:
        """Make the parameters and give them their first values."""

    @abstractmethod
    def edit(self, h: Tensor) -> Tensor:
        """Return what is added to ``h`` [..., hidden], in the parameters' dtype."""

    def forward(self, h: Tensor, scale: float = 1.0) -> Tensor:
        """Edit hidden states.

        Args:
            h: [..., hidden], any floating dtype.
            scale: what the edit is multiplied by; 1 gives the bits of the edit as trained, and 0 those of ``h``.

        Returns:
            Tensor of the same shape and dtype.
        """
        if scale == 0:
            return h  # which a base of a wider dtype than the edit's would not have back
        with torch.autocast(h.device.type, enabled=False):
            wide = h.to(self.bias.dtype)
            edit = self.edit(wide) if scale == 1 else scale * self.edit(wide)
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


def drawn_linear(hidden_size: int, form: EditForm, generator: torch.Generator) -> tuple[nn.Parameter, nn.Parameter]:
    """Return a matrix [rank, hidden] and a bias [rank]: zeros, or for ``paper`` as ``nn.Linear`` draws them."""
    weight, bias = torch.zeros(form.dimensions, hidden_size), torch.zeros(form.dimensions)
    if form.init == "paper":
        bound = 1 / math.sqrt(hidden_size)
        weight.uniform_(-bound, bound, generator=generator)
        bias.uniform_(-bound, bound, generator=generator)
    return nn.Parameter(weight), nn.Parameter(bias)
