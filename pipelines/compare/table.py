"""What a comparison came to: the table as Markdown and CSV, and the picture of figures against trained parameters."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean, stdev

import numpy as np

from pipelines.compare.cells import Cell, Contender
from pipelines.compare.untrained import Untrained
from pipelines.contracts.evaluation import Against
from pipelines.contracts.interval import Interval
from pipelines.diagnostics.forgetting import perplexity, perplexity_change
from pipelines.markdown import table, text
from pipelines.model.intervals import Ints, Resampling, against, detectable, figure, least_rows, measured_difference
from pipelines.params.whole import EvaluateParams
from pipelines.tasks.measures import Floats, Measure
from pipelines.wording import measure_words, points, relative

CHANCE = "not more than chance"


@dataclass(frozen=True)
class Comparison:
    """The measure, the frozen base's cell, and each contender's: those that chose its learning rate, and the others.

    ``baselines`` are the figures of answers that read no prompt, by name; ``groups`` the numbers of the test rows'
    groups; ``passages`` those of the passages that each predicted token of neutral text is of; ``others`` the
    tasks that were not trained.
    """

    measure: Measure
    base: Cell
    lines: tuple[tuple[Contender, tuple[Cell, ...], tuple[Cell, ...]], ...]
    baselines: Mapping[str, float]
    groups: Ints
    passages: Ints
    others: tuple[Untrained, ...] = ()


@dataclass(frozen=True)
class Line:
    """A line of the table.

    Attributes:
        name: of the contender.
        learning_rate: the chosen one; None of the base, and of one that never trained.
        seeds: how many runs there are.
        value: the mean over the seeds, with its confidence interval over test rows and seeds; None if a run failed.
        spread: the sample's standard deviation over the seeds; None for fewer than two.
        difference: the paired difference to the first contender, with its interval; None of that and where one failed.
        p_value: of the exact paired test of that difference; None where there is none.
        detectable: the least true difference that these rows show; None where there is none.
        verdict: what may be said of it, by the rule of stage evaluate; "" where there is none.
        parameters: trained numbers.
        seconds: of a training, the mean over the seeds.
        memory_mb: at its height, the highest over the seeds.
        note: why there are no figures.
        perplexity: on neutral text, of all runs together; None where one failed.
        forgetting: how much higher it is than the base's, with its interval; None of the base, and where one failed.
    """

    name: str
    learning_rate: float | None
    seeds: int
    value: Interval | None
    spread: float | None
    difference: Interval | None
    p_value: float | None
    detectable: float | None
    verdict: str
    parameters: int
    seconds: float
    memory_mb: float
    note: str
    perplexity: float | None = None
    forgetting: Interval | None = None


def lines_of(found: Comparison, settings: EvaluateParams) -> list[Line]:
    """The table's lines: the frozen base, then the contenders in their order."""
    measured = [cells for _, _, cells in found.lines]
    first = next((_scores(cells) for cells in measured if _stood(cells)), None)
    how = Resampling(settings.confidence, settings.bootstrap, 0, found.groups)
    made = [_line(found.measure, found.base.name, (found.base,), first, how)]
    made = [replace(made[0], perplexity=perplexity(np.array(found.base.neutral)))]
    for contender, tuning, cells in found.lines:
        if cells:
            line = _line(found.measure, contender.name, cells, first, how)
            made.append(_with_forgetting(line, cells, found, settings) if _stood(cells) else line)
        else:
            note = "; ".join(sorted({cell.error or "" for cell in tuning}))
            made.append(Line(contender.name, None, 0, None, None, None, None, None, "", 0, 0.0, 0.0, note))
    return made


def _with_forgetting(line: Line, cells: Sequence[Cell], found: Comparison, settings: EvaluateParams) -> Line:
    """The line with what its runs say of neutral text, against the frozen base; passages and seeds are drawn anew."""
    runs = [np.array(cell.neutral) for cell in cells]
    how = Resampling(settings.confidence, settings.bootstrap, 0, found.passages)
    change = perplexity_change(runs, np.array(found.base.neutral), how)
    return replace(line, perplexity=perplexity(np.concatenate(runs)), forgetting=change)


def _stood(cells: Sequence[Cell]) -> bool:
    return bool(cells) and all(cell.value is not None for cell in cells)


def _scores(cells: Sequence[Cell]) -> list[Floats]:
    """Of each seed, the scores of the test rows."""
    return [np.array(cell.scores) for cell in cells]


def _line(measure: Measure, name: str, cells: Sequence[Cell], first: list[Floats] | None, how: Resampling) -> Line:
    values = [cell.value for cell in cells if cell.value is not None]
    stood = _stood(cells)
    lead, verdict = None, ""
    if stood and first is not None and not np.array_equal(np.mean(_scores(cells), axis=0), np.mean(first, axis=0)):
        lead, verdict = lead_over(measure, _scores(cells), first, how)
    return Line(
        name=name,
        learning_rate=cells[0].learning_rate,
        seeds=0 if cells[0].seed is None else len(cells),
        value=figure_of(measure, _scores(cells), how) if stood else None,
        spread=stdev(values) if stood and len(values) > 1 else None,
        difference=None if lead is None else lead.difference,
        p_value=None if lead is None else lead.p_value,
        detectable=None if lead is None else detectable(lead.difference, how, measure),
        verdict=verdict,
        parameters=cells[0].parameters,
        seconds=mean(cell.train_seconds for cell in cells),
        memory_mb=max(cell.memory_mb for cell in cells),
        note="; ".join(sorted({cell.error for cell in cells if cell.error})),
    )


