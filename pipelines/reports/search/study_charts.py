"""Charts of a study's trials: its history, the runs that confirm the best, and the learning curves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from xml.etree.ElementTree import Element

from pipelines.contracts.trials import TrialRecord
from pipelines.reports.charts import LEFT, RIGHT, Axis, Chart, Choices, Kind, Linear, Size
from pipelines.reports.markup import element
from pipelines.reports.search.verdict import Verdict
from pipelines.wording import share

WIDE, NARROW = Size(width=1000, height=300), Size()


def wide_figure(title: str, says: str, draw: Callable[[Size], Element]) -> Element:
    """A chart as wide as the page, drawn twice: the page shows the one that its window has room for."""
    broad, narrow = draw(WIDE), draw(NARROW)
    broad.set("class", "broad")
    narrow.set("class", "narrow")
    caption = element("figcaption", None, element("h3", None, title), element("p", None, says))
    return element("figure", {"class": "wide"}, caption, element("div", {"class": "frame"}, broad, narrow))


def validation_label(verdict: Verdict) -> str:
    """What stands at an axis of the measure on the validation rows."""
    return f"validation {verdict.measure} (%)"


def percent(value: float) -> float:
    """A share as the axes of values have it."""
    return 100 * value


def score(record: TrialRecord) -> float | None:
    """The value of a trial; of one that did not end, at its last report."""
    if record.value is not None or not record.intermediate:
        return record.value
    return record.intermediate[max(record.intermediate)]


def scored(verdict: Verdict) -> Iterator[tuple[TrialRecord, float]]:
    """The trials with a value, in percent, the chosen one last: it is to lie on top."""
    known = ((record, score(record)) for record in verdict.found.records)
    found = [(record, percent(value)) for record, value in known if value is not None]
    yield from sorted(found, key=lambda pair: verdict.kind(pair[0]) == "chosen")


def value_axis(verdict: Verdict) -> Axis:
    """The axis of the measure on the validation rows, which the trials and the frozen base lie on."""
    base = verdict.found.base_value
    values = [value for _, value in scored(verdict)] + ([] if base is None else [percent(base)])
    return Axis(Linear.around(values), validation_label(verdict))


def _level_of_base(chart: Chart, verdict: Verdict) -> None:
    if verdict.found.base_value is not None:
        chart.level(percent(verdict.found.base_value), f"frozen base {share(verdict.found.base_value)}")


def history(verdict: Verdict) -> Element:
    """The measure by trial, with the best so far."""
    says = "Each trial in its turn; the line is the best so far. A trial that failed without a score lies on the axis."
    return wide_figure("History", says, lambda size: _history(verdict, size))


def _history(verdict: Verdict, size: Size) -> Element:
    numbers = Linear.around([record.number for record in verdict.found.records], whole=True)
    y = value_axis(verdict)
    chart = Chart(
        Axis(numbers, "trial"), y, size=size, says=f"{verdict.measure.capitalize()} of each trial, and the best so far"
    )
    _level_of_base(chart, verdict)
    best: list[tuple[float, float]] = []
    for record in verdict.complete:
        if not record.over and (not best or percent(record.value or 0.0) > best[-1][1]):
            best.append((record.number, percent(record.value or 0.0)))
    last = (verdict.found.records[-1].number, best[-1][1]) if best else (0, 0.0)
    chart.steps([*best, last], "best")
    for record, value in scored(verdict):
        chart.mark(record.number, value, verdict.kind(record), record.number)
    assert isinstance(y.scale, Linear)
    for record in verdict.found.records:
        if score(record) is None:
            chart.mark(record.number, y.scale.low, verdict.kind(record), record.number)
    return chart.svg


def confirmations(verdict: Verdict) -> Element:
    """The runs of the best recipes with other seeds and rows, with mean and spread."""
    says = (
        "The first dot is the trial's own run, on the validation rows; each other one is a run with another seed, on "
        "training rows that it did without. Line and box are the mean and the spread (one standard deviation) of these "
        "others. A seed's rows are the same for every recipe, so dots are to be compared in their order."
    )
    return wide_figure("The best, with other seeds", says, lambda size: _confirmations(verdict, size))


def _confirmations(verdict: Verdict, size: Size) -> Element:
    lines = sorted(verdict.found.confirmations, key=lambda one: -(one.mean or 0.0))
    values = [percent(value) for one in lines for value in one.values if value is not None]
    names = [f"trial {one.trial}" for one in lines]
    x, y = Axis(Choices(names), "recipe, the best mean first"), Axis(Linear.around(values), f"{verdict.measure} (%)")
    chart = Chart(
        x, y, size=size, says=f"{verdict.measure.capitalize()} of the best recipes with each seed, and mean and spread"
    )
    room = (size.width - LEFT - RIGHT) / len(names)  # of a recipe, so that none lies on its neighbour
    for name, one in zip(names, lines, strict=True):
        kind: Kind = "chosen" if one.trial == verdict.choice.record.number else "complete"
        if one.mean is not None:
            low, high = (percent(one.mean + side * (one.spread or 0.0)) for side in (-1, 1))
            chart.bar(name, low, high, f"spread {kind}", width=min(64, 0.65 * room), trial=one.trial)
            mean = percent(one.mean)
            chart.bar(name, mean, mean, f"mean {kind}", width=min(88, 0.9 * room), trial=one.trial)
        step = min(10.0, 0.65 * room / len(one.values))
        for place, value in enumerate(one.values):
            if value is not None:
                aside = step * (place - (len(one.values) - 1) / 2)
                chart.mark(name, percent(value), "complete", one.trial, aside=aside)
    return chart.svg


def curves(verdict: Verdict) -> Element:
    """The measure by report, a line for each trial."""
    says = "A line for each trial, with its mark where it ended: dashed ones were stopped early, dotted ones failed."
    return wide_figure("Learning curves", says, lambda size: _curves(verdict, size))


def _curves(verdict: Verdict, size: Size) -> Element:
    records = [record for record in verdict.found.records if record.intermediate]
    reports = range(1, verdict.settings.reports + 1)
    values = [percent(value) for record in records for value in record.intermediate.values()]
    chart = Chart(
        Axis(Linear.around(reports, whole=True), f"report (the last of {len(reports)} at the end of training)"),
        Axis(Linear.around(values), validation_label(verdict)), size=size,
        says=f"{verdict.measure.capitalize()} of each trial at each of its reports",
    )  # fmt: skip
    for record in sorted(records, key=lambda one: verdict.kind(one) == "chosen"):
        points = [(report, percent(record.intermediate[report])) for report in sorted(record.intermediate)]
        chart.line(points, verdict.kind(record), trial=record.number)
        chart.mark(*points[-1], verdict.kind(record), record.number)
    return chart.svg
