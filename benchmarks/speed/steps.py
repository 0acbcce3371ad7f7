"""Warm training steps side by side, and whole trainings from nothing."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.sides.others import PeerTraining, floor_training, lora_training, pyreft_model, pyreft_training
from benchmarks.sides.ours import Case, OurTraining, Subject, Training, fit_config
from benchmarks.sides.timing import Timing, interleaved
from benchmarks.speed.agreement import matched, step_together
from reft import Encoded

BATCHES = 4  # different batches that the warm steps go through
EPOCHS = 1000  # more than any measurement takes, so that a training never ends in it
OURS, PYREFT, LORA, FLOOR = "ours", "pyreft", "LoRA", "floor"


@dataclass(frozen=True)
class StepFigures:
    """Warm steps of one recipe.

    Attributes:
        case: the recipe's letter.
        batch: rows of a step.
        prompt: nominal tokens of a prompt.
        seconds: of a step, by contender.
        trained: how many values it trains, by contender.
        difference: of our loss and pyreft's before the timing, in nats.
    """

    case: str
    batch: int
    prompt: int
    seconds: dict[str, Timing]
    trained: dict[str, int]
    difference: float


@dataclass(frozen=True)
class TrainingFigures:
    """A whole training of one recipe, model building and filling included.

    Attributes:
        case: the recipe's letter.
        rows: what it was trained on.
        batch: rows of a step.
        seconds: from nothing to the end of each epoch, by contender.
    """

    case: str
    rows: int
    batch: int
    seconds: dict[str, tuple[float, ...]]


def measure_steps(
    subject: Subject, cases: Sequence[Case], *, batch: int, prompt: int, repeats: int
) -> Iterator[StepFigures]:
    """Time warm steps; cases of the same layers are interleaved in one measurement, beside LoRA on those layers.

    Yields:
        Figures of each case, in the order of their layers.
    """
    rows = subject.rows(prompt, batch * BATCHES)
    for _, group in itertools.groupby(sorted(cases, key=lambda case: case.layers), key=lambda case: case.layers):
        yield from _measure_group(subject, list(group), rows, batch=batch, prompt=prompt, repeats=repeats)


def _measure_group(
    subject: Subject, cases: Sequence[Case], rows: Sequence[Encoded], *, batch: int, prompt: int, repeats: int
) -> Iterator[StepFigures]:
    fit = fit_config(batch, EPOCHS)
    layers = cases[0].config(subject.num_layers)
    shared = {LORA: lora_training(subject, layers, rows, fit), FLOOR: floor_training(subject, layers, rows, fit)}
    step_together(shared[LORA], shared[FLOOR], "the frozen base")  # LoRA starts at it
    pairs = {case.name: matched(subject, case.config(subject.num_layers), rows, fit) for case in cases}
    running: dict[str, Training] = {**shared}
    for name, pair in pairs.items():
        running |= {f"{name} {OURS}": pair.ours, f"{name} {PYREFT}": pair.pyreft}
    for training in shared.values():
        training.number = BATCHES + 1  # beside the pairs
    found = interleaved({name: once(training) for name, training in running.items()}, repeats=repeats, warmup=0)
    for name, pair in pairs.items():
        own: dict[str, Training] = {OURS: pair.ours, PYREFT: pair.pyreft, **shared}
        seconds = {who: found[who if who in shared else f"{name} {who}"] for who in own}
        trained = {who: training.num_trainable for who, training in own.items()}
        yield StepFigures(name, batch, prompt, seconds, trained, pair.difference)


def once(training: Training) -> Callable[[], None]:
    """Return a function that takes one step."""

    def step() -> None:
        training.step()

    return step


def measure_training(
    subject: Subject, case: Case, *, rows: int, batch: int, prompt: int, epochs: int
) -> TrainingFigures:
    """Train from nothing, the contenders in turn, an epoch each; model building counts to the first."""
    chosen = subject.rows(prompt, rows)
    config, fit = case.config(subject.num_layers), fit_config(batch, epochs)

    def ours() -> OurTraining:
        return OurTraining(subject.model(config), chosen, fit, pad_id=subject.pad_id)

    def pyreft() -> PeerTraining:
        return pyreft_training(pyreft_model(subject, config), subject, config, chosen, fit)

    runs = {OURS: _epochs(ours, epochs, -(-rows // batch)), PYREFT: _epochs(pyreft, epochs, -(-rows // batch))}
    turns = list(zip(*runs.values(), strict=True))
    seconds = {
        name: tuple(itertools.accumulate(turn)) for name, turn in zip(runs, zip(*turns, strict=True), strict=True)
    }
    return TrainingFigures(case.name, rows, batch, seconds)


def _epochs(build: Callable[[], Training], epochs: int, steps: int) -> Iterator[float]:
    """Yield the seconds of each epoch."""
    started = time.perf_counter()
    training = build()
    for _ in range(epochs):
        for _ in range(steps):
            training.step()
        yield time.perf_counter() - started
        started = time.perf_counter()
