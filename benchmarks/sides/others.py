"""The same work by others: pyreft's training step, PEFT LoRA's, and the floor that no plain training step goes below.

Each does what the Hugging Face ``Trainer`` does with it: collate, forward, backward, bound the gradient, fused AdamW.
They run the batches of this project's schedule, which sorts rows by length, so each pads as little as we do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DataCollatorForSeq2Seq

from benchmarks.sides.ours import Subject
from reft import Encoded, FitConfig, ReftConfig, ReftModel
from reft.data import IGNORED
from reft.models.decoder import causal_stack
from reft.training.schedule import Schedule

Features = list[dict[str, Any]]
LORA_RANK = 8


class PeerTraining:
    """A plain training loop.

    Args:
        features: what the collator takes of each row.
        schedule: which rows each step has.
        collate: rows to a batch of tensors on the CPU.
        loss: a batch on the device to the mean loss.
        parameters: what is trained; none for the floor.
        device: where the model is.

    Attributes:
        number: of the next step, from 0.
    """

    def __init__(
        self,
        features: Features,
        schedule: Schedule,
        collate: Callable[[Features], Any],
        loss: Callable[[dict[str, Tensor]], Tensor],
        parameters: Iterable[nn.Parameter],
        *,
        device: torch.device,
    ) -> None:
        self._features = features
        self._schedule = schedule
        self._collate = collate
        self._loss = loss
        self._parameters = list(parameters)
        self._device = device
        self._optimizer: torch.optim.Optimizer | None = None
        if self._parameters:
            fused = device.type in ("cpu", "cuda")
            rate = schedule.config.learning_rate
            # Without decay: under torch's orthogonal parametrisation one step with it sets R to 0 for ever.
            self._optimizer = torch.optim.AdamW(self._parameters, lr=rate, weight_decay=0.0, fused=fused)
        self.number = 0

    @property
    def num_trainable(self) -> int:
        """How many values are trained."""
        return sum(parameter.numel() for parameter in self._parameters)

    def set_rate(self, rate: float) -> None:
        """Take further steps with this learning rate."""
        if self._optimizer is not None:
            for group in self._optimizer.param_groups:
                group["lr"] = rate

    def step(self) -> float:
        """Take the next step; return its loss."""
        (batch,) = self._schedule.batches(self.number % self._schedule.total_steps)
        inputs = self._collate([self._features[row] for row in batch])
        loss = self._loss({name: value.to(self._device) for name, value in inputs.items()})
        loss.backward()
        if self._optimizer is not None:
            nn.utils.clip_grad_norm_(self._parameters, self._schedule.config.max_grad_norm)
            self._optimizer.step()
            self._optimizer.zero_grad()
        self.number += 1
        return loss.item()


def pyreft_model(subject: Subject, config: ReftConfig, *, seed: int = 0) -> Any:
    """Return pyreft's model of a LoReFT recipe with one intervention a layer, freshly drawn from a seed.

    W and b are in the base's dtype, as pyreft demands: it trains them in bfloat16 on a base in bfloat16.
    """
    from benchmarks.sides.authors import authors_intervention, pyreft

    base = subject.own_base()
    width, dtype = int(base.config.get_text_config().hidden_size), next(base.parameters()).dtype
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        representations = [
            {
                "layer": layer,
                "component": "block_output",
                "low_rank_dimension": config.rank,
                "intervention": authors_intervention(config.method, width, config.form(layer), dtype=dtype),
            }
            for layer in config.layers
        ]
        model = pyreft.get_reft_model(base, pyreft.ReftConfig(representations=representations))
    model.train()
    return model


def start_at_identity(model: Any) -> None:
    """Set W = R and b = 0 in every intervention of pyreft's LoReFT, so that the model is the frozen base."""
    with torch.no_grad():
        for module in model.interventions.values():
            module.learned_source.weight.copy_(module.rotate_layer.weight.mT)
            module.learned_source.bias.zero_()


def pyreft_training(
    model: Any, subject: Subject, config: ReftConfig, rows: Sequence[Encoded], fit: FitConfig, *, sink: bool = False
) -> PeerTraining:
    """Return pyreft's training, with its collator and its loss.

    Its Trainer itself cannot run: transformers 5 hands ``compute_loss`` an argument more than pyreft 0.1.0 takes. The
    function uses nothing of the Trainer, so it is called without one. Its dataset puts a padding token in front of each
    row, which places that a short prompt does not have refer to; without ``sink`` it is left out, to pyreft's
    advantage, and prompts must not be so short.
    """
    from benchmarks.sides.authors import pyreft

    features = [
        {**feature, "intervention_locations": locations(config, row.prompt_length)}
        for feature, row in zip(plain_features(rows), rows, strict=True)
    ]
    if sink:
        features = [_behind_sink(feature, subject.pad_id) for feature in features]
    return PeerTraining(
        features,
        _schedule(rows, fit),
        pyreft.reft_trainer.make_data_collator(subject.tokenizer, model.model),
        lambda inputs: pyreft.ReftTrainer.compute_loss(None, model, inputs),
        [value for module in model.interventions.values() for value in module.parameters()],
        device=subject.base.device,
    )


