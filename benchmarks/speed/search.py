"""A whole search: recipes trained and scored here, against as many separate trainings with pyreft."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.sides.others import pyreft_model, pyreft_training
from benchmarks.sides.ours import Case, OurTraining, Subject, fit_config
from benchmarks.speed.inference import CHOICES, pyreft_scores
from reft import Encoded, score_choices

LAYERS = ("all", "upper-half", "::2")
RANKS = (8, 4, 1)


def recipes(positions: Sequence[str]) -> list[Case]:
    """Return the layers of the space in params.yaml, each with each of these positions, and its ranks in turn."""
    return [
        Case(f"{number}", layers, where, RANKS[(number - 1) % len(RANKS)])
        for number, (layers, where) in enumerate(itertools.product(LAYERS, positions), start=1)
    ]


@dataclass(frozen=True)
class Trials:
    """What every trial has in common.

    Attributes:
        recipes: what is tried.
        train: rows that it trains on, for one epoch.
        validation: prompts that it is scored on after that.
        batch: rows of a step, and prompts of a scoring pass.
    """

    recipes: list[Case]
    train: list[Encoded]
    validation: list[Encoded]
    batch: int


@dataclass(frozen=True)
class TrialFigures:
    """Seconds of one trial: building, training, scoring.

    Attributes:
        recipe: layers, positions and rank.
        ours: here.
        pyreft: with pyreft.
    """

    recipe: str
    ours: float
    pyreft: float


def measure_search(subject: Subject, trials: Trials) -> Iterator[TrialFigures]:
    """Run each recipe on both sides in turn; what a trial here keeps with the base is there for the next."""
    base = subject.own_base()
    for case in trials.recipes:
        started = time.perf_counter()
        _ours(subject, base, case, trials)
        middle = time.perf_counter()
        _pyreft(subject, case, trials)
        ended = time.perf_counter()
        yield TrialFigures(f"{case.layers}, {case.positions}, r{case.rank}", middle - started, ended - middle)


def _ours(subject: Subject, base: Any, case: Case, trials: Trials) -> None:
    model = subject.model(case.config(subject.num_layers), base=base)
    training = OurTraining(model, trials.train, fit_config(trials.batch, epochs=1), pad_id=subject.pad_id)
    for _ in range(_steps(trials)):
        training.step()
    choices = [[token] for token in subject.choices(CHOICES)]
    score_choices(model, [row.input_ids for row in trials.validation], choices, batch_size=trials.batch)


def _pyreft(subject: Subject, case: Case, trials: Trials) -> None:
    config = case.config(subject.num_layers)
    model = pyreft_model(subject, config)
    training = pyreft_training(model, subject, config, trials.train, fit_config(trials.batch, epochs=1))
    for _ in range(_steps(trials)):
        training.step()
    model.eval()
    pyreft_scores(model, config, trials.validation, subject.choices(CHOICES), batch_size=trials.batch)


def _steps(trials: Trials) -> int:
    return -(-len(trials.train) // trials.batch)
