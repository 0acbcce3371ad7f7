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
    answer_column: Column | None
    solution_column: Column | None
    max_new_tokens: Count
    reader: AnyReader
    measure: GeneratedMeasure

    def measure_name(self) -> str:
        """What ``measure`` says."""
        return self.measure

    def answer_columns(self) -> dict[str, str]:
        """The columns of the reference, and of the text that ends in it; of a conversation, none."""
        named = {"answer_column": self.answer_column, "solution_column": self.solution_column}
        return {key: column for key, column in named.items() if column is not None}

    def one_answer(self) -> bool:
        """Where the reference itself is trained on, and an answer is right or wrong."""
        return self.measure == EXACT_MATCH and self.answer_column is not None and self.solution_column is None

    def family_problems(self) -> list[str]:
        """Numbers, letters and mathematics are right or wrong, and an answer is not read by the model."""
        problems = self._conversation_problems()
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

    def _conversation_problems(self) -> list[str]:
        if self.answer_column is not None:
            return []
        columns, problems = self.text_columns(), []
        if not self.chat or self.template != f"{{{columns[0]}}}" or self.second_template is not None:
            problems.append(
                "without answer_column, the answers are the assistant's turns of the conversations in the template's "
                f"column, which needs chat: true and a template of it alone, like {{messages}}; got chat: "
                f"{str(self.chat).lower()} and {self.template!r}"
            )
        if self.solution_column is not None:
            problems.append(f"conversations have no solution_column; got {self.solution_column!r}; set it to null")
        return problems
