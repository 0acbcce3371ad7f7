"""`task: choice`: which of a row's own options is right, told by how likely the model finds the text of each."""

from __future__ import annotations

from typing import Annotated, Literal

import regex
from pydantic import Field, field_validator

from pipelines.sections import Section
from pipelines.tasks.keys.classification import ACCURACY
from pipelines.tasks.keys.prepare import PrepareParams
from pipelines.tasks.keys.template import template_fields

LISTED = "lettered_options"
"""The placeholder of a template that stands for a row's options, a line each: A. this, B. that."""

Score = Literal["sum", "per_token", "per_byte", "letter"]
AnswerAs = Literal["index", "number", "letter", "label", "text"]
Column = Annotated[str, Field(min_length=1)]


class SplitParams(Section):
    """A text that holds question and options: the named groups of the pattern become columns."""

    column: Column
    pattern: str

    @field_validator("pattern")
    @classmethod
    def _names_columns(cls, pattern: str) -> str:
        try:
            groups = regex.compile(pattern).groupindex
        except regex.error as error:
            raise ValueError(f"a pattern is a regular expression of Python; got {pattern!r}: {error}") from None
        if not groups:
            raise ValueError(f"a pattern must have named groups, like (?P<question>.*); got {pattern!r}")
        return pattern

    def columns(self) -> tuple[str, ...]:
        """What it makes columns of."""
        return tuple(regex.compile(self.pattern).groupindex)


class ChoiceParams(PrepareParams):
    """Where a row's options and its answer stand, and how options are scored and trained."""

    task: Literal["choice"]
    split: SplitParams | None
    option_columns: list[Column]
    options: list[Annotated[str, Field(min_length=1)]] | None
    answer_column: Column
    answer_as: AnswerAs
    score: Score
    train_on: Literal["answer", "options"]

    def measure_name(self) -> str:
        """The share of the rows whose right option has the highest score."""
        return ACCURACY

    def answer_columns(self) -> dict[str, str]:
        """The column of the answer."""
        return {"answer_column": self.answer_column}

    def made_columns(self) -> tuple[str, ...]:
        """The parts of a text that is split."""
        return () if self.split is None else self.split.columns()

    def task_columns(self) -> tuple[str, ...]:
        """Those of template, options and answer that are no parts of another one, and that one."""
        made = {LISTED, *self.made_columns()}
        whole = () if self.split is None else (self.split.column,)
        named = (*super().task_columns(), *self.option_columns)
        return tuple(dict.fromkeys((*(name for name in named if name not in made), *whole)))

    def family_problems(self) -> list[str]:
        """Options come from one place, and letters are asked of a model that has read what they stand for."""
        problems = []
        if (self.options is None) == (not self.option_columns):
            problems.append(
                "options are those of option_columns or, where every row has the same, of options, and not of both; "
                f"got {self.option_columns} and {self.options}; set options: null or option_columns: []"
            )
        if self.options is not None and len(set(self.options)) < max(2, len(self.options)):
            problems.append(f"options are two different texts or more; got {self.options}")
        if len(set(self.option_columns)) < len(self.option_columns):
            problems.append(f"option_columns names each column once; got {self.option_columns}")
        fields = template_fields(self.template)
        if self.score == "letter" and LISTED not in fields:
            problems.append(f"score: letter needs {{{LISTED}}} in the template, which says what letters mean; got none")
        if self.answer_column in (*fields, *self.option_columns):
            problems.append(f"answer_column must not be read by template or option_columns; got {self.answer_column!r}")
        return problems
