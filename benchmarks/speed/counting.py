"""Operations of steps alone: they follow from recipe and rows, and are the same on a busy machine as on an idle one."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.sides.others import copy_weights, pyreft_model, pyreft_training
from benchmarks.sides.ours import Case, OurTraining, Subject, fit_config
from benchmarks.speed.beside import counted
from benchmarks.speed.steps import EPOCHS


@dataclass(frozen=True)
class StepOperations:
    """Operations of matrix products in steps of one recipe on the same rows.

    Attributes:
        case: the recipe's letter.
        pyreft: of pyreft's step, whichever.
        first: of our step that computes what no edit can change.
        warm: of our step that finds it.
    """

    case: str
    pyreft: int
    first: int
    warm: int


def count_steps(subject: Subject, case: Case, *, batch: int, prompt: int) -> StepOperations:
    """Count the operations of a step of pyreft's, and of our first and second step on the same rows."""
    config, rows, fit = case.config(subject.num_layers), subject.rows(prompt, batch), fit_config(batch, EPOCHS)
    peer, model = pyreft_model(subject, config), subject.model(config)
    copy_weights(peer, model)
    ours = OurTraining(model, rows, fit, pad_id=subject.pad_id)
    first, warm = counted(ours), counted(ours)
    return StepOperations(case.name, counted(pyreft_training(peer, subject, config, rows, fit)), first, warm)
