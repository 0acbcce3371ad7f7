"""Training as an iterator of optimiser steps: the caller logs, validates, prunes and stops."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor

from reft.files import canonical_json, sha256
from reft.models.adapted import Row
from reft.training.contrast import base_rows, costs_of, losses_of
from reft.training.resume import CheckpointFolder, TrainingState, capture, restore
from reft.training.schedule import FitConfig, Schedule, require
from reft.training.trainable import Trainable


class NonFiniteLossError(ArithmeticError):
    """The loss or a gradient is NaN or infinite; the step was not applied."""


@dataclass(frozen=True)
class StepMetrics:
    """One optimiser step.

    Attributes:
        step: its number, from 1.
        total_steps: how many there will be.
        epoch: which pass over the rows it belongs to, from 0.
        loss: mean over the step's targets (for a language model the cross-entropy of a label token, in nats), before
            the step.
        learning_rate: that the step was taken with.
        grad_norm: norm of the gradient before it was bounded.
        tokens: real tokens run, prompts and completions of all processes, without padding.
        seconds: wall-clock time of the step.
        replayed: whether it was taken before an interruption, and is reported again from the checkpoint.
    """

    step: int
    total_steps: int
    epoch: int
    loss: float
    learning_rate: float
    grad_norm: float
    tokens: int
    seconds: float
    replayed: bool = False


def fit(
    model: Trainable,
    rows: Sequence[Row],
    config: FitConfig,
    *,
    pad_id: int,
    checkpoint: Path | None = None,
    max_steps: int | None = None,
) -> Iterator[StepMetrics]:
    """Train the interventions, in place, one optimiser step for each item of the iterator.

    The caller may stop at any item. With ``checkpoint``, a call with the same arguments on a freshly built model goes
    on after the last checkpoint and ends with the same bits as an uninterrupted one. It first reports the steps
    before it again (``replayed``), while the model is already at the checkpoint.

    Under ``accelerate launch`` or ``torchrun`` with several processes, each runs its share of every batch and the
    gradients are added up, so the losses are those of one process to rounding (but for what dropout draws). Each
    process is given all rows; the first one alone writes checkpoints, to a folder that all of them read.

    Args:
        model: trained where it is, and in evaluation mode whenever the iterator has given an item; of the base, only
            a head changes.
        rows: what the model is trained on, of its kind: for a language model, prompts with completions, or
            questions (:class:`reft.Question`), whose right option is trained against the others.
        config: how to train.
        pad_id: token id that fills short rows.
        checkpoint: folder of this run's checkpoints; None for none. It knows a run by the rows, the configs and the
            model's parameters at the start, not by the base's weights: give each base its own folder.
        max_steps: bound of the number of steps, schedule included.

    Raises:
        ValueError: for rows without completions, or a folder with another run's checkpoints.
        NonFiniteLossError: from the iterator, before a step with a NaN or infinite loss or gradient is applied.
    """
    require(max_steps is None or max_steps >= 1, "max_steps must be at least 1", max_steps)
    require(len(rows) > 0, "training needs at least one row", len(rows))
    for number, row in enumerate(rows):
        require(row.num_targets > 0, "a training row needs a completion", f"row {number}")
    schedule = Schedule(costs_of(model, rows), config, max_steps)
    folder = None
    if checkpoint is not None:
        folder = CheckpointFolder(checkpoint, _run_key(model, rows, config, pad_id, max_steps))
    trainer = _Trainer(model, rows, schedule, pad_id)
    state = folder.load() if folder is not None else None
    if state is not None:
        restore(state.tensors, model.trainable_parameters(), trainer.optimizer)
    done = 0 if state is None else len(state.history)
    steps = range(done, trainer.schedule.total_steps) if trainer.processes == 1 else ()  # of several, each has a share
    to_come = [rows[row] for step in steps for batch in trainer.schedule.batches(step) for row in batch]
    model.begin_rows(base_rows(to_come))
    return _steps(trainer, state, folder)


def _steps(trainer: _Trainer, state: TrainingState | None, folder: CheckpointFolder | None) -> Iterator[StepMetrics]:
    history = [] if state is None else [StepMetrics(**entry) for entry in state.history]
    yield from (replace(metrics, replayed=True) for metrics in history)
    total, every = trainer.schedule.total_steps, trainer.schedule.config.checkpoint_every
    for step in range(len(history), total):
        metrics = trainer.step(step)
        history.append(metrics)
        if (
            folder is not None
            and trainer.accelerator.is_main_process
            and (metrics.step % every == 0 or metrics.step == total)
        ):
            tensors = capture(trainer.parameters, trainer.optimizer)
            folder.save(TrainingState(metrics.step, [asdict(entry) for entry in history], tensors))
        yield metrics


class _Trainer:
    """Model, optimiser and rows, and how a step is taken."""

    def __init__(self, model: Trainable, rows: Sequence[Row], schedule: Schedule, pad_id: int) -> None:
        self.model = model
        self.rows = rows
        self.schedule = schedule
        self.pad_id = pad_id
        self.parameters = model.trainable_parameters()
        self.optimizer = _optimizer(model, schedule.config)
        # The caller chose the device; accelerate is to follow, and to take no precision from its environment.
        self.accelerator = Accelerator(cpu=model.device.type == "cpu", device_placement=False, mixed_precision="no")
        self.processes = self.accelerator.num_processes

    def step(self, number: int) -> StepMetrics:
        """Take the optimiser step ``number``, from 0."""
        started = time.perf_counter()
        batches = [[self.rows[row] for row in batch] for batch in self.schedule.batches(number)]
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._gradients(batches, number)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.schedule.config.max_grad_norm)
        loss_read, norm_read = torch.stack([loss, norm]).tolist()  # the one time that a step waits for its device
        _check_finite("loss", loss_read, number)
        _check_finite("gradient norm", norm_read, number)
        rate = self.schedule.learning_rate(number)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        return StepMetrics(
            step=number + 1,
            total_steps=self.schedule.total_steps,
            epoch=number // self.schedule.steps_per_epoch,
            loss=loss_read,
            learning_rate=rate,
            grad_norm=norm_read,
            tokens=sum(row.num_tokens for batch in batches for row in batch),
            seconds=time.perf_counter() - started,
        )

    def _gradients(self, batches: list[list[Row]], number: int) -> Tensor:
        """Fill the gradients of the mean over all targets of the step, and return that mean."""
        checkpointing = self.model.gradient_checkpointing
        self.model.gradient_checkpointing = self.schedule.config.gradient_checkpointing
        self.model.train()
        try:
            with torch.enable_grad(), _seeded(self._seed(number), self.model.device):
                loss = self._backward(batches)
        finally:
            self.model.eval()
            self.model.gradient_checkpointing = checkpointing
        # What no row reaches has a gradient of 0. None would do in one process, but the optimiser passes over it.
        parts = [torch.zeros_like(value) if value.grad is None else value.grad for value in self.parameters.values()]
        *gradients, loss = self._summed([*parts, loss])
        for parameter, gradient in zip(self.parameters.values(), gradients, strict=True):
            parameter.grad = gradient
        return loss

    def _backward(self, batches: list[list[Row]]) -> Tensor:
        """Add up this process's share of the gradients and of the mean over all targets of the step.

        A mean of the batches' means would weigh the targets of a batch with few of them more.
        """
        targets = sum(row.num_targets for batch in batches for row in batch)
        total = torch.zeros((), device=self.model.device)
        for batch in batches:
            share = batch[self.accelerator.process_index :: self.processes]
            if not share:  # fewer rows than processes
                continue
            loss = losses_of(self.model, share, self.pad_id).sum() / targets
            if loss.requires_grad:  # not where no row has a token at the edited positions
                self.accelerator.backward(loss)
            total += loss.detach()
        return total

    def _summed(self, tensors: list[Tensor]) -> list[Tensor]:
        """Add up each tensor over the processes, all in one message."""
        if self.processes == 1:
            return tensors
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        total = cast(Tensor, self.accelerator.reduce(flat, reduction="sum"))
        parts = total.split([tensor.numel() for tensor in tensors])
        return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]

    def _seed(self, step: int) -> int:
        parts = [self.schedule.config.seed, step, self.accelerator.process_index]
        return int(sha256(canonical_json(parts))[:15], 16)


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Draw from a seed inside the context, and leave torch's generators as they were.

    The dropout of edits and heads draws from them. Seeded by the step's number, a resumed run draws the same, and two
    runs of the same arguments do whatever went before them.
    """
    with torch.random.fork_rng(devices=[device] if device.type != "cpu" else [], device_type=device.type):
        torch.manual_seed(seed)
        yield


