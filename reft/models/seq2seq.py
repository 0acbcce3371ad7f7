"""An encoder-decoder language model whose encoder is edited."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from reft.cone.constants import RowKey
from reft.data import IGNORED, check_spans, pad_right, span_mask, to_device
from reft.edits.config import ReftConfig
from reft.edits.hooks import find_stack
from reft.models.adapted import AdaptedModel, refuse_generated
from reft.models.decoding import Decoding, Streamer, generate


@dataclass(frozen=True)
class Paired:
    """Token ids of what the encoder reads, and of what the decoder is to write, each with its own end token.

    Attributes:
        input_ids: of what is read.
        target_ids: of what is written.
        spans: half-open ranges of read tokens that this row has edited where positions are ``spans``.
    """

    input_ids: tuple[int, ...]
    target_ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if not self.input_ids:
            raise ValueError("a row needs a token to read; got none; leave out empty texts")
        check_spans(self.spans, len(self.input_ids))

    @property
    def num_tokens(self) -> int:
        """How many tokens the model reads, on both sides."""
        return len(self.input_ids) + len(self.target_ids)

    @property
    def num_targets(self) -> int:
        """How many tokens it is to write."""
        return len(self.target_ids)


@dataclass(frozen=True)
class PairedBatch:
    """Rows padded on the right; all tensors int64 but ``spans``.

    Attributes:
        input_ids: [batch, sequence].
        attention_mask: [batch, sequence], 1 at tokens.
        labels: [batch, targets], -100 at padding.
        spans: bool [batch, sequence], the tokens that the rows name themselves.
        read_from: the batch on the CPU that this one was copied from; None for one that was made where it is.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    spans: Tensor | None = None
    read_from: PairedBatch | None = None

    @property
    def readable(self) -> PairedBatch:
        """The same rows where their values are read without waiting for a device, if they are there too."""
        return self if self.read_from is None else self.read_from

    def to(self, device: torch.device | str) -> PairedBatch:
        """Return the same batch on ``device``."""
        return PairedBatch(
            to_device(self.input_ids, device),
            to_device(self.attention_mask, device),
            to_device(self.labels, device),
            None if self.spans is None else to_device(self.spans, device),
            self.readable,
        )


class ReftSeq2Seq(AdaptedModel):
    """A frozen encoder-decoder with interventions on its encoder's layers.

    The whole input is the prompt, so positions count in it.

    Args:
        base: a ``transformers`` model for sequence-to-sequence language modelling, such as T5.
        config: what to edit.
        seed: of the interventions' initial values.

    Raises:
        ValueError: if the base is no encoder-decoder, lacks an edited layer, or is narrower than the rank; or for
            positions of tokens that follow a prompt.
    """

    KIND = "seq2seq_lm"

    def __init__(self, base: nn.Module, config: ReftConfig, *, seed: int) -> None:
        described: Any = base.config
        if not getattr(described, "is_encoder_decoder", False):
            raise ValueError(f"a base must be an encoder-decoder; got {type(base).__name__}; use ReftModel for it")
        refuse_generated(config, "an encoder-decoder")
        stack = find_stack(base.get_encoder(), int(described.num_hidden_layers))  # type: ignore[operator]
        super().__init__(base, stack, int(described.hidden_size), config, seed=seed)

    def forward(self, batch: PairedBatch) -> Tensor:
        """Return the decoder's logits [batch, targets, vocabulary] for the labels' places."""
        known = batch.readable
        with self.editing(known.attention_mask, known.attention_mask.sum(-1), known.spans):
            logits: Tensor = self.base(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels, use_cache=False
            ).logits
        return logits

    def collate(self, rows: Sequence[Paired], pad_id: int) -> PairedBatch:
        """Return rows padded on the right."""
        input_ids = pad_right([row.input_ids for row in rows], pad_id)
        return PairedBatch(
            input_ids=input_ids,
            attention_mask=pad_right([[1] * len(row.input_ids) for row in rows], 0),
            labels=pad_right([row.target_ids for row in rows], IGNORED),
            spans=span_mask([row.spans for row in rows], input_ids.shape),
        )

    def reads(self, row: Paired) -> RowKey:
        """Return the encoder's tokens."""
        return (row.input_ids,)

    def target_losses(self, batch: PairedBatch) -> Tensor:
        """Return the cross-entropy of each target token in nats, fp32 [targets of the batch]."""
        labels = batch.readable.labels
        row, column = (labels != IGNORED).nonzero(as_tuple=True)
        if not len(row):
            raise ValueError("a batch for the loss needs target tokens; got none; give rows with targets")
        answers = self(batch)[to_device(row, self.device), to_device(column, self.device)]
        return functional.cross_entropy(answers.float(), to_device(labels[row, column], self.device), reduction="none")

    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        decoding: Decoding,
        *,
        spans: Tensor | None = None,
        streamer: Streamer | None = None,
    ) -> Tensor:
        """Write an answer to each input; the edits are in the encoder, which runs once.

        Args:
            input_ids: [batch, sequence], padded on the right.
            attention_mask: [batch, sequence].
            decoding: how.
            spans: bool [batch, sequence], for positions of ``spans``.
            streamer: gets tokens as they are chosen; for one input without beams.

        Returns:
            [batch * num_return_sequences, start token + new tokens].
        """
        editing = self.editing(attention_mask, attention_mask.sum(-1), spans)
        return generate(self.base, editing, input_ids, attention_mask, decoding, streamer=streamer)
