"""Labels of a column's values, as params.yaml has them, and which rows they leave."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, count
from typing import Any

from pipelines.sources.raw_row import RawRow
from pipelines.tasks.rows import as_number, normalised, same

Scalar = str | int | float | bool
Labels = Mapping[str, Mapping[str, Any]]  # name -> word, min, max, values


def choices(present: Iterable[Scalar], template: str) -> dict[str, dict[str, Any]]:
    """A label for each value, in order; its word is the value as it stands."""
    space = "" if template[-1].isspace() else " "  # no tokenizer joins a space to what stands before it
    values = sorted(set(present), key=lambda value: (isinstance(value, str), value))
    labels: dict[str, dict[str, Any]] = {}
    for value in values:
        word = str(value).lower() if isinstance(value, bool) else str(value)
        labels[_label_name(word, labels)] = {"word": f"{space}{word}", "min": None, "max": None, "values": [value]}
    return labels


def ranges(present: Iterable[Scalar]) -> dict[str, dict[str, Any]]:
    """Low and high: the lower and the upper third of the numbers; what lies between says neither."""
    numbers = sorted(number for value in present if (number := as_number(value)) is not None)
    low, high = numbers[len(numbers) // 3], numbers[2 * len(numbers) // 3]
    if low >= high:
        low, high = numbers[0], min(number for number in numbers if number > numbers[0])
    return {
        "low": {"word": " low", "min": None, "max": low, "values": None},
        "high": {"word": " high", "min": high, "max": None, "values": None},
    }


def _label_name(word: str, taken: Mapping[str, object]) -> str:
    """A name as params.yaml wants it, that no other label has."""
    name = re.sub(r"[^a-z0-9._-]+", "-", word.lower()).strip("._-")[:60] or "label"
    return next(each for each in chain([name], (f"{name}-{n}" for n in count(2))) if each not in taken)


def usable_rows(rows: Sequence[RawRow], texts: Sequence[str], label: str, labels: Labels) -> int:
    """Count the rows that are left when unreadable, empty, unlabelled, doubled and contradictory ones are gone.

    Args:
        rows: as read.
        texts: the columns of the prompt.
        label: the label's column.
        labels: as in params.yaml.
    """
    found: dict[str, set[str]] = {}
    for row in rows:
        parts = [clean(row.values.get(name)) for name in texts]
        name = _label_of(clean(row.values.get(label)), labels)
        if name is not None and None not in parts:
            found.setdefault("\x1f".join(normalised(str(part)) for part in parts), set()).add(name)
    return sum(len(names) == 1 for names in found.values())


def _label_of(value: Scalar | None, labels: Labels) -> str | None:
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
