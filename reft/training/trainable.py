"""What :func:`reft.fit` asks of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Trainable(Protocol):
    """A model of which some numbers are trained on rows, whatever the method.

    Attributes:
        gradient_checkpointing: whether training runs each layer of the base again in the backward pass.
    """

    gradient_checkpointing: bool

    @property
    def device(self) -> torch.device:
        """Where the model is."""

    def train(self, mode: bool = True) -> Any:
        """Set the mode of what is trained; the base stays in evaluation mode."""

    def eval(self) -> Any:
        """Set evaluation mode."""

    def form(self) -> Mapping[str, Any]:
        """Return what decides the form of the model, as plain JSON values."""

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """Return name -> parameter of all that is trained."""

    def fixed_tensors(self) -> dict[str, Tensor]:
        """Return name -> what its parameters are read by and training leaves as it is, such as where an R starts."""

    def decaying_parameters(self) -> frozenset[str]:
        """Return the names of those that weight decay pulls."""

    def costs(self, rows: Sequence[Any]) -> tuple[int, ...]:
        """Return each row's cost in a batch; rows of about the same one go well together."""

    def begin_rows(self, rows: Sequence[Any], /) -> None:
        """Start another use of rows, these among them; see :meth:`reft.models.adapted.AdaptedModel.begin_rows`."""

    def row_losses(self, rows: Sequence[Any], pad_id: int) -> Tensor:
        """Return the loss of each target of the rows, fp32 [targets]."""
