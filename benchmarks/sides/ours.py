"""What is measured: the frozen base, four recipes, and this project's own training of them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from benchmarks.sides.rows import COMPLETION, Text, text_rows
from reft import Encoded, FitConfig, ReftConfig, ReftModel, StepMetrics, fit, parse_layers

RATE = 9e-4  # the paper's learning rate


@dataclass(frozen=True)
class Case:
    """A recipe.

    Attributes:
        name: the letter that tables have.
        layers: as :func:`reft.parse_layers` reads them.
        positions: edited prompt tokens.
        rank: of each intervention.
    """

    name: str
    layers: str
    positions: str
    rank: int = 8

    def __str__(self) -> str:
        return f"({self.name}) {self.layers} layers, {self.positions}, r{self.rank}"

    def config(self, num_layers: int) -> ReftConfig:
        """Return the recipe for a base of ``num_layers``: LoReFT, tied, started as the authors' code starts."""
        layers = parse_layers(self.layers, num_layers)
        return ReftConfig(layers, self.positions, self.rank, init="paper")


CASES = {
    case.name: case
    for case in (
        Case("a", "all", "f7+l7"),
        Case("b", "upper-half", "f7+l7"),
        Case("c", "all", "l4"),
        Case("d", "upper-half", "l4"),
    )
}


class Training(Protocol):
    """A training that goes on step by step."""

    @property
    def num_trainable(self) -> int:
        """How many values are trained."""

    def step(self) -> float:
        """Take the next step; return the mean loss of its targets before it, in nats."""


@dataclass(frozen=True)
class Subject:
    """The base and the text that everything is measured on.

    Attributes:
        base: frozen, in evaluation mode; its copies share its weights.
        tokenizer: its tokenizer, with a padding token.
        text: where rows come from.
        name: what tables call the base.
    """

    base: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    text: Text
    name: str

    @property
    def num_layers(self) -> int:
        """How many decoder layers the base has."""
        return int(self.base.config.get_text_config().num_hidden_layers)

    @property
    def pad_id(self) -> int:
        """The token that fills short rows."""
        return int(self.tokenizer.pad_token_id)

    def rows(self, prompt: int, count: int, *, completion: int = COMPLETION) -> list[Encoded]:
        """Return rows with prompts of about ``prompt`` tokens; see :func:`benchmarks.sides.rows.text_rows`."""
        return text_rows(self.tokenizer, self.text.texts, prompt=prompt, count=count, completion=completion)

    def choices(self, words: Sequence[str]) -> list[int]:
        """Return the first token of each word."""
        return [int(self.tokenizer(word, add_special_tokens=False)["input_ids"][0]) for word in words]

    def own_base(self) -> Any:
        """Return a copy of the base's modules that shares its weights.

        Hooks and injected modules of one contender are then not in the way of another, and no weights are doubled.
        """
        shared = [*self.base.parameters(), *self.base.buffers()]
        return copy.deepcopy(self.base, {id(tensor): tensor for tensor in shared})

    def model(self, config: ReftConfig, *, base: Any = None) -> ReftModel:
        """Return a fresh model of this project, on a copy of the base that nobody shares unless one is given."""
        return ReftModel(self.own_base() if base is None else base, config, seed=0)


def fit_config(batch_size: int, epochs: int) -> FitConfig:
    """Return a training at the paper's rate without warm-up, decay or checkpoints."""
    return FitConfig(
        epochs=epochs,
        batch_size=batch_size,
        accumulation=1,
        learning_rate=RATE,
        warmup_ratio=0.0,
        weight_decay=0.0,
        max_grad_norm=1.0,
        seed=0,
        checkpoint_every=1,  # of no effect: no folder is given
    )


class OurTraining:
    """Steps of this project's own ``fit``: each item of its iterator is one."""

    def __init__(self, model: ReftModel, rows: Sequence[Encoded], config: FitConfig, *, pad_id: int) -> None:
        self.model = model
        self._steps: Iterator[StepMetrics] = fit(model, rows, config, pad_id=pad_id)

    @property
    def num_trainable(self) -> int:
        """How many values are trained."""
        return self.model.num_trainable()

    def step(self) -> float:
        """Take the next step; return its loss."""
        return next(self._steps).loss
