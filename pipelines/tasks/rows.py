"""A row on its way into a split, and how texts and numbers of rows are compared."""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass

from pipelines.contracts.prepared import Rejection
from pipelines.errors import printable

Scalar = str | int | float | bool
SHOWN = 200  # characters of a value in a rejection


@dataclass(frozen=True)
class Candidate:
    """A row that the task can use.

    ``key`` is its text with case, punctuation and spacing ignored; ``domain`` is its t, which one text may have several
    of in several rows.
    """

    file: str
    line: int
    prompt: str
    completion: str
    label: str
    key: str
    domain: float | None = None

    def reject(self, reason: str, value: object) -> Rejection:
        """Return the rejection of this row."""
        return Rejection(self.file, self.line, reason, printable(str(value)[:SHOWN]))


def normalised(text: str) -> str:
    """Return a text with case, punctuation and spacing ignored; what is nothing else (":)") keeps its signs."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return re.sub(r"[\W_]+", "", folded) or re.sub(r"\s+", "", folded)


def same(wanted: Scalar, value: Scalar) -> bool:
    """Whether a value of params.yaml is that of the data, where csv and tsv have text only."""
    if isinstance(value, str) and isinstance(wanted, bool):
        return str(wanted).casefold() == value.casefold()
    if isinstance(value, str) and not isinstance(wanted, str):
        return as_number(value) == wanted
    if isinstance(wanted, bool) != isinstance(value, bool):  # True is not 1
        return False
    return wanted == value


def as_number(value: Scalar) -> float | None:
    """Return the finite number that a value is or spells, or None."""
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def finite_number(value: object) -> float | None:
    """Return the finite number that any value of a data file is or spells, or None."""
    return as_number(value) if isinstance(value, str | int | float) else None