def _optimizer(model: Trainable, config: FitConfig) -> torch.optim.AdamW:
    decaying, parameters = model.decaying_parameters(), model.trainable_parameters()
    groups: list[dict[str, Any]] = [
        {"params": [value for name, value in parameters.items() if name in decaying]},
        {"params": [value for name, value in parameters.items() if name not in decaying], "weight_decay": 0.0},
    ]
    fused = model.device.type in ("cpu", "cuda")  # one kernel for the many small tensors
    return torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay, fused=fused)


def _run_key(model: Trainable, rows: Sequence[Row], config: FitConfig, pad_id: int, max_steps: int | None) -> str:
    tensors = {**model.trainable_parameters(), **model.fixed_tensors()}
    start = {name: sha256(value.detach().cpu().numpy().tobytes()) for name, value in tensors.items()}
    # What a row does not have is left out, so that a run of rows without domains is known by what it was before them.
    texts = [{key: value for key, value in asdict(cast(Any, row)).items() if value is not None} for row in rows]
    numbers = asdict(config)
    del numbers["checkpoint_every"]  # how often a run is saved changes nothing in it
    inputs = [numbers, model.form(), pad_id, max_steps, start, sha256(canonical_json(texts))]
    return sha256(canonical_json(inputs))


def _check_finite(name: str, value: float, step: int) -> None:
    if not math.isfinite(value):
        raise NonFiniteLossError(
            f"loss and gradient must be finite; got a {name} of {value} at step {step + 1}; "
            "lower the learning rate, or train in float32"
        )
