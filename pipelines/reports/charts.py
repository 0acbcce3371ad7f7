"""Charts as inline SVG: scales, axes and marks. Colours are the style sheet's, so each theme has its own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, Protocol
from xml.etree.ElementTree import Element

from pipelines.reports.markup import append, element
from pipelines.wording import part_value

Kind = Literal["chosen", "complete", "pruned", "fail"]
Tick = tuple[float, str]  # its place, as a share of the axis, and its words
# The shapes tell the kinds apart where colours do not; drawn around 0,0.
SHAPES: dict[Kind, str] = {
    "chosen": "M0-8L7 0L0 8L-7 0Z",
    "complete": "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0",
    "pruned": "M-4-4L4 4M-4 4L4-4",
    "fail": "M-4-4H4V4H-4Z",
}
LETTER = 6.2  # pixels that a letter of a tick takes, about
LONGEST = 14  # letters of a tick


class Scale(Protocol):
    """Where values lie on an axis."""

    def at(self, value: object) -> float:
        """The place of a value, as a share of the axis."""

    def ticks(self) -> list[Tick]:
        """The values that are written beside the axis."""


@dataclass(frozen=True)
class Linear:
    """Numbers from low to high; ``whole`` is for those that are counted."""

    low: float
    high: float
    whole: bool = False

    @classmethod
    def around(cls, values: Iterable[float], *, whole: bool = False, zero: bool = False) -> Linear:
        """The values with a little room on both sides; with ``zero`` from 0 on."""
        found = [*values, *([0.0] if zero else [])] or [0.0]
        room = 0.06 * (max(found) - min(found)) or 0.5
        return cls(0.0 if zero else min(found) - room, max(found) + room, whole)

    def at(self, value: object) -> float:
        """See :class:`Scale`."""
        return (_number(value) - self.low) / (self.high - self.low)

    def ticks(self) -> list[Tick]:
        """See :class:`Scale`."""
        from matplotlib.ticker import MaxNLocator  # takes half a second to import, and Markdown does without

        values = MaxNLocator(5, steps=[1, 2, 5, 10], integer=self.whole).tick_values(self.low, self.high)
        return [(self.at(value), short(value)) for value in map(float, values) if self.low <= value <= self.high]


@dataclass(frozen=True)
class Log:
    """Numbers above 0, each ratio of them as long as any other equal one."""

    low: float
    high: float

    def at(self, value: object) -> float:
        """See :class:`Scale`."""
        return math.log(_number(value) / self.low) / math.log(self.high / self.low)

    def ticks(self) -> list[Tick]:
        """See :class:`Scale`."""
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        digits = (1, 2, 5) if last - first < 4 else (1,)
        values = [digit * 10.0**exponent for exponent in range(first, last + 1) for digit in digits]
        return [(self.at(value), short(value)) for value in values if self.low <= value <= self.high]


@dataclass(frozen=True)
class Choices:
    """Values that are each a place of their own."""

    values: Sequence[object]

    def at(self, value: object) -> float:
        """See :class:`Scale`."""
        return (self.values.index(value) + 0.5) / len(self.values)

    def ticks(self) -> list[Tick]:
        """See :class:`Scale`."""
        every = math.ceil(len(self.values) / 12)
        return [(self.at(value), clipped(part_value(value))) for value in self.values[::every]]


@dataclass(frozen=True)
class Axis:
    """A scale and what its numbers are, with their unit."""

    scale: Scale
    title: str


@dataclass(frozen=True)
class Size:
    """Of a chart, in pixels of its own; the page shows it larger or smaller."""

    width: int = 380
    height: int = 260


LEFT, RIGHT, ABOVE, BELOW = 52, 14, 14, 42
TURNED = 78  # below the frame, where the words of its ticks are turned


class Chart:
    """A frame with two axes, and marks in it; what belongs to a trial carries its number for the page's script."""

    def __init__(self, x: Axis, y: Axis, *, size: Size, says: str) -> None:
        """Draw the axes; ``says`` tells in words what the chart shows, for those who cannot see it."""
        self._x, self._y, self._size = x.scale, y.scale, size
        self._turned = sum(len(words) + 1.5 for _, words in x.scale.ticks()) * LETTER > size.width - LEFT - RIGHT
        self._bottom = size.height - (TURNED if self._turned else BELOW)
        self.svg = element(
            "svg",
            {"viewBox": f"0 0 {size.width} {size.height}", "role": "img", "aria-label": says},
            text((LEFT + size.width - RIGHT) / 2, size.height - 6, x.title, kind="title"),
            text(12, (ABOVE + self._bottom) / 2, y.title, kind="title", turn=-90),
        )
        self._draw_ticks()

    def place(self, x: object, y: object) -> tuple[float, float]:
        """The pixel of a pair of values."""
        return self._across(self._x.at(x)), self._up(self._y.at(y))

    def mark(self, x: object, y: object, kind: Kind, trial: int | None, *, aside: float = 0.0) -> None:
        """A trial, or another point; ``aside`` moves it by so many pixels, where others would cover it."""
        across, up = self.place(x, y)
        append(self.svg, marker(kind, across + aside, up, trial))

    def line(self, points: Sequence[tuple[object, object]], kind: str, *, trial: int | None = None) -> None:
        """A line through points."""
        places = " ".join(",".join(f"{pixel:.1f}" for pixel in self.place(x, y)) for x, y in points)
        append(self.svg, element("polyline", {"class": f"line {kind}", "points": places, "data-trial": trial}))

    def steps(self, points: Sequence[tuple[float, float]], kind: str) -> None:
        """A line that keeps each point's height until the next one."""
        corners = [corner for (_, y), (x, after) in pairwise(points) for corner in ((x, y), (x, after))]
        self.line([*points[:1], *corners], kind)

    def level(self, y: float, words: str) -> None:
        """A line across the whole chart at a height, and what it is."""
        height = self._up(self._y.at(y))
        right = self._size.width - RIGHT
        append(
            self.svg,
            element("path", {"class": "level", "d": f"M{LEFT} {height:.1f}H{right}"}),
            text(right - 2, height - 4, words, kind="note", anchor="end"),
        )

    def bar(self, x: object, low: float, high: float, kind: str, *, width: float, trial: int | None) -> None:
        """A bar that stands at x from low to high."""
        across, top = self.place(x, high)
        size = {"width": width, "height": max(self._up(self._y.at(low)) - top, 0.5)}
        place = {"x": across - width / 2, "y": top}
        append(self.svg, element("rect", {"class": f"bar {kind}", **place, **size, "data-trial": trial}))

    def note(self, x: float, y: float, words: str) -> None:
        """Words beside a point."""
        across, up = self.place(x, y)
        append(self.svg, text(across + 8, up + 12, words, kind="note", anchor="start"))

    def _across(self, share: float) -> float:
        return LEFT + share * (self._size.width - LEFT - RIGHT)

    def _up(self, share: float) -> float:
        return self._bottom - share * (self._bottom - ABOVE)

    def _draw_ticks(self) -> None:
        right, bottom = self._size.width - RIGHT, self._bottom
        for share, words in self._y.ticks():
            height = self._up(share)
            grid = element("path", {"class": "grid", "d": f"M{LEFT} {height:.1f}H{right}"})
            append(self.svg, grid, text(LEFT - 6, height + 4, words, anchor="end"))
        for share, words in self._x.ticks():
            across = self._across(share)
            if self._turned:
                label = text(across + 4, bottom + 14, words, anchor="end", turn=-35)
            else:
                label = text(across, bottom + 17, words)
            append(self.svg, element("path", {"class": "axis", "d": f"M{across:.1f} {bottom}v4"}), label)
        append(self.svg, element("path", {"class": "axis", "d": f"M{LEFT} {bottom}H{right}"}))


