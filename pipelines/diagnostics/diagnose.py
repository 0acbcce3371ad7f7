"""Everything that stage evaluate looks at beside the task's own figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.contracts.beside import read_near, read_slices
from pipelines.contracts.diagnostics import NEAR_TRAINING, Calibration, CommonAnswer, Diagnostics, Forgetting
from pipelines.contracts.prepared import Row
from pipelines.diagnostics.calibration import calibration
from pipelines.diagnostics.forgetting import Adapted, forgetting, neutral_rows, passage_numbers
from pipelines.diagnostics.neutral import read_neutral
from pipelines.diagnostics.slices import Answered, parts_of, slices
from pipelines.model.intervals import Resampling
from pipelines.model.workspace import Workspace
from pipelines.params.evaluate import EvaluateParams
from pipelines.tasks.family import Answer, Reading, TaskFamily
from reft import ReftEncoder
from reft.adapters.any_method import MethodModel

SHOWN = 60  # characters of an answer


def diagnose(
    workspace: Workspace, model: MethodModel, answered: Answered, settings: EvaluateParams, *, seed: int, root: Path
) -> Diagnostics:
    """Look at a model and at what it answered to the test rows.

    Args:
        workspace: base and data.
        model: with the adapter.
        answered: the test rows, with the answers of adapter and base.
        settings: the section ``evaluate``.
        seed: of drawing anew.
        root: the project's root.
    """
    task, rows = workspace.family, answered.rows
    said = {"adapter": answered.adapter, "base": answered.base}
    near = {each.id for each in read_near(workspace.data) if (each.split, each.other_split) == ("test", "train")}
    columns = settings.slice_columns()
    parts = parts_of(workspace, rows, settings.slices, read_slices(workspace.data) if columns else {})
    parts[NEAR_TRAINING] = ["yes" if row.id in near else "no" for row in rows]
    forgotten = None
    if not isinstance(model, ReftEncoder):
        forgotten = forgetting_of(workspace, model, rows, settings, seed=seed, root=root)
    return Diagnostics(
        forgetting=forgotten,
        common=dict(zip(said, map(common_answer, zip(*answered.read, strict=True)), strict=True)),
        calibration={system: found for system, own in said.items() if (found := _calibration(task, rows, own))},
        near_training=sum(row.id in near for row in rows),
        slices=slices(task, answered, parts, settings, seed=seed),
    )


def common_answer(read: Sequence[Reading]) -> CommonAnswer:
    """The answer that is given most often: its letter where it has one, or what a reader finds in it, or the text."""
    told = [(each.details.get("letter"), each.details.get("answer"), each.value) for each in read]
    values = [str(next(value for value in of_row if value is not None)) for of_row in told]
    answer, count = Counter(values).most_common(1)[0]
    return CommonAnswer(answer[:SHOWN], count / len(read))


def middle_domain(rows: Sequence[Row]) -> float | None:
    """The t at which text without one is read: the middle one of the rows' domains; None where they have none."""
    known = [row.domain for row in rows if row.domain is not None]
    return float(np.median(known)) if known else None


def _calibration(task: TaskFamily[Any], rows: Sequence[Row], answers: Sequence[Answer]) -> Calibration | None:
    confidences = task.confidences(rows, answers)
    return None if confidences is None else calibration(confidences)


def forgetting_of(
    workspace: Workspace, model: Adapted, rows: Sequence[Row], settings: EvaluateParams, *, seed: int, root: Path
) -> Forgetting:
    """How much a decoder forgets of neutral text; arguments as of :func:`diagnose`."""
    text = read_neutral(settings.neutral, root)
    read = neutral_rows(text, workspace.tokenizer, workspace.base, domain=middle_domain(rows))
    how = Resampling(settings.confidence, settings.bootstrap, seed, passage_numbers(read))
    return forgetting(model, read, pad_id=workspace.pad_id, name=text.name, how=how)
