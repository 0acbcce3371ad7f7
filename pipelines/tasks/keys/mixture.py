"""`task: mixture`: several tasks that one adapter is trained on, each tested alone."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipelines.sections import Count, Name, Positive, Section, refuse
from pipelines.tasks.keys.table import AnyPrepareParams, Families

MIXTURE = "mixture"
MACRO_AVERAGE = "macro_average"
TASK = "task"
"""The field of a row, and the column of one that is asked about, that says which task it is of."""


class MixtureParams(Section):
    """The tasks by name, each with the keys that the section has for it alone, and how training rows are drawn.

    Attributes:
        train_rows: of all tasks together.
        weights: each task's share of them, as a part of the sum of weights. A task gives at most its own
            ``train_rows``; what it lacks the others give, by their weights.
        tasks: their validation and test rows are all in the mixture.
    """

    task: Literal["mixture"]
    train_rows: Count
    weights: dict[Name, Positive]
    tasks: Annotated[dict[Name, AnyPrepareParams], Field(min_length=2)]

    @property
    def validation_rows(self) -> int:
        """Those of all tasks together."""
        return sum(section.validation_rows for section in self.tasks.values())

    @property
    def test_rows(self) -> int:
        """Those of all tasks together."""
        return sum(section.test_rows for section in self.tasks.values())

    @property
    def domain_column(self) -> None:
        """None: no task of a mixture has domains."""
        return

    @property
    def growing(self) -> None:
        """None: rows of a mixture do not grow."""
        return

    @property
    def source(self) -> str:
        """Where the rows come from, in words: each task's main source."""
        return ", ".join(f"{name}: {section.source}" for name, section in self.tasks.items())

    def sections(self) -> dict[str, Families]:
        """Each task's keys, by where they stand in params.yaml."""
        return {f"prepare.tasks.{name}": section for name, section in self.tasks.items()}

    def measure_name(self) -> str:
        """The mean of the tasks' measures."""
        return MACRO_AVERAGE

    def has_head(self) -> bool:
        """No head answers several tasks."""
        return False

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        problems = []
        if self.weights.keys() != self.tasks.keys():
            problems.append(
                f"weights must name the tasks, each once; got {', '.join(self.weights)} beside {', '.join(self.tasks)}"
            )
        most = sum(section.train_rows for section in self.tasks.values())
        if not len(self.tasks) <= self.train_rows <= most:
            problems.append(
                f"train_rows must be at least one a task, and at most those of all tasks together, {most}; "
                f"got {self.train_rows}"
            )
        for name, section in self.tasks.items():
            if section.domain_column is not None:
                problems.append(
                    f"tasks.{name}.domain_column must be null: no task of a mixture has domains; "
                    f"got {section.domain_column!r}"
                )
            if section.growing is not None:
                problems.append(
                    f"tasks.{name}.growing must be null: a text of one task may come to be another's test row; "
                    f"got {section.growing.model_dump()}"
                )
            if TASK in (*section.row_columns(), *section.made_columns()):
                problems.append(
                    f"tasks.{name} must read no column {TASK!r}, which says of a row what task it is of; got one; "
                    "name it otherwise"
                )
        refuse(problems)
        return self


PrepareSection = Annotated[Families | MixtureParams, Field(discriminator="task")]
"""The section `prepare` of params.yaml."""
