"""Charts of an evaluation: both systems with their intervals, and how far probabilities can be believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from pipelines.contracts.diagnostics import Calibration
from pipelines.contracts.interval import Interval
from pipelines.reports.charts import LETTER, Axis, Chart, Kind, Linear, Size, clipped, figure, marker, text
from pipelines.reports.markup import append, element

SYSTEMS: dict[str, Kind] = {"adapter": "chosen", "frozen base": "complete"}
"""What each system's marks look like; the shapes tell them apart where colours do not."""
WIDTH, SIDE = 380, 12  # pixels of a chart, and beside its axis
LINE, BELOW = 50, 46  # of one comparison, and of the axis


@dataclass(frozen=True)
class Compared:
    """What a line of a chart shows: on what, and both systems' figures there."""

    name: str
    adapter: Interval
    base: Interval


def legend() -> Element:
    """What the marks mean."""
    frame = {"viewBox": "-9 -9 18 18", "aria-hidden": "true"}
    entries = [
        element("li", None, element("svg", frame, marker(kind, 0, 0, None)), name) for name, kind in SYSTEMS.items()
    ]
    return element("ul", {"class": "legend", "aria-label": "What the marks mean"}, *entries)


def intervals(
    lines: Sequence[Compared], *, title: str, measure: str, says: str, levels: Mapping[str, float] | None = None
) -> Element:
    """Both systems' figures with their intervals, a line for each comparison.

    Args:
        lines: from above.
        title: of the chart.
        measure: in words.
        says: how to read it.
        levels: what else has a figure, as a line across the chart, by name.
    """
    levels = levels or {}
    bounds = [bound for line in lines for one in (line.adapter, line.base) for bound in (one.low, one.high, one.value)]
    scale = Linear.around([100 * value for value in (*bounds, *levels.values())])
    top = 16 * len(levels)
    bottom = top + LINE * len(lines)
    told = f"{title}: {measure} of adapter and frozen base, with intervals"
    svg = element("svg", {"viewBox": f"0 0 {WIDTH} {bottom + BELOW}", "role": "img", "aria-label": told})
    _draw_axis(svg, scale, bottom, f"{measure} (%)")
    for place, (name, value) in enumerate(levels.items()):
        _draw_level(svg, _across(scale, value), 16 * place, bottom, name)
    for place, line in enumerate(lines):
        _draw_line(svg, scale, top + LINE * place, line)
    return figure(title, says, svg)


def reliability(calibration: Mapping[str, Calibration]) -> Element:
    """How often answers of each probability are right."""
    share = Linear(0.0, 1.0)
    says = "On the dashed line probabilities are as they should be; below it the system is surer than it is right."
    told = "Share of right answers by their probability, of adapter and frozen base"
    axes = Axis(share, "mean probability of the answers"), Axis(share, "share that is right")
    chart = Chart(*axes, size=Size(), says=told)
    chart.line([(0.0, 0.0), (1.0, 1.0)], "front")
    for system, name in (("base", "frozen base"), ("adapter", "adapter")):
        for each in calibration[system].bins:
            chart.mark(each.confidence, each.accuracy, SYSTEMS[name], None)
    return figure("Reliability", says, chart.svg)


def _across(scale: Linear, value: float) -> float:
    return SIDE + scale.at(100 * value) * (WIDTH - 2 * SIDE)


def _draw_axis(svg: Element, scale: Linear, bottom: float, title: str) -> None:
    for share, words in scale.ticks():
        across = SIDE + share * (WIDTH - 2 * SIDE)
        grid = element("path", {"class": "grid", "d": f"M{across:.1f} 0V{bottom}"})
        append(svg, grid, text(across, bottom + 16, words))
    append(svg, element("path", {"class": "axis", "d": f"M{SIDE} {bottom}H{WIDTH - SIDE}"}))
    append(svg, text(WIDTH / 2, bottom + 36, title, kind="title"))


def _draw_level(svg: Element, across: float, above: float, bottom: float, name: str) -> None:
    """A baseline, and its name on the side that has room."""
    right = across + LETTER * len(name) + 6 < WIDTH
    words = text(across + (4 if right else -4), above + 12, name, kind="note", anchor="start" if right else "end")
    append(svg, element("path", {"class": "level", "d": f"M{across:.1f} {above}V{bottom}"}), words)


def _draw_line(svg: Element, scale: Linear, top: float, line: Compared) -> None:
    append(svg, text(SIDE, top + 16, clipped(line.name, 52), kind="title", anchor="start"))
    for place, (name, own) in enumerate((("frozen base", line.base), ("adapter", line.adapter))):
        height, kind = top + 27 + 13 * place, SYSTEMS[name]
        reach = f"M{_across(scale, own.low):.1f} {height}H{_across(scale, own.high):.1f}"
        mark = marker(kind, _across(scale, own.value), height, None)
        append(svg, element("path", {"class": f"line {kind} reach", "d": reach}), mark)
