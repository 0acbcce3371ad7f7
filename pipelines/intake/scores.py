"""Rows whose answer is a score: which column holds it, between which bounds, and words for it, guessed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.intake.columns import (
    LABEL_TITLES,
    Column,
    columns_of,
    encoder_templates,
    is_ranged,
    is_score,
    joined,
    likeliest_label,
    prompt_template,
    text_columns,
    title_rank,
)
from pipelines.intake.labels import Usable, choices, clean, distinct
from pipelines.params.base import Kind
from pipelines.sources.raw_row import RawRow
from pipelines.tasks.keys.template import fill_template, text_fields
from pipelines.tasks.rows import as_number, comparable

MOST_WORDS = 11  # as from 0 to 10
# Ranges that scores are given in, the narrowest first.
RANGES = ((0.0, 1.0), (-1.0, 1.0), (1.0, 5.0), (0.0, 5.0), (0.0, 10.0), (0.0, 100.0))
FILLED = 0.9  # of a range by the numbers of a sample, which seldom has its very ends
FEWER_WORDS = 6  # of a wider range, evenly spaced


@dataclass(frozen=True)
class Score:
    """Where prompts and scores stand.

    Attributes:
        template: of the prompt, or of an encoder's first text.
        second_template: of an encoder's second text.
        column: of the score.
        low: its least value.
        high: its greatest.
        words: what a decoder says numbers by; None for an encoder.
        doubts: what a person should look at.
        certain: whether the column's title or its fractions tell a score from a computed number.
    """

    template: str
    second_template: str | None
    column: str
    low: float
    high: float
    words: Mapping[str, float] | None
    doubts: tuple[str, ...] = ()
    certain: bool = False

    def keys(self) -> dict[str, Any]:
        """The keys of params.yaml that say it."""
        return {
            "task": "regression",
            "template": self.template,
            "second_template": self.second_template,
            "number_column": self.column,
            "low": self.low,
            "high": self.high,
            "words": None if self.words is None else dict(self.words),
            "measure": "pearson",
        }


@dataclass(frozen=True)
class Scored:
    """A row as the model would read it, the words that it could answer with, and the right one, or the number."""

    prompt: str
    words: tuple[str, ...]
    right: str


def find_score(rows: Sequence[RawRow], kind: Kind) -> Score | None:
    """Where rows have a score, if that is what is likest to a label; None else."""
    columns, _ = columns_of(rows)
    column = likeliest_label(columns)
    if column is None or not is_ranged(column):
        return None
    column = min(filter(is_score, columns), key=lambda c: title_rank(c.name), default=column)
    texts = [c.name for c in text_columns([c for c in columns if c is not column], None)]
    low, high, doubts = _bounds(column)
    if title_rank(column.name) == len(LABEL_TITLES):
        doubts = (f"no column is named like a score; {column.name} has numbers of many values", *doubts)
    certain = is_score(column) or _fractions(column)
    if kind == "encoder":
        templates = encoder_templates(texts, column.name)
        return Score(*templates, column.name, low, high, None, doubts, certain)
    template = prompt_template(texts, column.name)
    return Score(template, None, column.name, low, high, _words(low, high, template), doubts, certain)


def usable_scores(rows: Sequence[RawRow], score: Score) -> tuple[Usable, Scored | None, int]:
    """How many rows are left, the first of them, and characters of one of the longest prompts."""
    lost: Counter[str] = Counter()
    found: dict[str, list[float]] = {}
    shown, lengths = None, [0]
    for row in rows:
        texts = {name: clean(row.values.get(name)) for name in text_fields(score.template, score.second_template)}
        value = clean(row.values.get(score.column))
        number = None if value is None else as_number(value)
        if row.problem is not None:
            lost["cannot be read"] += 1
        elif None in texts.values():
            lost["have no text"] += 1
        elif number is None or not score.low <= number <= score.high:
            lost[f"have no number from {score.low:g} to {score.high:g}"] += 1
        else:
            parts = [fill_template(each, {k: str(v) for k, v in texts.items()}) for each in _templates(score)]
            prompt = joined(parts)
            found.setdefault(comparable(prompt), []).append(number)
            lengths.append(len(prompt))
            shown = shown or _scored(prompt, number, score.words)
    lengths.sort()
    longest = lengths[int(0.99 * (len(lengths) - 1))]
    return distinct(found, lost, answer="score"), shown, longest


def _scored(prompt: str, number: float, words: Mapping[str, float] | None) -> Scored:
    if words is None:
        return Scored(prompt, (), f"{number:g}")
    return Scored(prompt, tuple(words), min(words, key=lambda word: abs(words[word] - number)))


def _templates(score: Score) -> list[str]:
    return [score.template] if score.second_template is None else [score.template, score.second_template]


def _fractions(column: Column) -> bool:
    """Whether most numbers have a fraction, which few computed ones have."""
    return sum((as_number(value) or 0.0) % 1 != 0 for value in column.present) > len(column.present) / 2


def _bounds(column: Column) -> tuple[float, float, tuple[str, ...]]:
    """The range that the numbers are from: the narrowest known one that they fill, else a guess, and the doubt of it.

    The least and the greatest number of a sample are not the bounds of a score: the next rows would pass them.
    """
    numbers = [number for value in column.present if (number := as_number(value)) is not None]
    least, greatest = min(numbers), max(numbers)
    around = next(((low, high) for low, high in RANGES if low <= least and greatest <= high), None)
    if around is not None and greatest - least >= FILLED * (around[1] - around[0]):
        return *around, ()
    step = 10.0 ** math.floor(math.log10(greatest - least))
    low, high = _outward(least, step, -1), _outward(greatest, step, 1)
    doubt = f"{column.name} is from {least:g} to {greatest:g}, which fills no usual range of scores: low and high are "
    return low, high, (f"{doubt}guessed to be {low:g} and {high:g}",)


def _outward(number: float, step: float, sign: int) -> float:
    """The next multiple of a power of ten, below for -1 and above for 1; the number itself if it is one."""
    near = round(round(number / step) * step, 12)
    if near == round(number, 12):
        return near
    return round(sign * math.ceil(sign * number / step) * step, 12)


def _words(low: float, high: float, template: str) -> dict[str, float]:
    """Words for whole numbers between the bounds, where they are few; else for numbers that lie apart as evenly."""
    count = high - low + 1
    whole = low.is_integer() and 2 < count <= MOST_WORDS
    step = 1.0 if whole else (high - low) / (FEWER_WORDS - 1)
    numbers = [round(low + place * step, 6) for place in range(int(count) if whole else FEWER_WORDS)]
    spelled = choices([int(number) if number.is_integer() else number for number in numbers], template)
    return {str(label["word"]): number for label, number in zip(spelled.values(), numbers, strict=True)}
