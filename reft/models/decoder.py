"""A frozen decoder-only language model with trainable interventions."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from reft.cone.constants import RowKey
from reft.cone.decoder import Cone, edited_positions, token_losses
from reft.cone.lower_layers import changing_rope
from reft.cone.unread_masks import unread_masks
from reft.cone.window import edits_some, first_edited
from reft.data import IGNORED, Batch, Collator, Encoded, to_device
from reft.edits.config import ReftConfig
from reft.edits.hooks import Stack, find_stack
from reft.models.adapted import AdaptedModel
from reft.models.decoding import Decoding, Streamer, check_left_padding, generate


class CausalModel:
    """What can be done with an edited language model: logits, losses and text.

    Whoever inherits this says where the edits are (:meth:`editing`).
    """

    base: nn.Module

    @property
    def device(self) -> torch.device:
        """Where the base is."""
        return next(self.base.parameters()).device

    @abstractmethod
    def editing(
        self,
        attention_mask: Tensor,
        prompt_lengths: Tensor,
        spans: Tensor | None = None,
        domains: Tensor | None = None,
    ) -> AbstractContextManager[None]:
        """Edit the base's layers inside the context, for passes over this prompt batch; see :class:`reft.Batch`."""

    @abstractmethod
    def at_scale(self, scale: float) -> AbstractContextManager[None]:
        """Use what is trained at this strength inside the context; see :class:`reft.models.strength.Scaled`."""

    def for_rows(self, _rows: Sequence[int], /) -> CausalModel:
        """Return the model for a batch of these rows of a larger one: itself, where no row has edits of its own."""
        return self

    def logits(self, batch: Batch, *, logits_to_keep: int = 0) -> Tensor:
        """Run the edited base over whole rows.

        Args:
            batch: tokens, mask and prompt lengths, padded at either end, on the model's device.
            logits_to_keep: trailing columns to compute logits for; 0 for all.

        Returns:
            Logits [batch, columns kept, vocabulary], in the base's dtype. Where the longest row of a batch decides how
            positions are encoded, each row runs alone, so that a row's logits follow from it alone.
        """
        if not changing_rope(self.base.config):
            return self._logits(batch, logits_to_keep)
        alone = []
        for row in range(len(batch.input_ids)):
            _forget_longest(self.base)
            alone.append(self.for_rows([row])._logits(_one(batch, row), logits_to_keep))
        return torch.cat(alone)

    def _logits(self, batch: Batch, logits_to_keep: int) -> Tensor:
        taken = inspect.signature(self.base.forward).parameters
        arguments: dict[str, Any] = {"attention_mask": batch.attention_mask, "use_cache": False}
        if "position_ids" in taken:
            arguments["position_ids"] = position_ids(batch.attention_mask)
        if "logits_to_keep" in taken:
            arguments["logits_to_keep"] = logits_to_keep
        known = batch.readable
        with (
            self.editing(known.attention_mask, known.prompt_lengths, known.spans, known.domains),
            contiguous_columns(self.base),
            unread_masks(self.base, self.device),
        ):
            logits: Tensor = self.base(input_ids=batch.input_ids, **arguments).logits
        return logits[:, -logits_to_keep:]  # of what is kept already, or all for 0

    def target_losses(self, batch: Batch) -> Tensor:
        """Return the cross-entropy of each label token in nats, fp32 [labels]; 0 labels are an error.

        With padding on the left, logits are computed for the trailing columns that hold labels alone.
        """
        known = batch.readable.labels
        held = (known != IGNORED).any(0).nonzero()
        if not held.numel():
            raise ValueError("a batch for the loss needs label tokens; got none; give rows with a completion")
        labels = known[:, int(held[0]) :]
        logits = self.logits(batch, logits_to_keep=labels.shape[1] + 1)[:, :-1]  # column t predicts token t + 1
        row, column = (labels != IGNORED).nonzero(as_tuple=True)
        chosen = logits[to_device(row, self.device), to_device(column, self.device)]
        return token_losses(chosen, to_device(labels[row, column], self.device))

    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        decoding: Decoding,
        *,
        spans: Tensor | None = None,
        domains: Tensor | None = None,
        streamer: Streamer | None = None,
        assistant: nn.Module | None = None,
        scale: float | None = None,
    ) -> Tensor:
        """Continue prompts; the same tokens are edited whatever the way of decoding.

        Those are the prompts', and with ``gN`` the first N that are written, as each is read to write the next.

        Args:
            input_ids: [batch, sequence], prompts padded on the left.
            attention_mask: [batch, sequence].
            decoding: how.
            spans: bool [batch, sequence], for positions of ``spans``.
            domains: float64 [batch], each row's domain variable t, for a model that reads it.
            streamer: gets tokens as they are chosen; for one prompt without beams.
            assistant: a smaller model that guesses tokens, which this one checks; itself unedited.
            scale: the strength of what is trained, for this call; None for the model's own.

        Returns:
            [batch * num_return_sequences, sequence + new tokens], prompts included.

        Raises:
            ValueError: if a row ends in padding, which a continuation would follow.
        """
        check_left_padding(attention_mask)
        to_come = attention_mask.new_ones(len(attention_mask), decoding.max_new_tokens)
        whole = torch.cat([attention_mask, to_come], dim=-1)
        named = None if spans is None else torch.cat([spans, torch.zeros_like(to_come).bool()], dim=-1)
        with nullcontext() if scale is None else self.at_scale(scale):
            editing = self.editing(whole, attention_mask.long().sum(-1), named, domains)
            return generate(
                self.base, editing, input_ids, attention_mask, decoding, streamer=streamer, assistant=assistant
            )


