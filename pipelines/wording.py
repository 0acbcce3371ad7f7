"""How figures are written for people: shares, times, amounts, and the values of a recipe."""

from __future__ import annotations

from collections.abc import Mapping


def share(value: float) -> str:
    """A share as a percentage with one decimal."""
    return f"{100 * value:.1f} %"


def measure_words(name: str) -> str:
    """A measure's name as people read it: "exact match" of exact_match, "macro F1" of macro_f1."""
    return name.replace("_f1", "_F1").replace("_", " ")


def points(value: float, *, sign: bool = True) -> str:
    """A difference of two shares, or their spread, in percentage points."""
    return f"{100 * value:{'+' if sign else ''}.1f} points"


def relative(value: float) -> str:
    """A change as a share of what it was: "+12.0 %", or "times 340" where a percentage would have too many digits."""
    return f"{100 * value:+.1f} %" if value < 10 else f"times {1 + value:.3g}"


def duration(seconds: float) -> str:
    """Seconds, in the unit that suits them."""
    if seconds < 90:
        return f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def part_value(value: object) -> str:
    """The value of a part of a recipe: of a real number the first digits."""
    if isinstance(value, float):
        return f"{value:.2g}"
    return "–" if value is None else str(value)


def recipe_words(point: Mapping[str, object]) -> str:
    """A point of the space in one line."""
    return ", ".join(f"{name} {part_value(value)}" for name, value in point.items())


def many(count: int, noun: str) -> str:
    """A number of things: "1 trial", "12 trials"."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
