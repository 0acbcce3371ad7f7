"""A mixture: rows of several tasks for one adapter, each asked, read and scored as its own task says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pipelines.contracts.prepared import Row
from pipelines.contracts.task import TaskSpec, prompt_task
from pipelines.tasks.columns import Columns
from pipelines.tasks.family import (
    Answer,
    Asked,
    Confidences,
    Contrast,
    Reading,
    TaskFamily,
    family_of,
    open_family,
    task_places,
)
from pipelines.tasks.keys.mixture import MACRO_AVERAGE, TASK, MixtureParams
from pipelines.tasks.measures import Floats, MacroAverage

Places = NDArray[np.int64]


@dataclass(frozen=True)
class Share:
    """The rows of one task among those of a mixture: the task and its place, and the rows and their places."""

    place: int
    task: TaskFamily[Any]
    places: Places
    rows: list[Row]

    def of(self, answers: Sequence[Answer]) -> list[Answer]:
        """Their answers, of those to all rows."""
        return [answers[place] for place in self.places]


class Mixture(TaskFamily[Any]):
    """Several tasks, measured by the mean of their measures."""

    ASKS: ClassVar[Asked] = "each"
    ANSWER: ClassVar[str] = "answer"
    HUB: ClassVar[str] = "text-generation"

    def __init__(self, spec: TaskSpec) -> None:
        self.spec = spec
        self._parts = {name: open_family(prompt_task(own)) for name, own in spec.settings["tasks"].items()}
        measures = tuple(task.measure for task in self._parts.values())
        self.measure: MacroAverage = MacroAverage(
            MACRO_AVERAGE, width=1 + max(measure.width for measure in measures), tasks=measures
        )
        self.max_new_tokens = max(task.max_new_tokens for task in self._parts.values())

    @classmethod
    def settings(cls, keys: MixtureParams) -> dict[str, Any]:
        """What each task needs to ask and to read answers, by its name."""
        specs = {name: family_of(section).spec for name, section in keys.tasks.items()}
        return {"tasks": {name: {TASK: spec.task, **spec.prompt(reads_domain=False)} for name, spec in specs.items()}}

    def parts(self) -> Mapping[str, TaskFamily[Any]]:
        """The tasks."""
        return self._parts

    def columns(self) -> Columns:
        """The task's name, which every row has, and what the tasks read, of which a row has its own task's columns."""
        every = [task.columns() for task in self._parts.values()]
        texts = [name for own in every for name in (*own.texts, own.whole) if name is not None]
        choices = [name for own in every for name in own.choices]
        return Columns(
            (TASK, *dict.fromkeys(texts)),
            choices=tuple(dict.fromkeys(choices)),
            optional=tuple(dict.fromkeys((*texts, *choices))),
            turns=next((own.turns for own in every if own.turns is not None), None),
        )

    def example(self) -> dict[str, Any]:
        """A row of the first task."""
        name, task = next(iter(self._parts.items()))
        return {TASK: name, **task.example()}

    def choices(self, row: Row) -> tuple[str, ...]:
        """Those of its task."""
        return self._of(row).choices(row)

    def contrast(self, row: Row) -> Contrast | None:
        """That of its task."""
        return self._of(row).contrast(row)

    def read(self, row: Row, answer: Answer) -> Reading:
        """As its task reads it."""
        return self._of(row).read(row, answer)

    def scores(self, rows: Sequence[Row], answers: Sequence[Answer]) -> Floats:
        """The place of each row's task, and what that scores the row by: [rows, 1 + width]."""
        found = {own.place: own.task.scores(own.rows, own.of(answers)) for own in self._shares(rows)}
        return self._together(rows, found)

    def fine_scores(self, rows: Sequence[Row], answers: Sequence[Answer]) -> Floats:
        """Those of each row's task."""
        found = np.zeros(len(rows))
        for own in self._shares(rows):
            found[own.places] = own.task.fine_scores(own.rows, own.of(answers))
        return found

    def confidences(self, rows: Sequence[Row], answers: Sequence[Answer]) -> Confidences | None:
        """Those of the tasks whose answers have a probability, one task after the other."""
        every = [own.task.confidences(own.rows, own.of(answers)) for own in self._shares(rows)]
        known = [each for each in every if each is not None]
        if not known:
            return None
        return Confidences(np.concatenate([x.said for x in known]), np.concatenate([x.right for x in known]))

    def baselines(self, rows: Sequence[Row]) -> dict[str, Floats]:
        """Of each baseline that all tasks have, every row's score by its own task's."""
        known = {own.place: own.task.baselines(own.rows) for own in self._shares(rows)}
        shared = [name for name in next(iter(known.values())) if all(name in own for own in known.values())]
        return {name: self._together(rows, {place: own[name] for place, own in known.items()}) for name in shared}

    def summary(self, rows: Sequence[Row], answers: Sequence[Answer]) -> dict[str, float]:
        """What is counted of answers in words: those of all tasks together."""
        found: dict[str, float] = {}
        for own in self._shares(rows):
            if own.task.ASKS == "text":
                counts = own.task.summary(own.rows, own.of(answers))
                found |= {name: found.get(name, 0) + count for name, count in counts.items()}
        return found

    def _of(self, row: Row) -> TaskFamily[Any]:
        return self._parts[row.task]

    def _shares(self, rows: Sequence[Row]) -> list[Share]:
        """The rows of each task that has any, in the order of the tasks."""
        places = task_places(rows)
        return [
            Share(place, task, places[name], [rows[each] for each in places[name]])
            for place, (name, task) in enumerate(self._parts.items())
            if name in places
        ]

    def _together(self, rows: Sequence[Row], scores: Mapping[int, Floats]) -> Floats:
        """Scores of each task's rows, by the task's place, as those of all rows."""
        found = np.zeros((len(rows), self.measure.width))
        for own in self._shares(rows):
            width = own.task.measure.width
            found[own.places, 0] = own.place
            found[own.places, 1 : 1 + width] = scores[own.place].reshape(-1, width)
        return found


FAMILY = Mixture
