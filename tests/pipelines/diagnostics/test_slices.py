"""Figures of parts of the rows, against the rows counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.contracts.prepared import Row
from pipelines.contracts.task import TaskSpec
from pipelines.diagnostics.slices import Answered, quartiles, slices
from pipelines.tasks.family import open_family
from tests.pipelines.stages.test_evaluate import LABELS, SETTINGS, TASK

SURE = {label: np.log([0.9, 0.1] if label == LABELS[0] else [0.1, 0.9]) for label in LABELS}


def answered(right: list[int], adapter: list[int], base: list[int]) -> Answered:
    rows = [Row(f"f:{place}", "p", " c", LABELS[label]) for place, label in enumerate(right)]
    return Answered(rows, *[[SURE[LABELS[label]] for label in said] for said in (adapter, base)], [])


def test_a_part_has_its_own_rows_figures_and_difference() -> None:
    """Of the six short rows the adapter has five and the base three; of the four long ones none and two."""
    right, adapter, base = [0, 1] * 5, [0, 1, 0, 1, 0, 0, 1, 0, 1, 0], [0, 1, 0, 0, 1, 0, 0, 1, 1, 0]
    length = ["short"] * 6 + ["long"] * 4
    found = {
        each.part: each for each in slices(TASK, answered(right, adapter, base), {"length": length}, SETTINGS, seed=0)
    }
    assert {part: each.rows for part, each in found.items()} == {"long": 4, "short": 6}
    assert found["short"].adapter.value == pytest.approx(5 / 6)
    assert found["short"].base.value == pytest.approx(3 / 6)
    assert found["short"].difference.value == pytest.approx(2 / 6)
    assert (found["long"].adapter.value, found["long"].base.value) == (0.0, 0.5)
    assert found["long"].adapter.high == pytest.approx(0.4899, abs=1e-4)  # Wilson 1927 for 0 of 4 at 95 %
    assert found["long"].difference.low < -0.5 < found["long"].difference.high


def test_what_has_one_part_is_left_out_and_so_is_a_label_where_the_measure_is_no_mean() -> None:
    both = answered([0, 1], [0, 1], [0, 1])
    labels = [row.label for row in both.rows]
    parts = {"label": labels, "source": ["f", "f"]}
    assert [each.by for each in slices(TASK, both, parts, SETTINGS, seed=0)] == ["label", "label"]
    settings = {"labels": {label: f" {label}" for label in LABELS}, "measure": "macro_f1"}
    f1 = open_family(TaskSpec("classification", "{text}", False, settings=settings))
    assert f1.measure.name == "macro_f1"
    assert slices(f1, both, parts, SETTINGS, seed=0) == []


def test_of_many_parts_the_largest_are_shown_and_the_others_together() -> None:
    topics = [f"topic {number}" for number in range(30) for _ in range(1 + (number < 20))]
    both = answered([0] * 50, [0] * 50, [0] * 50)
    found = slices(TASK, both, {"{topic}": topics}, SETTINGS, seed=0)
    assert [each.rows for each in found] == [2] * 20 + [10]
    assert found[-1].part == "others"


def test_quarters_of_lengths_are_named_by_their_ends_and_equal_lengths_stay_together() -> None:
    assert quartiles([5, 1, 2, 6, 3, 4, 7, 8]) == [
        "5 to 6 tokens", "1 to 2 tokens", "1 to 2 tokens", "5 to 6 tokens", "3 to 4 tokens", "3 to 4 tokens",
        "7 to 8 tokens", "7 to 8 tokens",
    ]  # fmt: skip
    assert set(quartiles([3, 3, 3, 3])) == {"3 to 3 tokens"}
