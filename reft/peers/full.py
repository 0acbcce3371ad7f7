"""Full fine-tuning: trained copies of a base's weights, in their places for as long as they are wanted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from reft.edits.config import check_layer_numbers
from reft.models.decoder import causal_stack
from reft.peers.parts import Part, PartConfig, put_in


@dataclass(frozen=True)
class FullConfig(PartConfig):
    """Full fine-tuning: the weights themselves are trained, in a copy.

    Attributes:
        layers: whose weights, ascending.
        embeddings: whether all other weights too: embeddings, last norm and head.
    """

    METHODS: ClassVar = ("full",)
    IN_PEFT: ClassVar = False
    layers: tuple[int, ...]
    embeddings: bool = True

    def __post_init__(self) -> None:
        check_layer_numbers("layers", self.layers)
        if not isinstance(self.embeddings, bool):
            raise ValueError(f"embeddings must be true or false; got {self.embeddings!r}; use a boolean")

    def build(self, base: nn.Module, *, seed: int) -> FullPart:  # noqa: ARG002  # nothing is drawn
        """Return what is trained, new."""
        return FullPart(base, self)

    def count(self, base: nn.Module) -> int:
        """Return how many numbers are trained, without building them; the base may be on torch's device ``meta``."""
        return count_full(base, self)


class FullPart(Part):
    """Copies of weights, in fp32 whatever the base runs in; where one weight stands in two places, so does its copy.

    Args:
        base: a decoder-only language model, which is left as it was.
        config: which weights.

    Raises:
        ValueError: if the base has no such layer.
    """

    def __init__(self, base: nn.Module, config: FullConfig) -> None:
        found = chosen(base, config)
        self._copies = {name: nn.Parameter(value.detach().float().clone()) for name, value in found.items()}
        names = {id(value): name for name, value in found.items()}
        self._places = [
            (cast(dict[str, Any], module._parameters), key, names[id(value)], value.dtype)
            for module in base.modules()
            for key, value in module._parameters.items()
            if value is not None and id(value) in names
        ]

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return the copies by their names in the base."""
        return dict(self._copies)

    def decaying(self) -> frozenset[str]:
        """Return the names of matrices; norms and biases are not pulled."""
        return frozenset(name for name, value in self._copies.items() if value.ndim > 1)

    def on(self, _starts: Tensor | None = None, _domains: Tensor | None = None) -> AbstractContextManager[None]:
        """Put the copies, in the base's dtype, into their places."""
        cast_once: dict[str, Tensor] = {}
        for _, _, name, dtype in self._places:
            if name not in cast_once:
                cast_once[name] = self._copies[name].to(dtype)
        return put_in([(mapping, key, cast_once[name]) for mapping, key, name, _ in self._places])

    def in_layer(self) -> Callable[[], AbstractContextManager[None]]:
        """Put them there again."""
        return self.on

    def export_tensors(self) -> dict[str, Tensor]:
        """Return copies on the CPU."""
        return {name: v.detach().to("cpu", torch.float32, copy=True) for name, v in self._copies.items()}

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return name -> shape."""
        return {name: tuple(value.shape) for name, value in self._copies.items()}

    @torch.no_grad()
    def import_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what :meth:`export_tensors` gave."""
        for name, value in self._copies.items():
            value.copy_(tensors[name])


def chosen(base: nn.Module, config: FullConfig) -> dict[str, nn.Parameter]:
    """Return the weights that a config names, by their names in the base.

    Raises:
        ValueError: if the base has no such layer.
    """
    stack = causal_stack(base)
    if config.layers[-1] >= len(stack.layers):
        raise ValueError(
            f"layers must be below {len(stack.layers)}, the base's number of layers; got {config.layers}; "
            "leave out the higher ones"
        )
    inside = {id(value) for value in stack.layers.parameters()}
    wanted = {id(value) for number in config.layers for value in stack.layers[number].parameters()}
    return {
        name: value
        for name, value in base.named_parameters()
        if id(value) in wanted or (config.embeddings and id(value) not in inside)
    }


def count_full(base: nn.Module, config: FullConfig) -> int:
    """Return how many numbers are trained, without copying them; the base may be on torch's device ``meta``."""
    return sum(value.numel() for value in chosen(base, config).values())


CONFIGS = (FullConfig,)
