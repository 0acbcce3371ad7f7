"""What the cone asks of an edited model: so it knows no kind of model, and the models know the cone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, Self

import torch
from torch import Tensor, nn

from reft.cone.constants import RowKey
from reft.edits.config import ReftConfig
from reft.edits.hooks import Stack

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class EditedModel(Protocol):
    """A frozen base with edits at the outputs of some of its layers, of any kind.

    Attributes:
        config: layers, positions and form of the edits.
        training: whether what is trained is in training mode; the base never is.
        gradient_checkpointing: whether the base's layers run again in the backward pass.
    """

    config: ReftConfig
    training: bool
    gradient_checkpointing: bool

    @property
    def base(self) -> Any:
        """The frozen base."""

    @property
    def stack(self) -> Stack:
        """The base's layers that can be edited."""

    @property
    def device(self) -> torch.device:
        """Where the base is."""

    def train(self, mode: bool = True) -> Self:
        """Set the mode of what is trained."""

    def eval(self) -> Self:
        """Set the mode to evaluation."""

    def disabled(self) -> AbstractContextManager[None]:
        """Run the base unedited inside the context."""

    def head_tensors(self) -> Mapping[str, nn.Parameter]:
        """Return the parameters of the base that are trained too."""

    def collate(self, rows: Sequence[Any], pad_id: int, /) -> Any:
        """Return rows as one padded batch on the CPU."""

    def reads(self, row: Any, /) -> RowKey:
        """Return what the base reads of a row."""

    def target_losses(self, batch: Any, /) -> Tensor:
        """Return the loss of each target of a batch, fp32 [targets]."""


class EditedDecoder(EditedModel, Protocol):
    """A decoder-only language model with edits."""

    @property
    def base(self) -> PreTrainedModel:
        """The frozen decoder."""

    def editing(
        self, attention_mask: Tensor, prompt_lengths: Tensor, spans: Tensor | None = None, /
    ) -> AbstractContextManager[None]:
        """Edit the base's layers inside the context, for passes over a batch of prompts.

        Args:
            attention_mask: [batch, tokens], 1 for a token and 0 for padding.
            prompt_lengths: tokens of each row's prompt, [batch].
            spans: marked tokens [batch, tokens], for positions that ask for them.
        """
