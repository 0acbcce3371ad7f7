"""`task: classification`: the model answers with one of a few words, each of which stands for a label."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipelines.sections import Label, Section
from pipelines.tasks.keys.prepare import PrepareParams

ACCURACY, MACRO_F1, F1, MATTHEWS = "accuracy", "macro_f1", "f1", "matthews"


class LabelParams(Section):
    """One label: the word that a decoder is to answer with, and which values of the label column mean it."""

    word: Annotated[str, Field(min_length=1)] | None
    min: float | None
    max: float | None
    values: list[str | int | float | bool] | None

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        ranged = self.min is not None or self.max is not None
        if ranged == (self.values is not None):
            raise ValueError("a label is given either by values or by min and/or max, and by one of them")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min must not be above max; got {self.min} and {self.max}")
        return self

    def overlaps(self, other: LabelParams) -> bool:
        """Whether both rules hold for some value."""
        if self.values is None and other.values is None:
            return max(self._low, other._low) <= min(self._high, other._high)
        if self.values is not None and other.values is not None:
            return any(a == b and isinstance(a, bool) == isinstance(b, bool) for a in self.values for b in other.values)
        ranged, values = (self, other.values) if self.values is None else (other, self.values)
        numbers = [value for value in values or [] if not isinstance(value, bool | str)]
        return any(ranged._low <= number <= ranged._high for number in numbers)

    @property
    def _low(self) -> float:
        return -math.inf if self.min is None else self.min

    @property
    def _high(self) -> float:
        return math.inf if self.max is None else self.max


class ClassificationParams(PrepareParams):
    """Which column holds a row's label, and the words that stand for the labels, in the order of the reports."""

    task: Literal["classification"]
    measure: Literal["accuracy", "macro_f1", "f1", "matthews"]
    label_column: str
    labels: dict[Label, LabelParams]

    def measure_name(self) -> str:
        """What ``measure`` says."""
        return self.measure

    def answer_columns(self) -> dict[str, str]:
        """The column of the label."""
        return {"label_column": self.label_column}

    def has_head(self) -> bool:
        """A head answers."""
        return True

    def wordless(self) -> list[str]:
        """The labels without a word."""
        return [f"labels.{name}.word" for name, label in self.labels.items() if label.word is None]

    def family_problems(self) -> list[str]:
        """There must be labels to choose from, and none may be mistaken for another."""
        problems = []
        if len(self.labels) < 2:
            problems.append(f"classification needs at least two labels; got {', '.join(self.labels) or 'none'}")
        if self.measure == F1 and len(self.labels) != 2:
            problems.append(f"measure f1 is that of the second of two labels; got {len(self.labels)}; take {MACRO_F1}")
        for (one, a), (other, b) in combinations(self.labels.items(), 2):
            if a.word is not None and a.word == b.word:
                problems.append(f"two labels must not have the same word; got {a.word!r} of {one} and {other}")
            if a.overlaps(b):
                problems.append(f"no value may have two labels; got one that {one} and {other} both hold for")
        return problems
