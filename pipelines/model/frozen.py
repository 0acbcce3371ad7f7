"""What stands for a frozen encoder where adapters are measured: its head, trained alone.

A decoder answers by itself; an encoder has no answer without a head. So beside edits and head stands the same head,
trained on the same rows for as many steps with no edits: what differs is what the edits add.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pipelines.contracts.prepared import Row
from pipelines.model.fitting import fit_config
from pipelines.model.scores import ScoresError, answers
from pipelines.model.workspace import Workspace
from pipelines.project.settings import TrainingSettings
from pipelines.recipes.methods.reft import Recipe
from reft import NonFiniteLossError, ReftConfig, ReftEncoder, fit
from reft.adapters.any_method import build_encoder

PLAIN = TrainingSettings(gradient_checkpointing=False, checkpoint_every=1)  # a head takes little memory and time
RATES = (1.0, 0.3, 3.0)  # times the recipe's learning rate: a head alone may learn best at another one than with edits


@dataclass(frozen=True)
class HeadTraining:
    """How a head is trained alone.

    Attributes:
        rows: that it is trained on.
        asked: that its learning rate is chosen on.
        recipe: whose steps it takes.
        seed: of its start and of the order of rows.
        batch_size: rows in one pass that asks.
    """

    rows: Sequence[Row]
    asked: Sequence[Row]
    recipe: Recipe
    seed: int
    batch_size: int


def head_alone(workspace: Workspace, training: HeadTraining) -> ReftEncoder:
    """The encoder with a head that was trained without edits; to be asked inside ``disabled()``.

    The head takes the place of that of any other model on the base. The states that it reads are constants, so each row
    runs through the encoder once.

    Raises:
        NonFiniteLossError, ScoresError: if no learning rate gives numbers.
    """
    best, kept, failed = -math.inf, dict[str, Tensor](), Exception()
    for rate in RATES:
        model = build_encoder(workspace.base, _edits_nothing(workspace), seed=training.seed)
        try:
            value = _train(workspace, model, training, rate)
        except (NonFiniteLossError, ScoresError) as error:
            failed = error
            continue
        if value > best:
            best, kept = value, {name: tensor.detach().clone() for name, tensor in model.head_tensors().items()}
    if not kept:
        raise failed
    with torch.no_grad():
        for name, tensor in model.head_tensors().items():
            tensor.copy_(kept[name])
    return model


def _edits_nothing(workspace: Workspace) -> ReftConfig:
    """Of a model that is never asked with its edits: at the last layer, below which all is kept."""
    return ReftConfig((int(workspace.base.config.num_hidden_layers) - 1,), "l1", 1)


def _train(workspace: Workspace, model: ReftEncoder, training: HeadTraining, rate: float) -> float:
    """Train the head; the measure on the rows that are asked."""
    config = fit_config(training.recipe, PLAIN, seed=training.seed)
    rows = workspace.training_rows(training.rows)
    with model.disabled():
        for _ in fit(model, rows, replace(config, learning_rate=rate * config.learning_rate), pad_id=workspace.pad_id):
            pass
        task, size = workspace.family, training.batch_size
        said = answers(workspace, task, model, training.asked, batch_size=size, title="the head alone")
    return task.measure.add_up(task.scores(training.asked, said))
