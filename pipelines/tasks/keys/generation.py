"""`task: generation`: the model answers in its own words, of which a reader finds what is compared with a reference."""

from __future__ import annotations

from typing import Annotated, Literal

import regex
from pydantic import Field, field_validator

from pipelines.sections import Count, Section
from pipelines.tasks.keys.prepare import PrepareParams

EXACT_MATCH = "exact_match"

Column = Annotated[str, Field(min_length=1)]
GeneratedMeasure = Literal["exact_match", "rouge1", "rouge2", "rougeL", "chrf"]


class PlainReader(Section):
    """A reader that is known by its name alone."""

    name: Literal["exact", "number", "letter", "math"]


class RegexReader(Section):
    """What the one group of a pattern matches first."""

    name: Literal["regex"]
    pattern: str

    @field_validator("pattern")
    @classmethod
    def _one_group(cls, pattern: str) -> str:
        try:
            groups = regex.compile(pattern).groups
        except regex.error as error:
            raise ValueError(f"a pattern is a regular expression of Python; got {pattern!r}: {error}") from None
        if groups != 1:
            raise ValueError(f"a pattern must have one group, like #### (.*); got {groups} in {pattern!r}")
        return pattern


class JsonReader(Section):
    """A field of the first JSON object that has it."""

    name: Literal["json"]
    field: Column


AnyReader = Annotated[PlainReader | RegexReader | JsonReader, Field(discriminator="name")]


class GenerationParams(PrepareParams):
    """Where references stand, how long an answer may be, how it is read, and what it is measured by."""

    task: Literal["generation"]
    answer_column: Column
    solution_column: Column | None
    max_new_tokens: Count
    reader: AnyReader
    measure: GeneratedMeasure

    def measure_name(self) -> str:
        """What ``measure`` says."""
        return self.measure

    def answer_columns(self) -> dict[str, str]:
        """The columns of the reference, and of the text that ends in it."""
        solution = {} if self.solution_column is None else {"solution_column": self.solution_column}
        return {"answer_column": self.answer_column, **solution}

    def family_problems(self) -> list[str]:
        """Numbers, letters and mathematics are right or wrong, and an answer is not read by the model."""
        problems = []
        if self.measure != EXACT_MATCH and self.reader.name in ("number", "letter", "math"):
            problems.append(
                f"measure {self.measure} compares texts, which reader exact, regex or json gives; "
                f"got reader {self.reader.name}; set measure: {EXACT_MATCH}"
            )
        if self.solution_column is not None and self.reader.name == "exact":
            problems.append(
                "solution_column needs a reader that finds the answer in a solution; got exact; "
                "take number, letter, regex, json or math"
            )
        problems += [
            f"{key} must not be read by the template; got {column!r}"
            for key, column in self.answer_columns().items()
            if column in self.text_columns()
        ]
        return problems
