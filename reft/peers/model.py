"""A frozen decoder with a rival of ReFT, behind the same interface as :class:`reft.ReftModel`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from reft.data import IGNORED, Batch, Collator, Encoded, to_device
from reft.edits.hooks import Stack, checkpointed
from reft.models.decoder import CausalModel, causal_stack, text_config
from reft.models.decoding import Decoding, Streamer
from reft.models.strength import Scaled
from reft.peers.parts import PartConfig


class PlainRows:
    """Rows whose losses are computed whole: where something below the edits is trained, nothing is constant."""

    def collate(self, rows: Sequence[Encoded], pad_id: int) -> Batch:
        """Return rows padded on the left, so that logits are needed for few columns."""
        return Collator(pad_id)(rows)

    def costs(self, rows: Sequence[Encoded]) -> tuple[int, ...]:
        """Return the rows' tokens."""
        return tuple(row.num_tokens for row in rows)

    def begin_rows(self, _rows: Sequence[Encoded]) -> None:
        """Do nothing: nothing is kept of rows."""


class PeerModel(PlainRows, Scaled, CausalModel, nn.Module):
    """A decoder-only language model that is frozen, and what one of :data:`reft.peers.table.METHODS` trains on it.

    A new model is in evaluation mode. The base stays in that mode even under :meth:`train`, and is left as it was
    outside a call, so several models may share one base, one call at a time. No cone is used: what is trained is in
    the lowest layers or before the first token, so every row is run whole in every pass.

    Args:
        base: a ``transformers`` model for causal language modelling; its parameters stop requiring gradients.
        config: what is trained.
        seed: of its initial values.
        as_saved: whether it is to be filled from files, which hold :meth:`PartConfig.saved`; it is trained no further.

    Attributes:
        gradient_checkpointing: whether training runs each layer of the base again in the backward pass.

    Raises:
        ValueError: if the base is no decoder-only model, or lacks a layer or module that the config names.
    """

    def __init__(self, base: nn.Module, config: PartConfig, *, seed: int, as_saved: bool = False) -> None:
        super().__init__()
        self.config = config
        self.seed = seed
        self.gradient_checkpointing = False
        self.base = base.requires_grad_(False).eval()
        self.hidden_size = int(text_config(base).hidden_size)
        self._stack = (causal_stack(base),)  # in a tuple: no second registration of the modules
        self.num_layers = len(self.stack.layers)
        self.part = (config.saved() if as_saved else config).build(base, seed=seed)
        self._enabled = True
        self.train(False)

    @property
    def stack(self) -> Stack:
        """The base's layers."""
        return self._stack[0]

    def train(self, mode: bool = True) -> Self:
        """Set the mode of what is trained; the base stays in evaluation mode."""
        self._check_trained_whole(mode)
        self.training = mode
        self.part.train(mode)
        return self

    def _rescale(self, scale: float, /) -> None:
        if scale != 1 and not self.config.adds:
            raise ValueError(
                f"what {self.config.method} trains is not added to what the base computes, so it has no strength; "
                f"got a scale of {scale:g}; leave it at 1"
            )
        self.part.set_scale(scale)

    def form(self) -> dict[str, Any]:
        """Return the config as plain JSON values."""
        return self.config.to_dict()

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """Return name -> parameter of all that is trained, counted and kept in a checkpoint."""
        return self.part.parameters()

    def fixed_tensors(self) -> dict[str, Tensor]:
        """Return nothing: the parameters say all."""
        return {}

    def num_trainable(self) -> int:
        """Return the number of trained values."""
        return sum(value.numel() for value in self.trainable_parameters().values())

    def decaying_parameters(self) -> frozenset[str]:
        """Return the names of the trained parameters that weight decay pulls."""
        return self.part.decaying()

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Run the base alone inside the context."""
        before, self._enabled = self._enabled, False
        try:
            yield
        finally:
            self._enabled = before

    @contextmanager
    def editing(
        self,
        attention_mask: Tensor,
        _prompt_lengths: Tensor,
        _spans: Tensor | None = None,
        domains: Tensor | None = None,
    ) -> Iterator[None]:
        """Let the base run with what is trained inside the context, at every token; virtual ones have columns.

        Raises:
            ValueError: if what is trained reads the rows' domains, and they are not given.
        """
        with ExitStack() as undo:
            again = None
            if self._enabled:
                starts = to_device(self.part.starts(attention_mask), self.device)
                undo.enter_context(self.part.on(starts, domains))
                again = self.part.in_layer()
            if self.gradient_checkpointing and torch.is_grad_enabled():
                undo.enter_context(checkpointed(self.stack, within=again))
            yield

    def forward(self, batch: Batch, *, logits_to_keep: int = 0) -> Tensor:
        """Return :meth:`logits`."""
        return self.logits(batch, logits_to_keep=logits_to_keep)

    def logits(self, batch: Batch, *, logits_to_keep: int = 0) -> Tensor:
        """Run the base over whole rows; see :meth:`reft.CausalModel.logits`. Virtual tokens have no logits."""
        columns = logits_to_keep or batch.input_ids.shape[1]
        return CausalModel.logits(self, self._lengthened(batch), logits_to_keep=columns)

    def row_losses(self, rows: Sequence[Encoded], pad_id: int) -> Tensor:
        """Return the cross-entropy of each label token of the rows in nats, fp32 [labels]."""
        return self.target_losses(self.collate(rows, pad_id).to(self.device))

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean loss over the batch's labels, fp32 scalar."""
        return self.target_losses(batch).mean()

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
        """Continue prompts; see :meth:`reft.CausalModel.generate`.

        Where virtual tokens stand, repetition penalties and rules about runs of tokens read the prompt's last token.
        """
        count = self._virtual()
        if not count:
            return CausalModel.generate(
                self, input_ids, attention_mask, decoding,
                spans=spans, domains=domains, streamer=streamer, assistant=assistant, scale=scale,
            )  # fmt: skip
        starts = self.part.starts(attention_mask)
        tokens = CausalModel.generate(
            self,
            _inserted(input_ids, starts, count, input_ids[:, -1]),
            _inserted(attention_mask, starts, count, torch.ones_like(attention_mask[:, -1])),
            decoding,
            streamer=None if streamer is None else _Behind(streamer, int(starts[0]), count),
            assistant=assistant,
            scale=scale,
        )
        return _taken_out(tokens, starts.repeat_interleave(len(tokens) // len(starts)), count)

    def _virtual(self) -> int:
        return self.part.virtual_tokens if self._enabled else 0

    def _lengthened(self, batch: Batch) -> Batch:
        """Return the batch with columns for virtual tokens before its own."""
        count = self._virtual()
        if not count:
            return batch
        starts = self.part.starts(batch.attention_mask)
        mask, ids, labels = batch.attention_mask, batch.input_ids, batch.labels
        return replace(
            batch,
            input_ids=_inserted(ids, starts, count, ids[:, -1]),
            attention_mask=_inserted(mask, starts, count, torch.ones_like(mask[:, -1])),
            labels=_inserted(labels, starts, count, torch.full_like(labels[:, -1], IGNORED)),
            spans=None,
            read_from=None if batch.read_from is None else self._lengthened(batch.read_from),
        )


class _Behind:
    """A streamer that is not told of the virtual columns of the one prompt."""

    def __init__(self, streamer: Streamer, start: int, columns: int) -> None:
        self._streamer = streamer
        self._start = start
        self._columns = columns

    def put(self, value: Tensor) -> None:
        """Take the prompt's token ids, then each chosen one."""
        if self._columns:
            value = torch.cat([value[..., : self._start], value[..., self._start + self._columns :]], dim=-1)
            self._columns = 0
        self._streamer.put(value)

    def end(self) -> None:
        """Know that it was the last."""
        self._streamer.end()


def _inserted(values: Tensor, starts: Tensor, count: int, fill: Tensor) -> Tensor:
    """Return rows with ``count`` columns of ``fill``, [batch], before the column that ``starts`` names for each."""
    columns = torch.arange(values.shape[1] + count, device=values.device)
    behind = columns - starts[:, None] - count  # from 0 at what stood at the start
    own = torch.where(behind >= 0, columns - count, columns).clamp(0, values.shape[1] - 1)
    inside = (columns >= starts[:, None]) & (behind < 0)
    return torch.where(inside, fill[:, None], values.gather(1, own))


def _taken_out(values: Tensor, starts: Tensor, count: int) -> Tensor:
    """Return rows without the columns that :func:`_inserted` put there."""
    columns = torch.arange(values.shape[1] - count, device=values.device)
    return values.gather(1, torch.where(columns >= starts[:, None], columns + count, columns))
