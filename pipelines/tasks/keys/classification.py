"""`task: classification`: the model answers with one of a few words, each of which stands for a label."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping
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

    @property
    def low(self) -> float:
        """From which number on it holds, of a range."""
        return -math.inf if self.min is None else self.min

    @property
    def high(self) -> float:
        """Up to which number it holds."""
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
        words: dict[str, str] = {}
        for name, label in self.labels.items():
            if label.word is not None and (one := words.setdefault(label.word, name)) != name:
                problems.append(f"two labels must not have the same word; got {label.word!r} of {one} and {name}")
        order = {name: place for place, name in enumerate(self.labels)}
        for pair in dict.fromkeys(tuple(sorted(pair, key=order.__getitem__)) for pair in _disputed(self.labels)):
            problems.append(f"no value may have two labels; got one that {' and '.join(pair)} both hold for")
        return problems


def _disputed(labels: Mapping[str, LabelParams]) -> Iterator[tuple[str, str]]:
    """Pairs of labels that hold for one value: for each value, or end of a range, the first that is found."""
    ranges = sorted((label.low, label.high, name) for name, label in labels.items() if label.values is None)
    widest: tuple[float, str] | None = None
    for low, high, name in ranges:
        if widest is not None and low <= widest[0]:
            yield widest[1], name
        widest = max((high, name), widest or (high, name))
    lows = [low for low, _, _ in ranges]
    first: dict[tuple[bool, str | int | float], str] = {}
    for name, label in labels.items():
        for value in label.values or ():
            if (one := first.setdefault((isinstance(value, bool), value), name)) != name:
                yield one, name
            if isinstance(value, bool | str):
                continue
            place = bisect_right(lows, value) - 1
            if place >= 0 and value <= ranges[place][1]:
                yield ranges[place][2], name