def lead_over(measure: Measure, one: Sequence[Floats], other: Sequence[Floats], how: Resampling) -> tuple[Against, str]:
    """The lead of one system over another, of each the rows' scores of every run, and what may be said of it."""
    lead, lag = (against(measure, *sides, how) for sides in ((one, other), (other, one)))
    if how.units < least_rows(how.confidence):
        return lead, "too few rows"
    return lead, "better" if lead.better else "worse" if lag.better else CHANCE


def figure_of(measure: Measure, runs: Sequence[Floats], how: Resampling) -> Interval:
    """The figure of runs by the rows' scores: of one as in stage evaluate; of several, rows and seeds are resampled."""
    return measured_difference(measure, runs, [], how) if len(runs) > 1 else figure(measure, runs[0], how)


def heading(found: Comparison, settings: EvaluateParams, title: str) -> str:
    """What the table's figures are of."""
    rows, groups, confidence = len(found.base.scores), len(set(found.groups.tolist())), f"{settings.confidence:.0%}"
    grouped = f" in {groups} groups" if groups < rows else ""
    reference = next((method.name for method, _, cells in found.lines if _stood(cells)), "no method, as all failed")
    measure = measure_words(found.measure.name).capitalize()
    return (
        f"{measure} on {rows} test rows{grouped} with {confidence} intervals, the mean over the seeds (spread: "
        "standard deviation over the seeds; intervals are of other rows and other seeds); differences are paired, to "
        f"{text(reference)}. Their p is that of the exact test (McNemar's; of means over seeds the sign test; of "
        "groups of rows, exchanged signs), and better or worse is what interval and test agree on, of "
        f"{least_rows(settings.confidence)} rows or groups or more; beside what is not more than chance stands the "
        "least difference that these rows show with 80 % power. Perplexity is that of the second halves of "
        f"{int(found.passages.max()) + 1} passages of neutral text, behind the first halves with edits as on a prompt; "
        f"its change is against the frozen base. {_baselines(found)}{text(title)}."
    )


def _baselines(found: Comparison) -> str:
    said = ", ".join(f"{text(name)} {100 * value:.1f} %" for name, value in found.baselines.items())
    return f"Answers that read no prompt: {said}. " if said else ""


def markdown(lines: Sequence[Line], measure: str) -> str:
    """The lines as a Markdown table."""
    header = (
        "method", measure_words(measure), "spread", "difference, points", "p", "verdict", "learning rate", "seeds",
        "perplexity on neutral text", "trained numbers", "training, s", "peak memory, MB",
    )  # fmt: skip
    rows = [
        (
            line.name,
            percent_words(line.value) if line.value else f"failed: {line.note}",
            "" if line.spread is None else f"{100 * line.spread:.1f}",
            "" if line.difference is None else difference_words(line.difference),
            "" if line.p_value is None else f"{line.p_value:.2g}",
            verdict_words(line.verdict, line.detectable),
            "" if line.learning_rate is None else f"{line.learning_rate:g}",
            str(line.seeds or ""),
            _forgetting(line),
            f"{line.parameters:,}",
            f"{line.seconds:.0f}",
            f"{line.memory_mb:,.0f}",
        )
        for line in lines
    ]
    cells = [[text(cell) for cell in row] for row in rows]
    return "".join(f"{line}\n" for line in table(header, cells, right=range(1, len(header))))


def _forgetting(line: Line) -> str:
    if line.perplexity is None:
        return ""
    found, change = f"{line.perplexity:.5g}", line.forgetting
    if change is None:
        return found
    return f"{found}, {relative(change.value)} ({relative(change.low)} to {relative(change.high)})"


def verdict_words(verdict: str, least: float | None) -> str:
    """A verdict; of what is not more than chance with the least true difference that would have shown."""
    return f"{CHANCE}: it takes {points(least, sign=False)}" if verdict == CHANCE and least is not None else verdict


def csv_text(lines: Sequence[Line], measure: str) -> str:
    """The lines as CSV, every figure with all its digits."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    three = [f"{name}{end}" for name in (measure, "difference") for end in ("", "_low", "_high")]
    own = (
        "spread",
        "learning_rate",
        "seeds",
        "parameters",
        "train_seconds",
        "memory_mb",
        "note",
        "p_value",
        "detectable",
        "verdict",
        "perplexity",
        "perplexity_change",
        "perplexity_change_low",
        "perplexity_change_high",
    )
    writer.writerow(["method", *three, *own])
    for line in lines:
        ends = [
            value
            for interval in (line.value, line.difference)
            for value in ((interval.value, interval.low, interval.high) if interval else ("", "", ""))
        ]
        rest = [
            line.spread, line.learning_rate, line.seeds, line.parameters, line.seconds, line.memory_mb, line.note,
            line.p_value, line.detectable, line.verdict, line.perplexity,
        ]  # fmt: skip
        change = line.forgetting
        rest += [None] * 3 if change is None else [change.value, change.low, change.high]
        writer.writerow([line.name, *ends, *("" if value is None else value for value in rest)])
    return out.getvalue()


def percent_words(interval: Interval) -> str:
    """A figure with its interval, in percent."""
    return f"{100 * interval.value:.1f} % ({100 * interval.low:.1f} to {100 * interval.high:.1f})"


def difference_words(interval: Interval) -> str:
    """A difference with its interval, in percentage points."""
    return f"{100 * interval.value:+.1f} ({100 * interval.low:+.1f} to {100 * interval.high:+.1f})"
