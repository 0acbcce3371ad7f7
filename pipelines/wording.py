"""How figures are written for people: shares, times, amounts, and the values of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def share(value: float) -> str:
    """A share as a percentage with one decimal."""
    return f"{100 * value:.1f} %"


def measure_words(name: str) -> str:
    """A measure's name as people read it: "exact match" of exact_match."""
    return name.replace("_", " ")


def points(value: float, *, sign: bool = True) -> str:
    """A difference of two shares, or their spread, in percentage points."""
    return f"{100 * value:{'+' if sign else ''}.1f} points"


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


def verdict_words(evaluation: Mapping[str, Any]) -> str:
    """What the figures of evaluation.json allow to be said of the adapter."""
    rows, least, over = (evaluation.get(name) for name in ("rows", "least_rows", "over_majority"))
    if evaluation["better"]:
        return "better than the base" + (" and than always giving the commonest answer" if over else "")
    if least is not None and rows is not None and rows < least:
        return f"no verdict: {rows} rows are too few, it takes {least}"
    if over is not None and not over["better"] and evaluation["difference"]["low"] > 0:
        return "not better than always giving the commonest answer by more than chance"
    return "not better than the base by more than chance"


def detectable_words(evaluation: Mapping[str, Any]) -> str:
    """How small a difference the test rows can show; "" where the file does not say."""
    found = evaluation.get("detectable")
    if found is None:
        return ""
    return f"{points(found, sign=False)} at {evaluation['confidence']:.0%} confidence and 80 % power"
