"""LoRA, and then ReFT on top of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from reft.data import Batch, Encoded
from reft.edits.config import ReftConfig, check_keys
from reft.models.decoder import CausalModel, ReftModel
from reft.models.strength import Scaled
from reft.peers.lora import LoraConfig
from reft.peers.methods import PeerConfig, config_from_dict
from reft.peers.model import PeerModel, PlainRows
from reft.training.contrast import Question, costs_of
from reft.training.fit import StepMetrics, fit
from reft.training.schedule import FitConfig, Schedule


@dataclass(frozen=True)
class StackedConfig(PeerConfig):
    """LoRA first, and ReFT on top of the result, which stays as it is (as HEFT does, Hill 2025).

    Attributes:
        lora: what is trained first; not decomposed.
        reft: what is trained then.
    """

    METHODS: ClassVar = ("lora_then_reft",)
    lora: LoraConfig
    reft: ReftConfig

    @property
    def adds(self) -> bool:
        """Whether LoRA adds, as ReFT does."""
        return self.lora.adds

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"method": self.method, "lora": self.lora.to_dict(), "reft": self.reft.to_dict()}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        """Build one from :meth:`to_dict`'s values; errors as :func:`reft.peers.methods.config_from_dict`."""
        check_keys(f"a {raw['method']} config", raw, ["method", "lora", "reft"])
        lora = config_from_dict(raw["lora"])
        if not isinstance(lora, LoraConfig):
            raise ValueError(f"the first of lora_then_reft must be lora; got {lora.method}; correct it")
        return cls(lora, ReftConfig.from_dict(raw["reft"]))


