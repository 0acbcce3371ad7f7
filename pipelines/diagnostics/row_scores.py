"""How good each answer is by itself, of any task: what tells which rows one system wins and another loses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipelines.contracts.prepared import Row
from pipelines.tasks.family import Answer, TaskFamily, task_places
from pipelines.tasks.measures import Floats


def row_scores(task: TaskFamily[Any], rows: Sequence[Row], answers: Sequence[Answer]) -> Floats:
    """A number for each row, [rows], higher is better: 1 or 0 where answers are right or wrong.

    The task's own scores are that where its measure is their mean. F1 or a correlation says nothing of one row: there
    it is whether the answer is right, or how near it is. Of a mixture each row has that of its own task.
    """
    if parts := task.parts():
        found = np.zeros(len(rows))
        for name, places in task_places(rows).items():
            found[places] = row_scores(parts[name], [rows[p] for p in places], [answers[p] for p in places])
        return found
    if task.measure.is_mean:
        return task.scores(rows, answers)
    known = task.confidences(rows, answers)
    return task.fine_scores(rows, answers) if known is None else known.right