def _one(batch: Batch, row: int) -> Batch:
    """Return a row of a batch with its padding, as a batch."""
    own = slice(row, row + 1)
    return Batch(
        batch.input_ids[own],
        batch.attention_mask[own],
        batch.labels[own],
        batch.prompt_lengths[own],
        None if batch.spans is None else batch.spans[own],
        None if batch.domains is None else batch.domains[own],
    )


def _forget_longest(base: nn.Module) -> None:
    """Let rotary embeddings encode the next pass by its own length: dynamic ones keep that of the longest before."""
    for module in base.modules():
        if hasattr(module, "max_seq_len_cached") and hasattr(module, "original_max_seq_len"):
            setattr(module, "max_seq_len_cached", 0)  # noqa: B010  no attribute that a module declares


@contextmanager
def contiguous_columns(base: Any) -> Iterator[None]:
    """Let the head multiply the trailing columns of all rows at once.

    The columns that it is given are a slice of the hidden states, so no matrix: torch multiplies each row with a copy
    of the head's weights of its own, which takes half of a bfloat16 scoring pass on the CPU, and gigabytes.
    """

    def joined(_head: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (args[0].contiguous(), *args[1:])

    head = base.get_output_embeddings()
    handle = None if head is None else head.register_forward_pre_hook(joined)
    try:
        yield
    finally:
        if handle is not None:
            handle.remove()


class ReftModel(CausalModel, AdaptedModel):
    """A decoder-only language model that is frozen, and one to three interventions for each edited layer.

    Args:
        base: a ``transformers`` model for causal language modelling; its parameters stop requiring gradients.
        config: what to edit.
        seed: of the interventions' initial values.

    Raises:
        ValueError: if the base is no decoder-only model, lacks an edited layer, or is narrower than the rank.
    """

    KIND = "causal_lm"

    def __init__(self, base: nn.Module, config: ReftConfig, *, seed: int) -> None:
        described = text_config(base)
        AdaptedModel.__init__(self, base, causal_stack(base), int(described.hidden_size), config, seed=seed)

    def editing(
        self,
        attention_mask: Tensor,
        prompt_lengths: Tensor,
        spans: Tensor | None = None,
        _domains: Tensor | None = None,
    ) -> AbstractContextManager[None]:
        """Edit the base's layers inside the context, for passes over this prompt batch, whatever the rows' domains."""
        return AdaptedModel.editing(self, attention_mask, prompt_lengths, spans)

    @contextmanager
    def at_scale(self, scale: float) -> Iterator[None]:
        """Use the edits at this strength inside the context."""
        with AdaptedModel.at_scale(self, scale):
            yield

    def forward(self, batch: Batch, *, logits_to_keep: int = 0) -> Tensor:
        """Return :meth:`logits`."""
        return self.logits(batch, logits_to_keep=logits_to_keep)

    def collate(self, rows: Sequence[Encoded], pad_id: int) -> Batch:
        """Return rows padded on the left, so that logits are needed for few columns."""
        return Collator(pad_id)(rows)

    def reads(self, row: Encoded) -> RowKey:
        """Return the tokens."""
        return (row.input_ids,)

    def begin_rows(self, rows: Sequence[Encoded] = ()) -> None:
        """Start another use of rows; those that are to come are computed side by side in its cone."""
        cone = Cone.of(self, begins=True)
        if cone is None:
            AdaptedModel.begin_rows(self)
        else:
            cone.begin(rows)

    def row_losses(self, rows: Sequence[Encoded], pad_id: int) -> Tensor:
        """Return the cross-entropy of each label token of the rows in nats, fp32 [labels]; computed by its cone."""
        cone = Cone.of(self)
        return AdaptedModel.row_losses(self, rows, pad_id) if cone is None else cone.losses(rows)

    def reaches(self, rows: Sequence[Encoded]) -> bool:
        """Return whether some row has an edited token that a pass for its losses reads: else nothing can be learned."""
        return any(edits_some(edited_positions(self.config), row) for row in rows)

    def costs(self, rows: Sequence[Encoded]) -> tuple[int, ...]:
        """Return the rows' ranks by the tokens that run in the cone, then by all of them."""
        positions = edited_positions(self.config)
        sizes = [(row.num_tokens - first_edited(positions, row), row.num_tokens) for row in rows]
        ranks = {size: rank for rank, size in enumerate(sorted(set(sizes)))}
        return tuple(ranks[size] for size in sizes)


def position_ids(attention_mask: Tensor) -> Tensor:
    """Return each token's place among the real tokens of its row, int64 [batch, sequence]; 0 at padding."""
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)


def causal_stack(base: nn.Module) -> Stack:
    """Find the decoder layers of a causal language model."""
    return find_stack(base, int(text_config(base).num_hidden_layers))


def text_config(base: nn.Module) -> Any:
    """Return the config of a base's language model.

    Raises:
        ValueError: if the base is an encoder-decoder, whose prompt is not where it is edited here.
    """
    config: Any = base.config
    if getattr(config, "is_encoder_decoder", False):
        raise ValueError(
            f"a base must be a decoder-only language model; got {type(base).__name__}; "
            "choose another base, or ReftSeq2Seq"
        )
    return config.get_text_config()
