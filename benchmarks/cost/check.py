"""The cost model beside what was measured: warm steps of recipes (a) to (d), alternating with pyreft's where it is."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from benchmarks.cost.step import Contender, Recipe, Shape, rows_of, step
from benchmarks.cost.work import Rates, Work
from benchmarks.sides.others import floor_training, lora_training, pyreft_model, pyreft_training
from benchmarks.sides.ours import Case, OurTraining, Subject, Training, fit_config
from benchmarks.sides.timing import interleaved
from reft import Encoded, ReftConfig, parse_positions

BATCHES = 2  # different ones that the steps go through
OTHERS: dict[Contender, str] = {"pyreft": "pyreft", "LoRA": "peft"}  # of which package each is
EPOCHS = 1000  # more than any measurement takes


@dataclass(frozen=True)
class Checked:
    """A step as the model has it and as it was.

    Attributes:
        case: the recipe's letter.
        contender: who trains.
        batch: rows of a step.
        prompt: nominal tokens of a prompt.
        predicted: seconds of a warm step by the model, over the batches that were measured: the median of the rounds'
            rates.
        measured: seconds of a warm step, the median.
        shares: of the predicted seconds, by kind of work.
        operations: of matrix products in a step.
    """

    case: str
    contender: str
    batch: int
    prompt: int
    predicted: float
    measured: float
    shares: Mapping[str, float]
    operations: float

    @property
    def error(self) -> float:
        """By how much of the measured seconds the model is above them."""
        return self.predicted / self.measured - 1


def recipe_of(config: ReftConfig) -> Recipe:
    """Return what the model takes of a tied recipe with one form for all layers."""
    positions = parse_positions(config.positions)
    rank = config.form(config.layers[0]).dimensions
    return Recipe(config.layers, positions.first, positions.last, rank)


def contenders() -> tuple[Contender, ...]:
    """Return who can be measured here: others only where their library is."""
    return ("ours", "floor", *(name for name, package in OTHERS.items() if find_spec(package) is not None))


def missing() -> dict[str, str]:
    """Return who cannot be measured here, and why."""
    return {name: f"{package} is not here" for name, package in OTHERS.items() if find_spec(package) is None}


def training(who: Contender, subject: Subject, config: ReftConfig, rows: Sequence[Encoded], batch: int) -> Training:
    """Return a contender's training, cold."""
    fit = fit_config(batch, EPOCHS)
    if who == "ours":
        return OurTraining(subject.model(config), rows, fit, pad_id=subject.pad_id)
    if who == "pyreft":
        with subject.base.device:  # torch completes each R to a square matrix, which takes a CPU minutes at 4096
            return pyreft_training(pyreft_model(subject, config), subject, config, rows, fit)
    return lora_training(subject, config, rows, fit) if who == "LoRA" else floor_training(subject, config, rows, fit)


def check(
    subject: Subject, measure: Callable[[], Rates], cases: Sequence[Case], *, batch: int, prompt: int, repeats: int
) -> Iterator[Checked]:
    """Measure warm steps of each case's contenders in turn, and yield them beside the model's.

    The device's rates are measured in each round, beside the steps: on a machine whose speed varies, rates of another
    minute would say nothing of this one's steps.

    Args:
        subject: base and text.
        measure: measures the device's rates.
        cases: the recipes.
        batch: rows of a step.
        prompt: nominal tokens of a prompt.
        repeats: rounds.
    """
    shape = Shape.of(subject.base.config, next(subject.base.parameters()).element_size())
    rows = subject.rows(prompt, batch * BATCHES)
    for case in cases:
        config = case.config(subject.num_layers)
        running = {who: training(who, subject, config, rows, batch) for who in contenders()}
        for _, each in itertools.product(range(BATCHES), running.values()):
            each.step()
        taken: dict[Contender, list[float]] = {who: [] for who in running}
        found: list[Rates] = []
        for _ in range(repeats):
            found.append(measure())
            for who, each in running.items():
                taken[who] += interleaved({who: each.step}, repeats=1, warmup=0)[who].seconds
        for who in running:
            works = _mean_step(shape, recipe_of(config), rows, batch, who)
            predicted = statistics.median(rates.seconds(works) for rates in found)
            measured = statistics.median(taken[who])
            yield Checked(
                case.name, who, batch, prompt, predicted, measured, shares(found[-1], works), operations(works)
            )


def operations(works: Sequence[Work]) -> float:
    """Return the operations of matrix products."""
    return sum(work.operations * work.kernels for work in works)


def shares(rates: Rates, works: Sequence[Work]) -> dict[str, float]:
    """Return the share of each kind of work in the time of all, each taken alone."""
    alone: dict[str, float] = {}
    for work in works:
        alone[work.name] = alone.get(work.name, 0.0) + rates.seconds([work])
    return {name: seconds / sum(alone.values()) for name, seconds in alone.items()}


def _mean_step(shape: Shape, recipe: Recipe, rows: Sequence[Encoded], batch: int, who: Contender) -> list[Work]:
    """Return the work of a mean step: the schedule sorts rows by length, and all batches come equally often."""
    ordered = sorted(rows, key=lambda row: row.num_tokens)
    batches = [rows_of(ordered[start : start + batch]) for start in range(0, len(ordered), batch)]
    return [work.times(1 / len(batches)) for each in batches for work in step(shape, recipe, each, who)]
