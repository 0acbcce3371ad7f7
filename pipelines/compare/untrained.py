"""A task that no method is trained on, as every method is asked it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.contracts.prepared import Row
from pipelines.model.intervals import Ints, group_numbers
from pipelines.tasks.family import TaskFamily
from pipelines.tasks.measures import Measure


@dataclass(frozen=True)
class Untrained:
    """A task that no method is trained on, and the rows of it that every method is asked.

    Attributes:
        title: as people read it.
        family: what is asked of them.
        rows: the test rows that are asked.
        left_out: how many are not, since methods are trained on them.
        key: the hash of the task and these rows, whatever they are called.
    """

    title: str
    family: TaskFamily[Any]
    rows: Sequence[Row]
    left_out: int
    key: str

    @property
    def measure(self) -> Measure:
        """What the scores of rows add up to."""
        return self.family.measure

    @property
    def groups(self) -> Ints:
        """The numbers of the rows' groups."""
        return group_numbers(self.rows)
