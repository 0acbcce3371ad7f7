"""Calibration, against a plain computation row by row."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.contracts.prepared import Row
from pipelines.diagnostics.calibration import calibration
from pipelines.tasks.family import Confidences
from tests.pipelines.stages.test_evaluate import TASK


def plain_error(said: list[float], right: list[float]) -> float:
    """Rows by the tenth that their probability is up to; of each the gap of its means, by its share of the rows."""
    total = 0.0
    for low in range(10):
        rows = [row for row, value in enumerate(said) if low / 10 < value <= (low + 1) / 10]
        if rows:
            mean = sum(said[row] for row in rows) / len(rows)
            total += abs(mean - sum(right[row] for row in rows) / len(rows)) * len(rows) / len(said)
    return total


def test_the_error_is_that_of_a_plain_computation() -> None:
    rng = np.random.default_rng(0)
    said = rng.uniform(0.5, 1.0, 300)
    right = (rng.random(300) < said**2).astype(np.float64)
    found = calibration(Confidences(said, right))
    assert found.expected_error == pytest.approx(plain_error(said.tolist(), right.tolist()))
    assert [each.low for each in found.bins] == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.9])
    assert sum(each.rows for each in found.bins) == 300


def test_one_that_is_always_sure_and_half_right_is_off_by_half() -> None:
    found = calibration(Confidences(np.ones(8), np.array([1.0, 0.0] * 4)))
    assert found.expected_error == 0.5
    assert [(each.low, each.high, each.rows) for each in found.bins] == [(pytest.approx(0.9), 1.0, 8)]


def test_a_label_is_as_likely_as_its_words_and_right_where_it_is_the_rows() -> None:
    rows = [Row("f:1", "p", " positive", "positive"), Row("f:2", "p", " positive", "positive")]
    found = TASK.confidences(rows, [np.log([0.2, 0.6]), np.log([0.03, 0.01])])
    assert found.said == pytest.approx([0.75, 0.75])
    assert found.right.tolist() == [1.0, 0.0]
