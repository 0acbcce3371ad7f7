"""How texts and numbers of rows are compared."""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata

Scalar = str | int | float | bool


def comparable(text: str) -> str:
    """Return a text with case and the width of its spaces ignored: two that are equal so are one text.

    Signs, marks and emoji stay: "18 < 172" is not "18 > 172", and "-5" is not "5".
    """
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    return " ".join(folded.split())


def letters(text: str) -> str:
    """Return a text with case, punctuation, spacing and forms of letters ignored: what near duplicates share.

    What is nothing else (":)") keeps its signs.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return re.sub(r"[\W_]+", "", folded) or re.sub(r"\s+", "", folded)


def near_key(unit: str) -> str:
    """What near duplicates have in common: the letters of each of a row's texts."""
    return "\x1f".join(letters(text) for text in unit.split("\x1f"))


def split_digest(seed: int, unit: str) -> bytes:
    """Return what a split is sorted by: a hash of the seed and the letters of the row's text; then comes the text.

    Near duplicates so stand side by side, and most of them in one split.
    """
    return hashlib.sha256(f"{seed}\x1f{near_key(unit)}".encode("utf-8", "surrogatepass")).digest()


def same(wanted: Scalar, value: Scalar) -> bool:
    """Whether a value of params.yaml is that of the data, where csv and tsv have text only."""
    if isinstance(value, str) and isinstance(wanted, bool):
        return str(wanted).casefold() == value.casefold()
    if isinstance(value, str) and not isinstance(wanted, str):
        return _spelled(value) == wanted
    if isinstance(wanted, bool) != isinstance(value, bool):  # True is not 1
        return False
    return wanted == value


def _spelled(text: str) -> float | None:
    """The finite number that a text spells; a whole one as it stands, since a float knows none beyond 2^53 exactly."""
    number = as_number(text)
    return number if number is None or re.fullmatch(r"\s*[+-]?\d+\s*", text) is None else int(text)


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
