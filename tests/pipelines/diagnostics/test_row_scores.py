"""The score of a row by itself, of each kind of task: what says which rows are won and lost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipelines.contracts.prepared import Row
from pipelines.contracts.task import TaskSpec
from pipelines.diagnostics.row_scores import row_scores
from pipelines.tasks.family import Answer, open_family

LABELS = {"negative": " negative", "positive": " positive"}
SAYS = {"positive": np.log([0.2, 0.8]), "negative": np.log([0.8, 0.2])}
CLASSES = {"labels": LABELS, "measure": "macro_f1", "average": "macro"}
TEXTS = {"max_new_tokens": 4, "reader": {"name": "exact"}, "measure": "exact_match", "conversation": False}
MOOD = [Row("f:1", "p", " positive", "positive"), Row("f:2", "p", " negative", "negative")]
WORD = [Row("f:3", "p", " yes", references=("yes",))]


def spec(name: str, settings: dict[str, Any]) -> TaskSpec:
    return TaskSpec(name, "{text}", False, settings=settings)


@pytest.mark.parametrize("measure", ["accuracy", "macro_f1", "matthews"])
def test_a_label_is_right_or_wrong_whatever_adds_the_labels_up(measure: str) -> None:
    task = open_family(spec("classification", {"labels": LABELS, "measure": measure}))
    assert row_scores(task, MOOD, [SAYS["positive"], SAYS["positive"]]).tolist() == [1.0, 0.0]


def test_of_a_mixture_each_row_has_the_score_of_its_own_task() -> None:
    """The mixture's own scores of these rows are [rows, 1 + width], and say nothing of one row."""
    parts = {"word": ("generation", TEXTS), "mood": ("classification", {"labels": LABELS})}
    own = {
        name: {"task": family, **spec(family, settings).prompt(reads_domain=False)}
        for name, (family, settings) in parts.items()
    }
    task = open_family(spec("mixture", {"tasks": own}))
    rows = [Row(**{**vars(row), "task": "mood" if row.label else "word"}) for row in (MOOD[0], *WORD, MOOD[1])]
    answers: list[Answer] = [SAYS["negative"], "yes", SAYS["negative"]]
    assert row_scores(task, rows, answers).tolist() == [0.0, 1.0, 1.0]
