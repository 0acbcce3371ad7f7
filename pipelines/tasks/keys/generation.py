"""`task: generation`: the model answers in its own words, and is right where they are the reference's."""

from __future__ import annotations

from typing import Literal

from pipelines.sections import Count
from pipelines.tasks.keys.prepare import PrepareParams

EXACT_MATCH = "exact_match"


class GenerationParams(PrepareParams):
    """Which column holds the reference, and how long an answer may be."""

    task: Literal["generation"]
    answer_column: str
    max_new_tokens: Count

    def measure_name(self) -> str:
        """The share of the rows whose answer is the reference."""
        return EXACT_MATCH

    def answer_columns(self) -> dict[str, str]:
        """The column of the reference."""
        return {"answer_column": self.answer_column}
