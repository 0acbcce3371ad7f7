"""Which tokens of a request are edited: ``f7+l7``, ``0:2,5:9``, ``all`` and ``g8``, as ranges of absolute positions.

A request's prompt length and these texts decide it alone, never token values or how the engine cuts a prompt.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

_ENDS = re.compile(r"f(?P<first>[1-9]\d{0,5})(?:\+l(?P<both>[1-9]\d{0,5}))?|l(?P<last>[1-9]\d{0,5})", re.ASCII)
_BEHIND = re.compile(r"(?:(?P<prompt>.+)\+)?g(?P<generated>[1-9]\d{0,5})", re.ASCII)
_RANGE = re.compile(r"(?P<start>\d{1,6}):(?P<stop>\d{1,6})", re.ASCII)

Range = tuple[int, int]
"""A half-open range of absolute positions."""


@dataclass(frozen=True)
class Tokens:
    """The edited tokens of a layer.

    Attributes:
        first: how many at the start of the prompt.
        last: how many at its end.
        ranges: half-open ranges of prompt tokens.
        everything: every token of the prompt.
        generated: how many behind the prompt.
    """

    first: int = 0
    last: int = 0
    ranges: tuple[Range, ...] = ()
    everything: bool = False
    generated: int = 0

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that an untied adapter has an edit of its own for, in their order."""
        named = (
            ("first", self.first > 0 or bool(self.ranges) or self.everything),
            ("last", self.last > 0),
            ("generated", self.generated > 0),
        )
        return tuple(name for name, there in named if there)

    def of(self, length: int, parts: tuple[str, ...]) -> tuple[Range, ...]:
        """Return the edited positions of a request with a prompt of ``length`` tokens, of these parts, ascending.

        With both ends edited, each takes at most half of the prompt, and one token of a prompt of one is a first one.
        """
        limit = max(length // 2, 1) if self.first and self.last else length
        first = ((0, min(self.first, limit)),)
        if self.everything:
            first = ((0, length),)
        elif self.ranges:
            first = tuple((start, min(stop, length)) for start, stop in self.ranges)
        last = max(length - min(self.last, limit), first[0][1] if self.first else 0)
        found: dict[str, tuple[Range, ...]] = {
            "first": first,
            "last": ((last, length),) if self.last else (),
            "generated": ((length, length + self.generated),),
        }
        return joined(tuple(each for part in parts for each in found[part]))


def joined(ranges: tuple[Range, ...]) -> tuple[Range, ...]:
    """Return the same positions in order, ranges that touch as one; empty ones are left out."""
    made: list[Range] = []
    for start, stop in sorted(each for each in ranges if each[0] < each[1]):
        if made and start <= made[-1][1]:
            made[-1] = (made[-1][0], max(stop, made[-1][1]))
        else:
            made.append((start, stop))
    return tuple(made)


def parse_tokens(text: str) -> Tokens:
    """Read positions as an adapter's config has them.

    Raises:
        ValueError: for anything else, and for ``spans``, which a request has no way to name.
    """
    behind = _BEHIND.fullmatch(text)
    if behind is None:
        return _of_prompt(text)
    prompt = Tokens() if behind["prompt"] is None else _of_prompt(behind["prompt"])
    return replace(prompt, generated=int(behind["generated"]))


def _of_prompt(text: str) -> Tokens:
    if text == "all":
        return Tokens(everything=True)
    if text == "spans":
        raise ValueError(
            "positions must follow from a prompt's length; got spans, which each row names itself and a request "
            "cannot; train with positions like f7+l7"
        )
    match = _ENDS.fullmatch(text)
    if match is not None:
        return Tokens(first=int(match["first"] or 0), last=int(match["both"] or match["last"] or 0))
    found = [_RANGE.fullmatch(each.strip()) for each in text.split(",")]
    ranges = tuple((int(each["start"]), int(each["stop"])) for each in found if each is not None)
    if len(ranges) < len(found) or any(start >= stop for start, stop in ranges):
        raise ValueError(
            f"positions are fN, lN, fN+lN, all or ranges like 0:2,5:9, with +gN behind; got {text!r}; save it again"
        )
    return Tokens(ranges=ranges)
