"""A frozen base with interventions: what decoders, encoders and encoder-decoders have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Protocol, Self, TypeVar, cast

import torch
from torch import Tensor, nn

from reft.cone.constants import RowKey
from reft.cone.keeper import keeper_of
from reft.cone.lower_layers import skipping
from reft.edits.config import ReftConfig
from reft.edits.formulas.table import METHODS
from reft.edits.hooks import Edits, Placed, Stack, checkpointed
from reft.edits.interventions import Intervention
from reft.edits.positions import position_masks
from reft.models.strength import Scaled


class Row(Protocol):
    """One training row."""

    @property
    def num_tokens(self) -> int:
        """How many tokens the model reads."""

    @property
    def num_targets(self) -> int:
        """How many losses it has."""


R = TypeVar("R", bound=Row)


def refuse_generated(config: ReftConfig, model: str) -> None:
    """Raise ValueError for positions behind the prompt, for a model whose edited layers read nothing but the prompt."""
    positions = {config.positions_at(layer) for layer in config.layers}
    if any(each.generated for each in positions):
        raise ValueError(
            f"gN edits tokens that follow a prompt, and {model} has none in its edited layers: its whole input is the "
            f"prompt; got positions {config.positions!r}; leave gN out, or use a decoder"
        )


class AdaptedModel(Scaled, nn.Module, ABC):
    """A base that is frozen, and one to three interventions for each edited layer.

    A new model is in evaluation mode, so nothing is dropped until training asks for it. The base stays in that mode
    even under :meth:`train`, so its dropout never runs: what the interventions are trained against is what they meet
    in use. Hooks are on the base only during a call, so several models may share one base, one call at a time.

    Args:
        base: a ``transformers`` model; its parameters stop requiring gradients.
        stack: the layers of it that are edited.
        hidden_size: width of those layers' outputs.
        config: what to edit.
        seed: of the interventions' initial values.

    Attributes:
        gradient_checkpointing: whether training runs each layer of the base again in the backward pass, which keeps
            less memory and gives the same gradients.

    Raises:
        ValueError: if the base lacks an edited layer, or is narrower than the rank.
    """

    KIND: str
    """What an adapter directory calls this kind of model."""

    def __init__(self, base: nn.Module, stack: Stack, hidden_size: int, config: ReftConfig, *, seed: int) -> None:
        super().__init__()
        self.config = config
        self.seed = seed
        self.hidden_size = hidden_size
        self.num_layers = len(stack.layers)
        self.gradient_checkpointing = False
        if config.layers[-1] >= self.num_layers:
            raise ValueError(
                f"layers must be below {self.num_layers}, the base's number of layers; "
                f"got {config.layers}; leave out the higher ones"
            )
        self.base = base.requires_grad_(False).eval()
        self._stack = (stack,)  # in a tuple: no second registration of the modules
        self._enabled = True
        generator = torch.Generator().manual_seed(seed)
        method = METHODS[config.method]
        # On the CPU also inside a caller's ``with torch.device("cuda")`` or "meta": the generator draws there.
        with torch.device("cpu"):
            built = {slot: method(hidden_size, form, generator) for slot, form in config.forms().items()}
        self.interventions = nn.ModuleDict(built).to(self.device)
        AdaptedModel.train(self, False)  # not a subclass's, whose own modules are not there yet

    @property
    def stack(self) -> Stack:
        """The base's edited layers."""
        return self._stack[0]

    @property
    def device(self) -> torch.device:
        """Where the base is."""
        return next(self.base.parameters()).device

    def train(self, mode: bool = True) -> Self:
        """Set the mode of what is trained; the base stays in evaluation mode."""
        self._check_trained_whole(mode)
        self.training = mode
        self.interventions.train(mode)
        if self.base.training:
            self.base.eval()
        return self

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """Return name -> parameter of all that is trained, counted and kept in a checkpoint."""
        return {name: value for name, value in self.named_parameters() if value.requires_grad}

    def fixed_tensors(self) -> dict[str, Tensor]:
        """Return name -> what the parameters are read by and training leaves as it is: where each R starts."""
        learned = dict(self.interventions.named_parameters())
        state = self.interventions.state_dict()
        return {f"interventions.{name}": value for name, value in state.items() if name not in learned}

    def num_trainable(self) -> int:
        """Return the number of trained values."""
        return sum(value.numel() for value in self.trainable_parameters().values())

    def decaying_parameters(self) -> frozenset[str]:
        """Return the names of the trained parameters that weight decay pulls."""
        return frozenset(
            f"interventions.{slot}.{name}"
            for slot, intervention in self.named_interventions()
            for name in intervention.DECAYING
        )

    def named_interventions(self) -> Iterator[tuple[str, Intervention]]:
        """Yield slot name and intervention, from the lowest layer up."""
        for name, module in self.interventions.items():
            yield name, cast(Intervention, module)

    def form(self) -> dict[str, Any]:
        """Return what decides the form of the model, as plain JSON values."""
        return self.config.to_dict()

    def head_tensors(self) -> dict[str, nn.Parameter]:
        """Return the parameters of the base that are trained too and saved with the adapter; none for most models."""
        return {}

    def head_record(self) -> dict[str, Any]:
        """Return what an adapter directory says about the head, as plain JSON values."""
        return {}

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Run the base unedited inside the context; a trained head stays."""
        before, self._enabled = self._enabled, False
        try:
            yield
        finally:
            self._enabled = before

    @abstractmethod
    def collate(self, rows: Sequence[Any], pad_id: int) -> Any:
        """Return rows as one padded batch on the CPU, for :meth:`target_losses`."""

    @abstractmethod
    def reads(self, row: Any) -> RowKey:
        """Return what the base reads of a row."""

    @abstractmethod
    def target_losses(self, batch: Any) -> Tensor:
        """Return the loss of each target of a batch, fp32 [targets]; no target is an error."""

    def row_losses(self, rows: Sequence[Any], pad_id: int) -> Tensor:
        """Return to rounding what :meth:`target_losses` gives for a batch of these rows, fp32 [targets].

        What no intervention can change is kept between calls; :func:`reft.cone.keeper.set_cone` says how much of it.
        """
        batch = self.collate(rows, pad_id).to(self.device)
        with skipping(self, rows, batch):
            return self.target_losses(batch)

    def begin_rows(self, _rows: Sequence[Any] = ()) -> None:
        """Start another use of rows, a training or a scoring; what is kept of those used before may make room.

        Args:
            _rows: that losses will be wanted of in this process, as far as they are known.
        """
        store = keeper_of(self.base).store(self.base, self.head_tensors().values(), begins=True)
        if store is not None:
            store.begin()

    def costs(self, rows: Sequence[Any]) -> tuple[int, ...]:
        """Return each row's cost in a batch; rows of about the same one go well together."""
        return tuple(row.num_tokens for row in rows)

    def loss(self, batch: Any) -> Tensor:
        """Return the mean loss over the batch's targets, fp32 scalar."""
        return self.target_losses(batch).mean()

    def placed(self, attention_mask: Tensor, prompt_lengths: Tensor, spans: Tensor | None) -> dict[int, list[Placed]]:
        """Return what is applied at each layer for a prompt batch; nothing while :meth:`disabled`.

        Args:
            attention_mask: [batch, sequence].
            prompt_lengths: [batch], in tokens.
            spans: bool [batch, sequence], for positions of ``spans``.
        """
        if not self._enabled:
            return {}
        found: dict[object, tuple[Tensor, ...]] = {}
        result = {}
        for layer in self.config.layers:
            positions, untied = self.config.positions_at(layer), self.config.untied_at(layer)
            if (positions, untied) not in found:  # layers with the same positions share their masks
                masks = position_masks(positions, attention_mask, prompt_lengths, spans)
                found[positions, untied] = masks.parts(positions) if untied else (masks.either,)
            modules = [self.interventions[slot] for slot in self.config.slots(layer)]
            pairs = zip(modules, found[positions, untied], strict=True)
            result[layer] = [Placed(module, mask, self.scale) for module, mask in pairs]
        return result

    def editing(
        self, attention_mask: Tensor, prompt_lengths: Tensor, spans: Tensor | None = None
    ) -> AbstractContextManager[None]:
        """Edit the base's layers inside the context, for passes over this prompt batch; see :meth:`placed`."""
        return self._open(Edits(self.placed(attention_mask, prompt_lengths, spans)))

    @contextmanager
    def _open(self, edits: Edits) -> Iterator[None]:
        with ExitStack() as undo:
            if self.gradient_checkpointing and torch.is_grad_enabled():
                undo.enter_context(checkpointed(self.stack))
            undo.enter_context(edits.on(self.stack))
            yield