class StackedModel(PlainRows, Scaled, CausalModel, nn.Module):
    """A frozen decoder with LoRA in it, whose hidden states ReFT edits.

    :func:`fit_in_turn` trains one after the other; :func:`reft.fit` both at once. The cone of :class:`reft.ReftModel`
    is not used: its constants are kept by base, and with LoRA in it the base's layers compute something else.

    Args:
        base: as for :class:`reft.ReftModel`.
        config: what is trained.
        seed: of the initial values.

    Raises:
        ValueError: as the two models.
    """

    def __init__(self, base: nn.Module, config: StackedConfig, *, seed: int) -> None:
        super().__init__()
        self.config = config
        self.seed = seed
        self.gradient_checkpointing = False
        self.lora = PeerModel(base, config.lora, seed=seed)
        self.reft = ReftModel(base, config.reft, seed=seed)
        self.base = base
        self.hidden_size = self.reft.hidden_size
        self.num_layers = self.reft.num_layers
        self.train(False)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of what is trained; the base stays in evaluation mode."""
        self.lora.train(mode)  # refuses a scale that both have
        self.training = mode
        self.reft.train(mode)
        return self

    def _rescale(self, scale: float, /) -> None:
        self.lora.scale = scale
        self.reft.scale = scale

    @contextmanager
    def at_scale(self, scale: float) -> Iterator[None]:
        """Use both at this strength inside the context; each has its own again behind it."""
        with self.lora.at_scale(scale), self.reft.at_scale(scale), Scaled.at_scale(self, scale):
            yield

    def form(self) -> dict[str, Any]:
        """Return the config as plain JSON values."""
        return self.config.to_dict()

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """Return name -> parameter of both."""
        return _prefixed("lora.", self.lora.trainable_parameters()) | self.reft.trainable_parameters()

    def fixed_tensors(self) -> dict[str, Tensor]:
        """Return name -> what ReFT's parameters are read by."""
        return self.reft.fixed_tensors()

    def num_trainable(self) -> int:
        """Return the number of trained values of both."""
        return self.lora.num_trainable() + self.reft.num_trainable()

    def decaying_parameters(self) -> frozenset[str]:
        """Return the names of the trained parameters that weight decay pulls."""
        return frozenset(f"lora.{name}" for name in self.lora.decaying_parameters()) | self.reft.decaying_parameters()

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Run the base alone inside the context."""
        with self.lora.disabled(), self.reft.disabled():
            yield

    @contextmanager
    def editing(
        self,
        attention_mask: Tensor,
        prompt_lengths: Tensor,
        spans: Tensor | None = None,
        _domains: Tensor | None = None,
    ) -> Iterator[None]:
        """Let the base run with both inside the context, ReFT at the tokens of its positions."""
        self.lora.gradient_checkpointing = self.gradient_checkpointing
        with ExitStack() as undo:
            undo.enter_context(self.lora.editing(attention_mask, prompt_lengths, spans))
            undo.enter_context(self.reft.editing(attention_mask, prompt_lengths, spans))
            yield

    def forward(self, batch: Batch, *, logits_to_keep: int = 0) -> Tensor:
        """Return :meth:`logits`."""
        return self.logits(batch, logits_to_keep=logits_to_keep)

    def row_losses(self, rows: Sequence[Encoded], pad_id: int) -> Tensor:
        """Return the cross-entropy of each label token of the rows in nats, fp32 [labels]."""
        return self.target_losses(self.collate(rows, pad_id).to(self.device))


@dataclass(frozen=True)
class Turns:
    """How LoRA and then ReFT are trained; checks itself.

    Attributes:
        lora: LoRA's training.
        reft: ReFT's. Batches and epochs are the same as LoRA's; the learning rate is its own.
        lora_share: share in (0, 1) of all steps that train LoRA; the others train ReFT. Each has one at least.

    Raises:
        ValueError: at construction.
    """

    lora: FitConfig
    reft: FitConfig
    lora_share: float

    def __post_init__(self) -> None:
        if not 0 < self.lora_share < 1:
            raise ValueError(f"lora_share must be in (0, 1); got {self.lora_share}; correct it")
        for name in ("epochs", "batch_size", "accumulation"):
            if getattr(self.lora, name) != getattr(self.reft, name):
                raise ValueError(f"both turns must have the same {name}; got {self.lora} and {self.reft}; correct it")


def fit_in_turn(
    model: StackedModel,
    rows: Sequence[Encoded | Question],
    turns: Turns,
    *,
    pad_id: int,
    checkpoint: Path | None = None,
    max_steps: int | None = None,
) -> Iterator[StepMetrics]:
    """Train LoRA and then ReFT on top of it, as many steps together as :func:`reft.fit` takes for one of them.

    Each turn has a warm-up, a schedule and checkpoints of its own, and draws its rows' order by its own seed. The
    arguments and errors are those of :func:`reft.fit`.

    Raises:
        ValueError: also for a training of one step, which cannot be shared.
    """
    total = Schedule(costs_of(model, rows), turns.lora, max_steps).total_steps
    if total < 2:
        raise ValueError(f"two turns need a step each; got {total} in all; give more rows or epochs")
    return _in_turn(model, rows, turns, total, pad_id=pad_id, checkpoint=checkpoint)


def _in_turn(
    model: StackedModel,
    rows: Sequence[Encoded | Question],
    turns: Turns,
    total: int,
    *,
    pad_id: int,
    checkpoint: Path | None,
) -> Iterator[StepMetrics]:
    first = min(max(1, round(total * turns.lora_share)), total - 1)
    folders = [None if checkpoint is None else checkpoint / name for name in ("lora", "reft")]
    per_epoch = Schedule(costs_of(model, rows), turns.lora).steps_per_epoch

    def told(metrics: StepMetrics, done: int) -> StepMetrics:
        step = done + metrics.step
        return replace(metrics, step=step, total_steps=total, epoch=(step - 1) // per_epoch)

    lora = fit(model.lora, rows, turns.lora, pad_id=pad_id, checkpoint=folders[0], max_steps=first)
    yield from (told(metrics, 0) for metrics in lora)
    on_top = OnTop(model)
    reft = fit(on_top, rows, turns.reft, pad_id=pad_id, checkpoint=folders[1], max_steps=total - first)
    with on_top.alone():
        yield from (told(metrics, first) for metrics in reft)


class OnTop:
    """A stacked model of which ReFT alone is trained."""

    def __init__(self, model: StackedModel) -> None:
        self._model = model
        self.gradient_checkpointing = False

    @property
    def device(self) -> torch.device:
        """Where the base is."""
        return self._model.device

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Compute no gradients of LoRA inside the context."""
        values = self._model.lora.trainable_parameters().values()
        for value in values:
            value.requires_grad_(False)
        try:
            yield
        finally:
            for value in values:
                value.requires_grad_(True)

    def train(self, mode: bool = True) -> None:
        """Set the mode of ReFT; LoRA drops nothing any more."""
        self._model.reft.train(mode)

    def eval(self) -> None:
        """Set evaluation mode."""
        self._model.eval()

    def form(self) -> dict[str, Any]:
        """Return the config as plain JSON values."""
        return self._model.form()

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """Return name -> parameter of ReFT."""
        return self._model.reft.trainable_parameters()

    def fixed_tensors(self) -> dict[str, Tensor]:
        """Return name -> what ReFT's parameters are read by, and LoRA as its turn left it: ReFT learns on top of it."""
        return {**_prefixed("lora.", self._model.lora.trainable_parameters()), **self._model.fixed_tensors()}

    def decaying_parameters(self) -> frozenset[str]:
        """Return the names of those that weight decay pulls."""
        return self._model.reft.decaying_parameters()

    def costs(self, rows: Sequence[Encoded]) -> tuple[int, ...]:
        """Return the rows' tokens."""
        return self._model.costs(rows)

    def begin_rows(self, _rows: Sequence[Encoded]) -> None:
        """Do nothing: nothing is kept of rows."""

    def row_losses(self, rows: Sequence[Encoded], pad_id: int) -> Tensor:
        """Return the cross-entropy of each label token of the rows in nats, fp32 [labels]."""
        self._model.gradient_checkpointing = self.gradient_checkpointing
        return self._model.row_losses(rows, pad_id)


def _prefixed(prefix: str, values: dict[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    return {f"{prefix}{name}": value for name, value in values.items()}


CONFIGS = (StackedConfig,)
