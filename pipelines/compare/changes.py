"""What methods lose or win on tasks that they were not trained on, against the frozen base, and the tables of that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipelines.compare.cells import Cell
from pipelines.compare.table import (
    CHANCE,
    Comparison,
    difference_words,
    figure_of,
    lead_over,
    percent_words,
    verdict_words,
)
from pipelines.compare.untrained import Untrained
from pipelines.contracts.interval import Interval
from pipelines.markdown import table, text
from pipelines.model.intervals import Resampling, detectable, holm
from pipelines.params.whole import EvaluateParams
from pipelines.tasks.measures import Floats
from pipelines.wording import many, measure_words

HEADER = ("method", "task", "figure", "change, points", "p, Holm", "verdict")
COLUMNS = (
    "method", "task", "measure", "rows", "left_out", "value", "value_low", "value_high", "change", "change_low",
    "change_high", "p_value", "p_value_holm", "detectable", "verdict",
)  # fmt: skip


@dataclass(frozen=True)
class Change:
    """What one method, or the frozen base, scores on a task that no method was trained on.

    Attributes:
        method: its name.
        task: which, with its rows and measure.
        value: the mean over the seeds, with its interval over rows and seeds.
        change: the paired difference to the frozen base, with its interval; None of the base.
        p_value: of the exact paired test of that.
        adjusted_p_value: by Holm's method over the tasks of the method.
        detectable: the least true change that these rows show.
        verdict: better, worse, not more than chance, too few rows; "" of the base.
    """

    method: str
    task: Untrained
    value: Interval
    change: Interval | None = None
    p_value: float | None = None
    adjusted_p_value: float | None = None
    detectable: float | None = None
    verdict: str = ""


def changes_of(found: Comparison, settings: EvaluateParams) -> list[Change]:
    """Of the base, and of each method all of whose runs stood, what it scores on each task that was not trained."""
    made = [
        Change(found.base.name, task, figure_of(task.measure, [_scores(found.base, task)], _how(task, settings)))
        for task in found.others
    ]
    for contender, _, cells in found.lines:
        if cells and all(cell.value is not None for cell in cells):
            changes = [_change(contender.name, task, cells, found.base, settings) for task in found.others]
            made += _adjusted(changes, settings.confidence)
    return made


def _change(method: str, task: Untrained, cells: Sequence[Cell], base: Cell, settings: EvaluateParams) -> Change:
    how, measure = _how(task, settings), task.measure
    runs = [_scores(cell, task) for cell in cells]
    frozen = [_scores(base, task)] * len(runs)  # it has no seeds, so each run is held against the same answers
    lead, verdict = lead_over(measure, runs, frozen, how)
    return Change(
        method, task, figure_of(measure, runs, how), lead.difference, lead.p_value, lead.p_value,
        detectable(lead.difference, how, measure), verdict,
    )  # fmt: skip


def _adjusted(changes: Sequence[Change], confidence: float) -> Iterator[Change]:
    """The changes of a method: what is not more than chance beside its other tasks is not called more."""
    adjusted = holm([change.p_value or 0.0 for change in changes])
    for change, p_value in zip(changes, adjusted, strict=True):
        sure = p_value < 1 - confidence or change.verdict not in ("better", "worse")
        yield replace(change, adjusted_p_value=p_value, verdict=change.verdict if sure else CHANCE)


def changes_markdown(changes: Sequence[Change], confidence: float) -> str:
    """The changes as a Markdown table with what its figures are of."""
    asked = {change.task.title: change.task for change in changes}
    words = [
        f"{text(title)}: {measure_words(task.measure.name)} on {many(len(task.rows), 'test row')}"
        + (f" ({task.left_out} left out, which are trained on)" if task.left_out else "")
        for title, task in asked.items()
    ]
    heading = (
        f"Tasks that no method was trained on ({'; '.join(words)}), with {confidence:.0%} intervals as above. A change "
        "is paired, row by row, to the frozen base; its p is that of the exact test, by Holm's method over the tasks "
        "of a method."
    )
    rows = [[text(cell) for cell in change_row(change)] for change in changes]
    lines = table(HEADER, rows, right=range(2, len(HEADER)))
    return f"{heading}\n\n" + "".join(f"{line}\n" for line in lines)


def change_row(change: Change) -> list[str]:
    """A line of the table, by :data:`HEADER`."""
    adjusted = change.adjusted_p_value
    return [
        change.method,
        change.task.title,
        percent_words(change.value),
        "" if change.change is None else difference_words(change.change),
        "" if adjusted is None else f"{adjusted:.2g}",
        verdict_words(change.verdict, change.detectable),
    ]


def change_values(change: Change) -> list[object]:
    """A line of the CSV file, by :data:`COLUMNS`, every figure with all its digits."""
    value, moved, task = change.value, change.change, change.task
    ends = [None] * 3 if moved is None else [moved.value, moved.low, moved.high]
    found = [
        change.method, task.title, task.measure.name, len(task.rows), task.left_out, value.value, value.low, value.high,
        *ends, change.p_value, change.adjusted_p_value, change.detectable, change.verdict,
    ]  # fmt: skip
    return ["" if one is None else one for one in found]


def _how(task: Untrained, settings: EvaluateParams) -> Resampling:
    return Resampling(settings.confidence, settings.bootstrap, 0, task.groups)


def _scores(cell: Cell, task: Untrained) -> Floats:
    return np.array(cell.others[task.key])
