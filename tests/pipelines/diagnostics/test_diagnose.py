"""What is made of answers as they are read: the commonest of them, and the middle of the rows' domains."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.contracts.prepared import Row
from pipelines.contracts.task import TaskSpec
from pipelines.diagnostics.diagnose import common_answer, middle_domain
from pipelines.tasks.family import open_family
from tests.pipelines.stages.test_evaluate import TASK


def test_a_model_that_always_says_one_label_is_found() -> None:
    """However sure it is of it."""
    row = Row("f:1", "p", " positive", "positive")
    said = [np.log([own, 1 - own]) for own in (0.51, 0.9, 0.7)]
    found = common_answer([TASK.read(row, each) for each in said])
    assert (found.answer, found.share) == ("negative", 1.0)


def test_answers_in_words_are_compared_by_what_is_read_and_unreadable_ones_by_their_text() -> None:
    settings = {"max_new_tokens": 8, "reader": {"name": "number"}, "measure": "exact_match", "conversation": False}
    task, row = open_family(TaskSpec("generation", "{text}", False, settings=settings)), Row("f:1", "p", " 4")
    found = common_answer([task.read(row, text) for text in ("it is 4", "so 4.", "none", "neither")])
    assert (float(found.answer), found.share) == (4.0, 0.5)
    unread = common_answer([task.read(row, text) for text in ("none", "none", "neither")])
    assert (unread.answer, unread.share) == ("none", pytest.approx(2 / 3))


def test_text_without_a_domain_is_read_at_the_middle_one() -> None:
    rows = [Row("f:1", "p", " a", domain=domain) for domain in (1990.0, 2000.0, 2020.0)]
    assert (middle_domain(rows), middle_domain([Row("f:1", "p", " a")])) == (2000.0, None)