def figure(title: str, says: str, svg: Element, *, wide: bool = False) -> Element:
    """A chart with its title and how to read it."""
    caption = element("figcaption", None, element("h3", None, title), element("p", None, says))
    frame = element("div", {"class": "frame"}, svg)
    return element("figure", {"class": "wide" if wide else None}, caption, frame)


def marker(kind: Kind, x: float, y: float, trial: int | None) -> Element:
    """The shape of a trial at a pixel."""
    place = f"translate({x:.1f},{y:.1f})"
    return element("path", {"class": f"mark {kind}", "transform": place, "d": SHAPES[kind], "data-trial": trial})


def text(
    x: float, y: float, words: str, *, kind: str = "tick", anchor: str = "middle", turn: int | None = None
) -> Element:
    """Words at a pixel; ``turn`` is in degrees, clockwise."""
    turned = None if turn is None else f"rotate({turn} {x:.1f} {y:.1f})"
    return element("text", {"class": kind, "x": x, "y": y, "text-anchor": anchor, "transform": turned}, words)


def clipped(words: str, longest: int = LONGEST) -> str:
    """Words that fit beside an axis."""
    return words if len(words) <= longest else f"{words[: longest - 1]}…"


def short(value: float) -> str:
    """A number of few letters."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 10 * size or (abs(value) >= size and letter != "k"):
            return f"{value / size:.4g}{letter}"
    return f"{value:.4g}"


def _number(value: object) -> float:
    if not isinstance(value, int | float):
        raise TypeError(f"a scale of numbers takes numbers; got {value!r}; use Choices")
    return float(value)
