"""An encoder with a classification or regression head: its layers are edited, and its head is trained with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from reft.cone.constants import RowKey
from reft.cone.lower_layers import skipping
from reft.cone.unread_masks import unread_masks
from reft.data import check_spans, pad_right, span_mask, to_device
from reft.edits.config import ReftConfig
from reft.edits.hooks import find_stack
from reft.models.adapted import AdaptedModel, refuse_generated


@dataclass(frozen=True)
class Labelled:
    """Token ids of a text, and what it is to be judged as.

    Attributes:
        input_ids: with the tokenizer's own special tokens; a pair of texts is one row.
        label: the class's number for classification, a number for regression.
        segments: the token type of each id, for tokenizers that give it; empty for none.
        spans: half-open ranges of tokens that this row has edited where positions are ``spans``.
    """

    input_ids: tuple[int, ...]
    label: float
    segments: tuple[int, ...] = ()
    spans: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if not self.input_ids or (self.segments and len(self.segments) != len(self.input_ids)):
            raise ValueError(
                f"a row needs a token and as many segments as tokens, or none; got {len(self.input_ids)} tokens and "
                f"{len(self.segments)} segments; leave out empty texts"
            )
        check_spans(self.spans, len(self.input_ids))

    @property
    def num_tokens(self) -> int:
        """How many tokens the model reads."""
        return len(self.input_ids)

    @property
    def num_targets(self) -> int:
        """One label."""
        return 1


@dataclass(frozen=True)
class LabelledBatch:
    """Rows padded on the right.

    Attributes:
        input_ids: [batch, sequence], int64.
        attention_mask: [batch, sequence], 1 at tokens.
        segments: [batch, sequence], or None where the rows have none.
        labels: [batch], fp32.
        spans: bool [batch, sequence], the tokens that the rows name themselves.
        read_from: the batch on the CPU that this one was copied from; None for one that was made where it is.
    """

    input_ids: Tensor
    attention_mask: Tensor
    segments: Tensor | None
    labels: Tensor
    spans: Tensor | None = None
    read_from: LabelledBatch | None = None

    @property
    def readable(self) -> LabelledBatch:
        """The same rows where their values are read without waiting for a device, if they are there too."""
        return self if self.read_from is None else self.read_from

    def to(self, device: torch.device | str) -> LabelledBatch:
        """Return the same batch on ``device``."""
        return LabelledBatch(
            to_device(self.input_ids, device),
            to_device(self.attention_mask, device),
            None if self.segments is None else to_device(self.segments, device),
            to_device(self.labels, device),
            None if self.spans is None else to_device(self.spans, device),
            self.readable,
        )


class ReftEncoder(AdaptedModel):
    """A frozen encoder with interventions and a trained head.

    The whole text is the prompt: ``f1`` edits the first token (``[CLS]`` in BERT), ``l1`` the last.

    Args:
        base: a ``transformers`` model for sequence classification, such as ``BertForSequenceClassification``; with
            one label it is trained for regression.
        config: what to edit. Inside :meth:`disabled`, the head is trained alone.
        seed: of the interventions' initial values.
        head: names of the base's modules that are trained; by default those outside its backbone. Name a pooler
            too when the checkpoint has none, because its random start is then no part of the base.

    Raises:
        ValueError: if the base has no such head, lacks an edited layer, or is narrower than the rank; or for positions
            of tokens that follow a prompt.
    """

    KIND = "sequence_classification"

    def __init__(self, base: nn.Module, config: ReftConfig, *, seed: int, head: Sequence[str] | None = None) -> None:
        described: Any = base.config
        if getattr(described, "is_encoder_decoder", False):
            raise ValueError(f"a base must be an encoder; got {type(base).__name__}; choose another, or ReftSeq2Seq")
        refuse_generated(config, "an encoder")
        backbone = find_stack(base, int(described.num_hidden_layers))
        super().__init__(base, backbone, int(described.hidden_size), config, seed=seed)
        self.num_labels = int(described.num_labels)
        self.head_names = beside_backbone(base) if head is None else tuple(head)
        inside = {name for name, _ in base.named_modules() if name}
        if not inside.issuperset(self.head_names):
            raise ValueError(
                f"the head is made of modules in {type(base).__name__}; got {', '.join(self.head_names)}; "
                f"name some of {', '.join(name for name, _ in base.named_children())}, or modules in them"
            )
        for module in self._head_modules():
            module.requires_grad_(True).float()
            if _to_float not in module._forward_pre_hooks.values():  # of an earlier model on this base
                module.register_forward_pre_hook(_to_float)

    def _head_modules(self) -> list[nn.Module]:
        return [self.base.get_submodule(name) for name in self.head_names]

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the interventions and the head; the encoder stays in evaluation mode."""
        super().train(mode)
        for module in self._head_modules():
            module.train(mode)
        return self

    def head_tensors(self) -> dict[str, nn.Parameter]:
        """Return the head's parameters, by their names in the base."""
        return {
            f"{name}.{inner}": value
            for name, module in zip(self.head_names, self._head_modules(), strict=True)
            for inner, value in module.named_parameters()
        }

    def head_record(self) -> dict[str, Any]:
        """Return the head's modules and number of labels."""
        return {"modules": list(self.head_names), "num_labels": self.num_labels}

    def decaying_parameters(self) -> frozenset[str]:
        """Return the names of the matrices, the head's too."""
        head = {f"base.{name}" for name, value in self.head_tensors().items() if value.dim() > 1}
        return super().decaying_parameters() | head

    def forward(self, batch: LabelledBatch) -> Tensor:
        """Return the head's answers, fp32 [batch, labels]."""
        arguments: dict[str, Any] = {"attention_mask": batch.attention_mask}
        if batch.segments is not None:
            arguments["token_type_ids"] = batch.segments
        known = batch.readable
        with (
            self.editing(known.attention_mask, known.attention_mask.sum(-1), known.spans),
            unread_masks(self.base, self.device),
        ):
            logits: Tensor = self.base(input_ids=batch.input_ids, **arguments).logits
        return logits.float()

    def collate(self, rows: Sequence[Labelled], pad_id: int) -> LabelledBatch:
        """Return rows padded on the right, where absolute positions do not shift.

        Raises:
            ValueError: for a label that is no class of the head.
        """
        labels = [float(row.label) for row in rows]
        if self.num_labels > 1 and not all(label in range(self.num_labels) for label in labels):
            raise ValueError(
                f"a label is a class's number, 0 to {self.num_labels - 1}; got {labels}; correct it, or build the base "
                "with num_labels=1 for regression"
            )
        segments = [row.segments or (0,) * row.num_tokens for row in rows]  # 0 is what models take for none
        input_ids = pad_right([row.input_ids for row in rows], pad_id)
        return LabelledBatch(
            input_ids=input_ids,
            attention_mask=pad_right([[1] * row.num_tokens for row in rows], 0),
            segments=pad_right(segments, 0) if any(row.segments for row in rows) else None,
            labels=torch.tensor(labels),
            spans=span_mask([row.spans for row in rows], input_ids.shape),
        )

    def reads(self, row: Labelled) -> RowKey:
        """Return the tokens and their segments."""
        return (row.input_ids, row.segments)

    def target_losses(self, batch: LabelledBatch) -> Tensor:
        """Return cross-entropy in nats, or for one label the squared error, fp32 [batch]."""
        answers = self(batch)
        if self.num_labels == 1:
            return functional.mse_loss(answers[:, 0], batch.labels, reduction="none")
        return functional.cross_entropy(answers, batch.labels.long(), reduction="none")

    @torch.no_grad()
    def predict(
        self,
        rows: Sequence[Labelled],
        *,
        pad_id: int,
        batch_size: int,
        progress: Callable[[int], None] | None = None,
    ) -> Tensor:
        """Return the head's answers to rows in their order, fp32 [rows, labels] on the CPU, in evaluation mode.

        Args:
            rows: in any order.
            pad_id: token id that fills short rows.
            batch_size: rows in one pass.
            progress: called with the number of rows done since the last call.
        """
        was_training = self.training
        self.eval()
        self.begin_rows()
        order = sorted(range(len(rows)), key=lambda place: rows[place].num_tokens)
        answers = torch.empty(len(rows), self.num_labels)
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            batch = self.collate([rows[place] for place in chosen], pad_id).to(self.device)
            with skipping(self, [rows[place] for place in chosen], batch):
                answers[chosen] = self(batch).cpu()
            if progress is not None:
                progress(len(chosen))
        self.train(was_training)
        return answers


def beside_backbone(base: nn.Module) -> tuple[str, ...]:
    """Return the names of a base's modules outside its backbone.

    Raises:
        ValueError: if there is none.
    """
    prefix = cast(str, getattr(base, "base_model_prefix", ""))
    names = tuple(
        name for name, module in base.named_children() if name != prefix and any(True for _ in module.parameters())
    )
    if not hasattr(base, prefix) or not names:
        raise ValueError(
            f"a base must have a backbone and a head beside it; got {type(base).__name__} with "
            f"{', '.join(name for name, _ in base.named_children())}; use a model for sequence classification"
        )
    return names


def _to_float(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Let a head in fp32 follow a backbone in bf16."""
    return tuple(a.float() if isinstance(a, Tensor) and a.is_floating_point() else a for a in args)
