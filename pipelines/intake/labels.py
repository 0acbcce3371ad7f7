"""Labels of a column's values, as params.yaml has them, and which rows they leave."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.sources.raw_row import RawRow
from pipelines.tasks.rows import as_number, comparable, same

Scalar = str | int | float | bool
Labels = Mapping[str, Mapping[str, Any]]  # name -> word, min, max, values
_NUMBERS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)


def choices(present: Iterable[Scalar], template: str) -> dict[str, dict[str, Any]]:
    """A label for each value, in order: its name is the value as it stands, its word what the model is to answer.

    Whole numbers get words: a digit says little, and " 1" would begin " 10". Where a word still begins another, as
    " good" begins " good enough", each ends with its line, so that no answer is the beginning of another.
    """
    space = "" if template[-1].isspace() else " "  # no tokenizer joins a space to what stands before it
    values: dict[str, list[Scalar]] = {}
    for value in sorted(set(present), key=_order):
        values.setdefault(_text(value), []).append(value)  # 1 and "1" are one
    words = {name: _word(name) for name in values}
    if any(a != b and b.startswith(a) for a in words.values() for b in words.values()):
        words = {name: f"{word}\n" for name, word in words.items()}
    return {
        name: {"word": f"{space}{words[name]}", "min": None, "max": None, "values": same_name}
        for name, same_name in values.items()
    }


def whole_number(text: str) -> int | None:
    """The whole number that a text spells in digits, as 3, -1 or 2.0, or None."""
    return int(text.partition(".")[0]) if re.fullmatch(r"[+-]?\d{1,15}(\.0+)?", text) else None


def _order(value: Scalar) -> tuple[bool, float, str]:
    """Numbers by size, also those that are spelled, and before words."""
    number = as_number(value)
    return number is None, number or 0.0, str(value)


def _text(value: Scalar) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _word(name: str) -> str:
    number = whole_number(name)
    if number is None or abs(number) >= len(_NUMBERS):
        return name
    return _NUMBERS[number] if number >= 0 else f"minus {_NUMBERS[-number]}"


@dataclass(frozen=True)
class Usable:
    """What is left of rows: how many, and how many are lost for each reason."""

    rows: int
    lost: dict[str, int]


def usable_rows(rows: Sequence[RawRow], texts: Sequence[str], label: str, labels: Labels) -> Usable:
    """Count the rows that are left when unreadable, empty, unlabelled, doubled and contradictory ones are gone.

    Args:
        rows: as read.
        texts: the columns of the prompt.
        label: the label's column.
        labels: as in params.yaml.
    """
    lost: Counter[str] = Counter()
    found: dict[str, list[str]] = {}
    for row in rows:
        parts = [clean(row.values.get(name)) for name in texts]
        name = label_of(clean(row.values.get(label)), labels)
        if row.problem is not None:
            lost["cannot be read"] += 1
        elif None in parts:
            lost["have no text"] += 1
        elif name is None:
            lost["have no label"] += 1
        else:
            found.setdefault("\x1f".join(comparable(str(part)) for part in parts), []).append(name)
    return distinct(found, lost, answer="label")


def distinct(
    found: Mapping[Any, Sequence[Hashable]],
    lost: Mapping[str, int],
    *,
    answer: str,
    text: str = "a text",
    one_answer: bool = True,
) -> Usable:
    """Count the rows that stage prepare keeps: the first of each text, and none of a text that has two answers.

    Args:
        found: text -> the answers of its rows.
        lost: rows that are lost for other reasons.
        answer: what an answer is called.
        text: what a text is called.
        one_answer: false: a text may have several answers, and the first row of each of them is kept.
    """
    several = {key for key, told in found.items() if one_answer and len(set(told)) > 1}
    contradictory = sum(len(found[key]) for key in several)
    usable = sum(len(set(told)) for key, told in found.items() if key not in several)
    doubled = sum(map(len, found.values())) - contradictory - usable
    counts = {**lost, f"have {text} that stands in an earlier row": doubled}
    counts[f"have {text} with another {answer}"] = contradictory
    return Usable(usable, {reason: count for reason, count in counts.items() if count})


def label_of(value: Scalar | None, labels: Labels) -> str | None:
    """The label whose rule holds for a value, as the stage prepare decides it, or None."""
    if value is None:
        return None
    for name, label in labels.items():
        if label["values"] is not None:
            if any(same(wanted, value) for wanted in label["values"]):
                return name
        elif (number := as_number(value)) is not None and (
            (label["min"] is None or number >= label["min"]) and (label["max"] is None or number <= label["max"])
        ):
            return name
    return None


def clean(value: Any) -> Scalar | None:
    """Return a cell's value, or None for what is empty or no number."""
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float) else None