def lora_training(subject: Subject, config: ReftConfig, rows: Sequence[Encoded], fit: FitConfig) -> PeerTraining:
    """Return a LoRA training of rank 8 on the recipe's layers, at the modules that PEFT takes by default (q and v)."""
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(r=LORA_RANK, lora_alpha=16, layers_to_transform=list(config.layers), task_type="CAUSAL_LM")
    model = get_peft_model(subject.own_base(), settings)
    model.train()
    trained = [value for value in model.parameters() if value.requires_grad]
    return _plain_training(subject, rows, fit, lambda inputs: model(**inputs).loss, trained)


def floor_training(subject: Subject, config: ReftConfig, rows: Sequence[Encoded], fit: FitConfig) -> PeerTraining:
    """Return forward and backward passes of the frozen base with nothing to train.

    The backward pass ends where the lowest edit would be, at the output of the recipe's lowest layer.
    """
    base = subject.own_base()
    causal_stack(base).layers[config.layers[0]].register_forward_hook(_needing_gradients)
    return _plain_training(subject, rows, fit, lambda inputs: base(**inputs, use_cache=False).loss, [])


def copy_weights(source: Any, model: ReftModel) -> None:
    """Give our interventions pyreft's W, b and R; its ``rotate_layer`` holds R transposed."""
    for key, module in source.interventions.items():
        layer = re.match(r"layer_(\d+)_", key)
        if layer is None:
            raise ValueError(f"a key of pyreft's interventions starts with its layer; got {key}; use another version")
        ours: Any = model.interventions[f"layer_{layer[1]}"]
        ours.import_tensors(
            {
                "rotation": module.rotate_layer.weight.detach().mT,
                "weight": module.learned_source.weight.detach(),
                "bias": module.learned_source.bias.detach(),
            }
        )


def locations(config: ReftConfig, prompt_length: int) -> list[list[int]]:
    """Return pyreft's edited places [interventions, places] of a row padded on the right."""
    from benchmarks.sides.authors import pyreft

    found: list[list[int]] = pyreft.get_intervention_locations(
        last_position=prompt_length,
        positions=config.positions,
        num_interventions=len(config.layers),
        share_weights=True,
    )
    return found


def _behind_sink(feature: dict[str, Any], pad_id: int) -> dict[str, Any]:
    """Return a row behind one padding token, where its place -1 is then."""
    return {
        "input_ids": [pad_id, *feature["input_ids"]],
        "attention_mask": [0, *feature["attention_mask"]],
        "labels": [IGNORED, *feature["labels"]],
        "intervention_locations": [[place + 1 for place in own] for own in feature["intervention_locations"]],
    }


def plain_features(rows: Sequence[Encoded]) -> Features:
    """Return rows as transformers' collators take them."""
    return [
        {
            "input_ids": list(row.input_ids),
            "attention_mask": [1] * row.num_tokens,
            "labels": [IGNORED] * row.prompt_length + list(row.input_ids[row.prompt_length :]),
        }
        for row in rows
    ]


def _plain_training(
    subject: Subject,
    rows: Sequence[Encoded],
    fit: FitConfig,
    loss: Callable[[dict[str, Tensor]], Tensor],
    parameters: Iterable[nn.Parameter],
) -> PeerTraining:
    collate = DataCollatorForSeq2Seq(subject.tokenizer, label_pad_token_id=IGNORED, padding="longest")
    schedule, device = _schedule(rows, fit), subject.base.device
    return PeerTraining(plain_features(rows), schedule, collate, loss, parameters, device=device)


def _schedule(rows: Sequence[Encoded], fit: FitConfig) -> Schedule:
    return Schedule(tuple(row.num_tokens for row in rows), fit)


def _needing_gradients(_module: nn.Module, _args: Any, output: Any) -> Any:
    hidden = output[0] if isinstance(output, tuple) else output
    cut = hidden.detach().requires_grad_()
    return (cut, *output[1:]) if isinstance(output, tuple) else cut
