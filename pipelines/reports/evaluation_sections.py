"""What an evaluation found, section by section: the same on its page, on a model card and on a run's page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from itertools import groupby

from pipelines.contracts.diagnostics import CommonAnswer
from pipelines.contracts.evaluation import Evaluation, SystemFigures, TaskFigures
from pipelines.contracts.interval import Interval
from pipelines.reports.document import Block, Drawn, Figures, Paragraph, Section
from pipelines.reports.evaluation import (
    RELIABILITY_HEADER,
    SLICE_HEADER,
    TASK_HEADER,
    detectable_words,
    diagnostic_figures,
    other_figures,
    reliability_rows,
    rows_words,
    slice_rows,
    task_rows,
    tasks_words,
    warning_words,
)
from pipelines.reports.evaluation_charts import Compared, intervals, reliability
from pipelines.wording import many, measure_words, points, share

INTERVALS = (
    "The difference's interval is of other rows, drawn with replacement by groups; so is a system's own, but where "
    "rows are right or wrong, each by itself: there it is the score interval (Wilson 1927)."
)

OF_AN_ENCODER = " The frozen base is the encoder with a head that was trained without edits."


def evaluation_sections(evaluation: Evaluation, *, encoder: bool = False) -> list[Section]:
    """Figures of both systems beside the baselines, by task, slice and class, forgetting and calibration."""
    sections = [_figures(evaluation, encoder=encoder)]
    if evaluation.tasks:
        sections.append(_tasks(evaluation))
    if slice_rows(evaluation):
        sections.append(_slices(evaluation))
    if evaluation.adapter.per_class:
        sections.append(_classes(evaluation))
    sections.append(_beside(evaluation))
    return sections


def _figures(evaluation: Evaluation, *, encoder: bool) -> Section:
    measure = measure_words(evaluation.measure)
    warnings = [Paragraph(words, "warning") for words in warning_words(evaluation)]
    chart = partial(
        intervals,
        [Compared(rows_words(evaluation), _interval(evaluation.adapter), _interval(evaluation.base))],
        title="Adapter and frozen base",
        measure=measure,
        levels=evaluation.baselines,
        says="Each bar is an interval; dashed lines are answers that read no prompt.",
    )
    difference, p_value = evaluation.difference, evaluation.p_value
    rows = [_system("frozen base", evaluation.base), _system("adapter", evaluation.adapter)]
    rows += [[f"{name} baseline", share(value), ""] for name, value in evaluation.baselines.items()]
    reach = f"{100 * difference.low:+.1f} to {100 * difference.high:+.1f} points"
    rows.append(["paired difference", points(difference.value), reach])
    header = ("system", measure, f"{100 * evaluation.confidence:g} % interval")
    notes = [INTERVALS + (OF_AN_ENCODER if encoder else "")]
    if p_value is not None:
        notes.append(f"Exact paired test: p = {p_value:.2g}.")
    if least := detectable_words(evaluation):
        notes.append(f"So many rows show a difference of {least}.")
    others = [[name, base, adapter] for name, (base, adapter) in other_figures(evaluation).items()]
    blocks: list[Block] = [*warnings, Drawn(chart), Figures("Adapter and frozen base", header, rows)]
    if others:
        blocks.append(Figures("Other figures of all rows", ("also", "frozen base", "adapter"), others))
    return Section("Adapter and base", [*blocks, Paragraph(" ".join(notes), "small")])


def _tasks(evaluation: Evaluation) -> Section:
    charts = []
    for name, own in groupby(sorted(evaluation.tasks.items(), key=_measure), key=_measure):
        measure = measure_words(name)
        lines = [Compared(task, _interval(one.adapter), _interval(one.base)) for task, one in own]
        says = "Each task on its own test rows."
        charts.append(Drawn(partial(intervals, lines, title=f"Tasks by {measure}", measure=measure, says=says)))
    table = Figures("Tasks", TASK_HEADER, task_rows(evaluation))
    return Section("By task", [*charts, table, Paragraph(tasks_words(evaluation), "small")])


def _measure(named: tuple[str, TaskFigures]) -> str:
    return named[1].measure


def _slices(evaluation: Evaluation) -> Section:
    assert evaluation.diagnostics is not None
    measure = measure_words(evaluation.measure)
    charts = []
    for by, own in groupby(evaluation.diagnostics.slices, lambda one: one.by):
        lines = [Compared(f"{one.part} ({many(one.rows, 'row')})", one.adapter, one.base) for one in own]
        says = "Few rows have wide intervals."
        charts.append(Drawn(partial(intervals, lines, title=f"By {by.strip('{}')}", measure=measure, says=says)))
    return Section("By slice", [*charts, Figures("Slices", SLICE_HEADER, slice_rows(evaluation))])


def _classes(evaluation: Evaluation) -> Section:
    adapter, base = evaluation.adapter.per_class, evaluation.base.per_class
    names = [name for name in next(iter(adapter.values())) if name != "support"]
    words = {name: measure_words(name) for name in names}
    header = ("class or label", "rows", *(f"{words[name]}, {each}" for name in names for each in ("base", "adapter")))
    rows = [
        [part, _whole(own), *(f"{each[name]:.3f}" for name in names for each in (base[part], own))]
        for part, own in adapter.items()
    ]
    return Section("By class or label", [Figures("Classes or labels", header, rows)])


def _whole(figures: Mapping[str, float]) -> str:
    support = figures.get("support")
    return "" if support is None else f"{support:g}"


def _beside(evaluation: Evaluation) -> Section:
    """Forgetting, calibration and what else a figure alone does not show."""
    found, blocks = evaluation.diagnostics, list[Block]()
    if found is None:
        return Section("Forgetting and calibration", [Paragraph("The release that evaluated did not look at them.")])
    if found.calibration:
        blocks.append(Drawn(partial(reliability, found.calibration)))
    rows = [[name, words] for name, words in diagnostic_figures(evaluation).items()]
    rows += [
        [f"commonest answer, {name}", f"{one.answer!r}, of {share(one.share)} of the rows"]
        for name, one in _named(found.common)
    ]
    blocks.append(Figures("What a figure alone does not show", ("what", "found"), rows))
    if binned := reliability_rows(evaluation):
        blocks.append(Figures("Calibration of the adapter", RELIABILITY_HEADER, binned))
    return Section("Forgetting and calibration", blocks)


def _named(both: Mapping[str, CommonAnswer]) -> Iterable[tuple[str, CommonAnswer]]:
    return (("frozen base" if name == "base" else name, one) for name, one in both.items())


def _system(name: str, figures: SystemFigures) -> list[str]:
    return [name, share(figures.value), f"{share(figures.low)} to {share(figures.high)}"]


def _interval(figures: SystemFigures) -> Interval:
    return Interval(figures.value, figures.low, figures.high)
