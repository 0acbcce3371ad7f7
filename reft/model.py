"""A frozen causal language model with interventions on its prompt tokens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from reft.config import ReftConfig
from reft.data import IGNORED, Batch
from reft.editing import Edits, accepts, find_decoder, position_ids, text_config
from reft.interventions import METHODS, LoreftIntervention
from reft.positions import position_masks


class ReftModel(nn.Module):
    """A base that is frozen, and one or two interventions for each edited layer.

    The base stays in evaluation mode even under :meth:`train`, so its dropout never runs: what the interventions are
    trained against is what they meet in use. Hooks are on the base only during a call, so several models may share
    one base, one call at a time. Gradient checkpointing of the base is not supported (it needs training mode).

    Args:
        base: a decoder-only ``transformers`` model for causal language modelling; its parameters stop requiring
            gradients.
        config: what to edit.
        seed: of the interventions' initial values.

    Raises:
        ValueError: if the base is no decoder-only model, lacks an edited layer, or is narrower than the rank.
    """

    def __init__(self, base: nn.Module, config: ReftConfig, *, seed: int) -> None:
        super().__init__()
        described = text_config(base)
        self.config = config
        self.seed = seed
        self.hidden_size = int(described.hidden_size)
        self.num_layers = int(described.num_hidden_layers)
        if config.layers[-1] >= self.num_layers:
            raise ValueError(
                f"layers must be below {self.num_layers}, the base's number of layers; "
                f"got {config.layers}; leave out the higher ones"
            )
        self.base = base.requires_grad_(False).eval()
        self._decoder = (find_decoder(base, self.num_layers),)  # in a tuple: no second registration of the module
        self._takes_position_ids = accepts(base, "position_ids")
        self._takes_logits_to_keep = accepts(base, "logits_to_keep")
        self._enabled = True
        self.interventions = nn.ModuleDict(self._build(seed)).to(self.device)

    def _build(self, seed: int) -> dict[str, nn.Module]:
        generator = torch.Generator().manual_seed(seed)
        method = METHODS[self.config.method]
        slots = [slot for layer in self.config.layers for slot in self.config.slots(layer)]
        return {slot: method(self.hidden_size, self.config.rank, self.config.init, generator) for slot in slots}

    @property
    def device(self) -> torch.device:
        """Where the base is."""
        return next(self.base.parameters()).device

    def train(self, mode: bool = True) -> ReftModel:
        """Set the mode of the interventions; the base stays in evaluation mode."""
        super().train(mode)
        self.base.eval()
        return self

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """Return name -> parameter of all that is trained, counted and kept in a checkpoint."""
        return {name: value for name, value in self.named_parameters() if value.requires_grad}

    def num_trainable(self) -> int:
        """Return the number of trained values."""
        return sum(value.numel() for value in self.trainable_parameters().values())

    def named_interventions(self) -> Iterator[tuple[str, LoreftIntervention]]:
        """Yield slot name and intervention, from the lowest layer up."""
        for name, module in self.interventions.items():
            yield name, cast(LoreftIntervention, module)

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Run the frozen base, unedited, inside the context."""
        before, self._enabled = self._enabled, False
        try:
            yield
        finally:
            self._enabled = before

    def forward(self, batch: Batch, *, logits_to_keep: int = 0) -> Tensor:
        """Run the edited base over whole rows.

        Args:
            batch: tokens, mask and prompt lengths, padded at either end, on the model's device.
            logits_to_keep: trailing columns to compute logits for; 0 for all.

        Returns:
            Logits [batch, columns kept, vocabulary], in the base's dtype.
        """
        arguments: dict[str, Any] = {"attention_mask": batch.attention_mask, "use_cache": False}
        if self._takes_position_ids:
            arguments["position_ids"] = position_ids(batch.attention_mask)
        if self._takes_logits_to_keep:
            arguments["logits_to_keep"] = logits_to_keep
        with self._editing(batch.attention_mask, batch.prompt_lengths):
            logits: Tensor = self.base(input_ids=batch.input_ids, **arguments).logits
        return logits[:, -logits_to_keep:]  # of what is kept already, or all for 0

    def token_losses(self, batch: Batch) -> Tensor:
        """Return the cross-entropy of each label token in nats, fp32 [labels]; 0 labels are an error.

        With padding on the left, logits are computed for the trailing columns that hold labels alone.
        """
        held = (batch.labels != IGNORED).any(0).nonzero()
        if not held.numel():
            raise ValueError("a batch for the loss needs label tokens; got none; give rows with a completion")
        labels = batch.labels[:, int(held[0]) :]
        logits = self(batch, logits_to_keep=labels.shape[1] + 1)[:, :-1]  # column t predicts token t + 1
        chosen = labels != IGNORED
        return functional.cross_entropy(logits[chosen].float(), labels[chosen], reduction="none")

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean cross-entropy over the batch's label tokens, fp32 scalar."""
        return self.token_losses(batch).mean()

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        *,
        max_new_tokens: int,
        num_beams: int = 1,
        num_return_sequences: int = 1,
        do_sample: bool = False,
        temperature: float = 1.0,
        top_p: float = 1.0,
        use_cache: bool = True,
        prefill_chunk_size: int | None = None,
        pad_token_id: int | None = None,
        eos_token_id: int | list[int] | None = None,
    ) -> Tensor:
        """Continue prompts; the edits are at the prompts' tokens, whatever the way of decoding.

        Args:
            input_ids: [batch, sequence], prompts padded on the left.
            attention_mask: [batch, sequence].
            max_new_tokens: upper bound of the continuation.
            num_beams: width of beam search; 1 for none.
            num_return_sequences: continuations of each prompt.
            do_sample: whether to draw tokens, from torch's global generator, rather than take the likeliest.
            temperature: divisor of the logits when drawing.
            top_p: share of the probability drawn from.
            use_cache: whether keys and values are kept between tokens.
            prefill_chunk_size: tokens of the prompt run at once; all when None.
            pad_token_id: fills rows that end early; the base's own when None.
            eos_token_id: ends a row; the base's own when None.

        Returns:
            [batch * num_return_sequences, sequence + new tokens], prompts included.

        Raises:
            ValueError: if a row ends in padding, which a continuation would follow.
        """
        if not attention_mask[:, -1].all():
            raise ValueError("generation needs prompts padded on the left; got a row that ends in padding; pad left")
        settings: dict[str, Any] = {
            "max_new_tokens": max_new_tokens,
            "num_beams": num_beams,
            "num_return_sequences": num_return_sequences,
            "do_sample": do_sample,
            "use_cache": use_cache,
            "prefill_chunk_size": prefill_chunk_size,
        }
        if do_sample:
            settings |= {"temperature": temperature, "top_p": top_p}
        tokens = {"pad_token_id": pad_token_id, "eos_token_id": eos_token_id}
        settings |= {name: value for name, value in tokens.items() if value is not None}
        generate = cast(Any, self.base).generate
        with self._editing(attention_mask, attention_mask.long().sum(-1)):
            return cast(Tensor, generate(input_ids=input_ids, attention_mask=attention_mask, **settings))

    def _editing(self, attention_mask: Tensor, prompt_lengths: Tensor) -> AbstractContextManager[None]:
        if not self._enabled:
            return nullcontext()
        masks = position_masks(self.config.parsed_positions, attention_mask, prompt_lengths)
        modules = {
            layer: [self.interventions[slot] for slot in self.config.slots(layer)] for layer in self.config.layers
        }
        return Edits(masks, tied=not self.config.untied).on(self._decoder[0], modules)
