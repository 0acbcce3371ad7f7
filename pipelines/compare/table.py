"""What a comparison came to: the table as Markdown and CSV, and the picture of accuracy against trained parameters."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

import numpy as np
from scipy import stats

from pipelines.compare.cells import Cell, Contender
from pipelines.contracts.interval import Interval
from pipelines.model.intervals import paired_difference
from pipelines.params.whole import EvaluateParams


@dataclass(frozen=True)
class Comparison:
    """The frozen base's cell; and of each contender, the cells that chose its learning rate, and the measured ones."""

    base: Cell
    lines: tuple[tuple[Contender, tuple[Cell, ...], tuple[Cell, ...]], ...]


@dataclass(frozen=True)
class Line:
    """A line of the table.

    Attributes:
        name: of the contender.
        learning_rate: the chosen one; None of the base, and of one that never trained.
        seeds: how many runs there are.
        accuracy: the mean over the seeds, with its confidence interval over the test rows; None if a run failed.
        spread: the sample's standard deviation over the seeds; None for fewer than two.
        difference: the paired difference to the first contender, with its interval; None of that and where one failed.
        parameters: trained numbers.
        seconds: of a training, the mean over the seeds.
        memory_mb: at its height, the highest over the seeds.
        note: why there are no figures.
    """

    name: str
    learning_rate: float | None
    seeds: int
    accuracy: Interval | None
    spread: float | None
    difference: Interval | None
    parameters: int
    seconds: float
    memory_mb: float
    note: str


def lines_of(found: Comparison, settings: EvaluateParams) -> list[Line]:
    """The table's lines: the frozen base, then the contenders in their order."""
    measured = [cells for _, _, cells in found.lines]
    first = next((_means(cells) for cells in measured if _stood(cells)), None)
    made = [_line(found.base.name, (found.base,), first, settings)]
    for contender, tuning, cells in found.lines:
        if cells:
            made.append(_line(contender.name, cells, first, settings))
        else:
            note = "; ".join(sorted({cell.error or "" for cell in tuning}))
            made.append(Line(contender.name, None, 0, None, None, None, 0, 0.0, 0.0, note))
    return made


def _stood(cells: Sequence[Cell]) -> bool:
    return bool(cells) and all(cell.accuracy is not None for cell in cells)


def _means(cells: Sequence[Cell]) -> np.ndarray:
    """Of each test row, the share of the seeds that answered it right."""
    return np.mean([cell.right for cell in cells], axis=0)


def _line(name: str, cells: Sequence[Cell], first: np.ndarray | None, settings: EvaluateParams) -> Line:
    accuracies = [cell.accuracy for cell in cells if cell.accuracy is not None]
    stood = _stood(cells)
    difference = None
    if stood and first is not None and not np.array_equal(_means(cells), first):
        difference = _paired(_means(cells), first, settings)
    return Line(
        name=name,
        learning_rate=cells[0].learning_rate,
        seeds=0 if cells[0].seed is None else len(cells),
        accuracy=_interval(cells, settings) if stood else None,
        spread=stdev(accuracies) if stood and len(accuracies) > 1 else None,
        difference=difference,
        parameters=cells[0].parameters,
        seconds=mean(cell.train_seconds for cell in cells),
        memory_mb=max(cell.memory_mb for cell in cells),
        note="; ".join(sorted({cell.error for cell in cells if cell.error})),
    )


def _interval(cells: Sequence[Cell], settings: EvaluateParams) -> Interval:
    """Of one run Wilson's, as in stage evaluate; of several, rows are resampled, each with its mean over the seeds."""
    means = _means(cells)
    if len(cells) > 1:
        return _paired(means, np.zeros_like(means), settings)
    right = int(means.sum())
    found = stats.binomtest(right, len(means)).proportion_ci(settings.confidence, method="wilson")
    return Interval(right / len(means), float(found.low), float(found.high))


def _paired(one: np.ndarray, other: np.ndarray, settings: EvaluateParams) -> Interval:
    return paired_difference(one, other, confidence=settings.confidence, resamples=settings.bootstrap, seed=0)


def heading(found: Comparison, settings: EvaluateParams, title: str) -> str:
    """What the table's figures are of."""
    rows, confidence = len(found.base.right), f"{settings.confidence:.0%}"
    reference = next((method.name for method, _, cells in found.lines if _stood(cells)), "no method, as all failed")
    return (
        f"Accuracy on {rows} test rows with {confidence} intervals, the mean over the seeds (spread: standard "
        f"deviation over the seeds); differences are paired, to {reference}. {title}."
    )


def markdown(lines: Sequence[Line]) -> str:
    """The lines as a Markdown table."""
    header = (
        "method", "accuracy", "spread", "difference, points", "learning rate", "seeds", "trained numbers",
        "training, s", "peak memory, MB",
    )  # fmt: skip
    rows = [
        (
            line.name,
            _percent(line.accuracy) if line.accuracy else f"failed: {line.note}".replace("|", "/"),
            "" if line.spread is None else f"{100 * line.spread:.1f}",
            "" if line.difference is None else _points(line.difference),
            "" if line.learning_rate is None else f"{line.learning_rate:g}",
            line.seeds or "",
            f"{line.parameters:,}",
            f"{line.seconds:.0f}",
            f"{line.memory_mb:,.0f}",
        )
        for line in lines
    ]
    text = [header, ("---", *["---:"] * (len(header) - 1)), *rows]
    return "".join(f"| {' | '.join(map(str, row))} |\n" for row in text)


def csv_text(lines: Sequence[Line]) -> str:
    """The lines as CSV, every figure with all its digits."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    three = [f"{name}{end}" for name in ("accuracy", "difference") for end in ("", "_low", "_high")]
    writer.writerow(
        ["method", *three, "spread", "learning_rate", "seeds", "parameters", "train_seconds", "memory_mb", "note"]
    )
    for line in lines:
        ends = [
            value
            for interval in (line.accuracy, line.difference)
            for value in ((interval.value, interval.low, interval.high) if interval else ("", "", ""))
        ]
        rest = [line.spread, line.learning_rate, line.seeds, line.parameters, line.seconds, line.memory_mb, line.note]
        writer.writerow([line.name, *ends, *("" if value is None else value for value in rest)])
    return out.getvalue()


def _percent(interval: Interval) -> str:
    return f"{100 * interval.value:.1f} % ({100 * interval.low:.1f} to {100 * interval.high:.1f})"


def _points(interval: Interval) -> str:
    return f"{100 * interval.value:+.1f} ({100 * interval.low:+.1f} to {100 * interval.high:+.1f})"
