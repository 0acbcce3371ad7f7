"""Charts of what trials cost: the measure against each cost, and what each trial took."""

from __future__ import annotations

from typing import Literal
from xml.etree.ElementTree import Element

from pipelines.contracts.trials import TrialRecord
from pipelines.reports.charts import Axis, Chart, Linear, Log, Scale, Size, figure
from pipelines.reports.search.study_charts import percent, validation_label
from pipelines.reports.search.verdict import Verdict
from pipelines.search.records import saved_seconds

Cost = Literal["parameters", "seconds", "memory_mb", "tokens"]
TITLES: dict[Cost, str] = {"parameters": "size", "seconds": "time", "memory_mb": "memory", "tokens": "tokens"}
UNITS: dict[Cost, str] = {
    "parameters": "trained numbers",
    "seconds": "seconds of training and scoring",
    "memory_mb": "memory at its height (MB)",
    "tokens": "tokens trained on",
}
WIDE_RATIO = 20  # of the largest to the smallest, above which an axis is logarithmic


def tradeoffs(verdict: Verdict) -> list[Element]:
    """The measure against each cost, with the front of those that none beats in both."""
    shown: list[Cost] = ["parameters", "seconds"]
    if "memory_mb" in verdict.settings.objectives or verdict.settings.limits.memory_mb is not None:
        shown.append("memory_mb")
    return [_tradeoff(verdict, cost) for cost in shown if any(getattr(one, cost) for one in verdict.complete)]


def _tradeoff(verdict: Verdict, cost: Cost) -> Element:
    pairs = [(record, float(spent)) for record in verdict.complete if (spent := getattr(record, cost))]
    spents = [spent for _, spent in pairs]
    ratio = max(spents) / min(spents)
    x: Scale = Log(min(spents) / 1.3, max(spents) * 1.3) if ratio > WIDE_RATIO else Linear.around(spents, zero=True)
    values = [percent(record.value or 0.0) for record, _ in pairs]
    chart = Chart(
        Axis(x, UNITS[cost]), Axis(Linear.around(values), validation_label(verdict)), size=Size(),
        says=f"{verdict.measure.capitalize()} of each complete trial against {UNITS[cost]}",
    )  # fmt: skip
    best: list[tuple[TrialRecord, float]] = []
    for record, spent in sorted(pairs, key=lambda pair: (pair[1], -(pair[0].value or 0.0))):
        if not record.over and (not best or (record.value or 0.0) > (best[-1][0].value or 0.0)):
            best.append((record, spent))
    chart.steps([(spent, percent(record.value or 0.0)) for record, spent in best], "front")
    for record, spent in sorted(pairs, key=lambda pair: verdict.kind(pair[0]) == "chosen"):
        chart.mark(spent, percent(record.value or 0.0), verdict.kind(record), record.number)
    for record, spent in best:
        chart.note(spent, percent(record.value or 0.0), f"{record.number}")
    says = "On the line: the trials, by number, that no other beats in both. Up and to the left is better."
    return figure(f"{verdict.measure.capitalize()} against {TITLES[cost]}", says, chart.svg)


def costs(verdict: Verdict) -> list[Element]:
    """Bars of what each trial took."""
    shown: list[Cost] = ["seconds", "tokens", "memory_mb"]
    return [_bars(verdict, cost) for cost in shown if any(getattr(one, cost) for one in verdict.found.records)]


def _bars(verdict: Verdict, cost: Cost) -> Element:
    records = [(record, float(getattr(record, cost) or 0.0)) for record in verdict.found.records]
    spared = {record.number: saved_seconds(record, verdict.settings.reports) for record, _ in records}
    saved = spared if cost == "seconds" else dict.fromkeys(spared, 0.0)
    tops = [spent + saved[record.number] for record, spent in records]
    numbers = Linear.around([record.number for record, _ in records], whole=True)
    size = Size()
    chart = Chart(
        Axis(numbers, "trial"),
        Axis(Linear(0.0, 1.06 * max(tops)), UNITS[cost]),
        size=size,
        says=f"{UNITS[cost]} of each trial",
    )
    width = max(1.0, 0.7 * size.width / (numbers.high - numbers.low))
    for record, spent in records:
        if saved[record.number]:
            chart.bar(record.number, spent, spent + saved[record.number], "spared", width=width, trial=record.number)
        chart.bar(record.number, 0.0, spent, verdict.kind(record), width=width, trial=record.number)
    says = "Outlined: about what it saved to stop the trial." if any(saved.values()) else ""
    return figure(f"{TITLES[cost].capitalize()} of each trial", says, chart.svg)
