"""Charts of the parts of a recipe: which matters, the measure by each alone, and all of them together."""

from __future__ import annotations

from xml.etree.ElementTree import Element

from pipelines.recipes.domains import Span, Steps
from pipelines.recipes.methods.table import Part
from pipelines.reports.charts import Axis, Chart, Choices, Linear, Log, Scale, Size, clipped, figure, text
from pipelines.reports.markup import append, element
from pipelines.reports.search.study_charts import percent, scored, value_axis
from pipelines.reports.search.verdict import Verdict
from pipelines.wording import many

SHADES = 5  # of the lines of complete trials, by their value
WIDTH, STEP = 1000, 126  # pixels: of the chart of all parts at least, and from axis to axis at least
SIDE, TOP, BOTTOM = 96, 34, 290  # before the first axis and after the last, above them, and where they end
NONE = 18  # pixels below an axis, of a trial that has no such part


def importance(verdict: Verdict) -> Element:
    """A bar for each part."""
    rows = []
    for part, value in verdict.importances.items():
        bar = element("rect", {"class": "bar complete", "width": 100 * value, "height": 8})
        track = element("svg", {"viewBox": "0 0 100 8", "preserveAspectRatio": "none", "aria-hidden": "true"}, bar)
        name = element("th", {"scope": "row"}, part)
        rows.append(element("tr", None, name, element("td", None, track), element("td", None, f"{value:.0%}")))
    says = (
        f"By how much the best of {many(len(verdict.complete), 'complete trial')} differ in a part from all of them "
        "(PED-ANOVA). With few trials it is a hint, and no more."
    )
    return figure("Which part matters", says, element("table", {"class": "meters"}, element("tbody", None, *rows)))


def parts_that_vary(verdict: Verdict) -> list[Part]:
    """The searched parts of which trials tried several values."""
    tried: dict[Part, set[object]] = {part: set() for part in verdict.found.space.parts()}
    for record in verdict.found.records:
        for part in tried.keys() & record.params.keys():
            tried[part].add(record.params[part])
    return [part for part, values in tried.items() if len(values) > 1]


def scale_of(verdict: Verdict, part: Part) -> Scale:
    """The axis of a part: as its domain says."""
    match verdict.found.space.domain(part):
        case Span(low=low, high=high, log=True):
            return Log(low, high)
        case Span(low=low, high=high) | Steps(low=low, high=high):
            return Linear.around([low, high], whole=isinstance(low, int))
        case choices:
            return Choices(choices)


def slices(verdict: Verdict) -> list[Element]:
    """A chart for each part: the measure by its value."""
    found, y = [], value_axis(verdict)
    for part in parts_that_vary(verdict):
        scale = scale_of(verdict, part)
        says = f"{verdict.measure.capitalize()} of each trial by its {part}"
        chart = Chart(Axis(scale, str(part)), y, size=Size(), says=says)
        shown = [(record, value) for record, value in scored(verdict) if part in record.params]
        for record, value in shown:
            aside = (record.number * 5 % 7 - 3) * 3.0 if isinstance(scale, Choices) else 0.0  # or equal ones hide
            chart.mark(record.params[part], value, verdict.kind(record), record.number, aside=aside)
        left = sum(1 for _ in scored(verdict)) - len(shown)
        says = f"{many(left, 'trial')} had no {part} of their own, by its condition." if left else ""
        found.append(figure(str(part), says, chart.svg))
    return found


def parallel(verdict: Verdict) -> Element:
    """A line for each complete trial through its parts to its value of the measure."""
    parts = parts_that_vary(verdict)
    axes: list[tuple[str, Scale]] = [(str(part), scale_of(verdict, part)) for part in parts]
    axes.append((f"{verdict.measure} (%)", value_axis(verdict).scale))
    width = max(WIDTH, 2 * SIDE + STEP * len(parts))
    step = (width - 2 * SIDE) / len(parts)
    svg = element(
        "svg",
        {
            "viewBox": f"0 0 {width} {BOTTOM + 30}",
            "role": "img",
            "aria-label": f"The parts and {verdict.measure} of each trial",
        },
    )
    ranked = sorted(verdict.complete, key=lambda record: (record.value or 0.0, -record.number))
    shades = {record.number: f"shade{rank * SHADES // len(ranked)}" for rank, record in enumerate(ranked)}
    for record in sorted(ranked, key=lambda one: verdict.kind(one) == "chosen"):
        values = [*(record.params.get(part) for part in parts), percent(record.value or 0.0)]
        heights = [_height(scale, value) for (_, scale), value in zip(axes, values, strict=True)]
        points = " ".join(f"{SIDE + step * place:.1f},{height:.1f}" for place, height in enumerate(heights))
        kind = "chosen" if verdict.kind(record) == "chosen" else shades[record.number]
        append(svg, element("polyline", {"class": f"line {kind}", "points": points, "data-trial": record.number}))
    for place, (name, scale) in enumerate(axes):
        _draw_axis(svg, SIDE + step * place, name, scale)
    says = "Each line is a complete trial, the stronger its colour the better it was; the thick one was chosen."
    svg.set("class", "broad")  # its axes need their room: a narrow page shows a part of it, and says so
    found = figure("All parts together", says, svg, wide=True)
    append(found[0], element("p", {"class": "aside"}, "The rest, and the measure, is to the right: move the chart."))
    return found


def _height(scale: Scale, value: object) -> float:
    return BOTTOM + NONE if value is None else BOTTOM - scale.at(value) * (BOTTOM - TOP)


def _draw_axis(svg: Element, x: float, name: str, scale: Scale) -> None:
    line = element("path", {"class": "axis", "d": f"M{x:.1f} {TOP}V{BOTTOM}"})
    append(svg, text(x, TOP - 14, name, kind="title"), line)
    for share, words in scale.ticks():
        height = BOTTOM - share * (BOTTOM - TOP)
        append(svg, element("path", {"class": "axis", "d": f"M{x - 4:.1f} {height:.1f}h4"}))
        append(svg, text(x - 6, height + 4, clipped(words), anchor="end"))
