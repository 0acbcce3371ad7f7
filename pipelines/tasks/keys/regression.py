"""`task: regression`: the answer is a number between two bounds, by words for numbers or by a head."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipelines.tasks.keys.prepare import PrepareParams


class RegressionParams(PrepareParams):
    """Which column holds the number, between which bounds, and which words stand for which numbers."""

    task: Literal["regression"]
    number_column: str
    low: float
    high: float
    words: dict[Annotated[str, Field(min_length=1)], float] | None
    measure: Literal["pearson", "spearman"]

    def measure_name(self) -> str:
        """The correlation of the answers with the numbers."""
        return self.measure

    def answer_columns(self) -> dict[str, str]:
        """The column of the number."""
        return {"number_column": self.number_column}

    def has_head(self) -> bool:
        """A head answers."""
        return True

    def wordless(self) -> list[str]:
        """The words, where there are none."""
        return ["words"] if self.words is None else []

    def family_problems(self) -> list[str]:
        """There must be room between the bounds, and words for different numbers in it."""
        problems = []
        if not self.low < self.high:
            problems.append(f"low must be below high; got {self.low:g} and {self.high:g}")
        if self.words is None:
            return problems
        numbers = list(self.words.values())
        outside = [number for number in numbers if not self.low <= number <= self.high]
        if outside:
            problems.append(f"words stand for numbers from low to high; got {outside[0]:g}")
        if len(numbers) < 2 or len(set(numbers)) < len(numbers):
            problems.append(f"words are two or more, each for a number of its own; got {numbers}")
        return problems
