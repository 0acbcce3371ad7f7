"""Figures of parts of the test rows: by length, by label, by file, or by a column of the data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.contracts.diagnostics import SliceFigures
from pipelines.contracts.prepared import Row
from pipelines.model.intervals import Resampling, figure, group_numbers, measured_difference
from pipelines.model.workspace import Workspace
from pipelines.params.evaluate import LABEL, LENGTH, SOURCE, EvaluateParams, column_of
from pipelines.tasks.collect import text_tokens
from pipelines.tasks.family import Answer, Reading, TaskFamily
from pipelines.tasks.measures import Floats
from reft.data import prompt_tokens

QUARTILES = (0.25, 0.5, 0.75)
MOST_PARTS = 20  # of one slicing: the largest; the rows of the others are one part
OTHERS = "others"
NOTHING = "(none)"  # of a row that has no value
MOST_RESAMPLES = 1000  # of a measure that is no mean, whose resamples are added up one by one


@dataclass(frozen=True)
class Answered:
    """Rows, what both systems answered to them, and the readings of that: of each row the adapter's and the base's."""

    rows: Sequence[Row]
    adapter: Sequence[Answer]
    base: Sequence[Answer]
    read: Sequence[tuple[Reading, Reading]]


def slices(
    task: TaskFamily[Any],
    answered: Answered,
    parts: Mapping[str, Sequence[str]],
    settings: EvaluateParams,
    *,
    seed: int,
) -> list[SliceFigures]:
    """Both systems' figures on each part of the rows, with intervals, and their paired difference.

    A measure that is no mean of rows is left out by label: F1 or a correlation of rows of one label says nothing.

    Args:
        task: of the rows.
        answered: rows and answers.
        parts: by what is sliced, the name of each row's part; one that has a single part is left out.
        settings: confidence and resamples.
        seed: of the resampling.
    """
    sides = task.scores(answered.rows, answered.adapter), task.scores(answered.rows, answered.base)
    found = []
    for by, names in parts.items():
        kept = np.array(_few(names))
        if len(set(kept)) < 2 or (by == LABEL and not task.measure.is_mean):
            continue
        for part in sorted(set(kept.tolist()), key=_order):
            places = np.flatnonzero(kept == part)
            own = [answered.rows[int(place)] for place in places]
            found.append(_figures(task, by, str(part), own, [side[places] for side in sides], settings, seed=seed))
    return found


def parts_of(
    workspace: Workspace, rows: Sequence[Row], names: Sequence[str], values: Mapping[str, Mapping[str, str]]
) -> dict[str, list[str]]:
    """By what is sliced, the name of each row's part.

    Args:
        workspace: whose tokenizer says how long a prompt is.
        rows: to be sliced.
        names: ``length``, ``label``, ``source``, or a column in braces.
        values: of columns, by a row's id.
    """
    return {name: _parts(workspace, rows, name, values) for name in names}


def _parts(workspace: Workspace, rows: Sequence[Row], name: str, values: Mapping[str, Mapping[str, str]]) -> list[str]:
    if name == LENGTH:
        return quartiles(_lengths(workspace, rows))
    if name == LABEL:
        return [row.label or NOTHING for row in rows]
    if name == SOURCE:
        return [row.id.rpartition(":")[0] for row in rows]
    column = column_of(name)
    return [values[row.id].get(column) or NOTHING for row in rows]


def quartiles(lengths: Sequence[int]) -> list[str]:
    """The quarter of the lengths that each lies in, by its shortest and longest: "12 to 17 tokens"."""
    numbers = np.array(lengths)
    quarter = np.searchsorted(np.quantile(numbers, QUARTILES), numbers, side="left")
    names = {}
    for place in set(quarter.tolist()):
        own = numbers[quarter == place]
        names[place] = f"{own.min()} to {own.max()} tokens"
    return [names[place] for place in quarter.tolist()]


def _figures(
    task: TaskFamily[Any],
    by: str,
    part: str,
    rows: Sequence[Row],
    sides: Sequence[Floats],
    settings: EvaluateParams,
    *,
    seed: int,
) -> SliceFigures:
    resamples = settings.bootstrap if task.measure.is_mean else min(settings.bootstrap, MOST_RESAMPLES)
    how = Resampling(settings.confidence, resamples, seed, group_numbers(rows))
    adapter, base = (figure(task.measure, side, how) for side in sides)
    difference = measured_difference(task.measure, [sides[0]], [sides[1]], how)
    return SliceFigures(by, part, len(rows), how.units, adapter, base, difference)


def _few(names: Sequence[str]) -> list[str]:
    kept = {name for name, _ in Counter(names).most_common(MOST_PARTS)}
    return [name if name in kept else OTHERS for name in names]


def _order(part: str) -> tuple[bool, float, str]:
    """Numbers and lengths by size, then names; what is left last."""
    first = part.split(" ", 1)[0]
    return part == OTHERS, float(first) if first.isdecimal() else float("inf"), part


def _lengths(workspace: Workspace, rows: Sequence[Row]) -> list[int]:
    tokenizer = workspace.tokenizer
    if workspace.kind == "encoder":
        return [text_tokens(tokenizer, row.prompt, row.second) for row in rows]
    return [len(prompt_tokens(tokenizer, row.prompt)) for row in rows]
