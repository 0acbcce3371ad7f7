"""The table of `benchmarks.quality.library`, from its cells alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.quality.library_cells import (
    LIKELIHOOD,
    LORA,
    LOREFT,
    METHODS,
    LibraryCell,
    cell_path,
    measure_of,
    read_cell,
)
from benchmarks.speed.tables import table
from pipelines.compare.cells import BASE
from pipelines.contracts.evaluation import Against
from pipelines.contracts.interval import Interval
from pipelines.diagnostics.forgetting import perplexity, perplexity_change
from pipelines.errors import PipelineError
from pipelines.intake.library import task_names
from pipelines.markdown import code
from pipelines.model.intervals import Ints, Resampling, against, detectable, holm, least_rows
from pipelines.tasks.family import MAJORITY
from pipelines.tasks.measures import Floats, Measure
from pipelines.wording import measure_words, points, relative, share

RESAMPLES = 2000  # for each of the table's intervals
BETTER, WORSE = "better", "worse"
HEADER = (
    "task", "measure", "training rows", "test rows (groups)", "chance / majority", "frozen base", LOREFT, LORA,
    f"{LOREFT} over the base", f"{LOREFT} over {LORA}", "p, Holm", "verdict", f"perplexity, {LOREFT}",
    f"perplexity, {LORA}", f"seconds, {LOREFT}", f"seconds, {LORA}",
)  # fmt: skip


@dataclass(frozen=True)
class Compared:
    """A task with its cells.

    Attributes:
        cells: by method; those that failed have no scores.
        measure: what the scores of rows add up to.
        over_base: LoReFT's lead over the frozen base; None where a cell is missing or failed.
        over_lora: its lead over LoRA, with the exact test of the difference, of either sign.
    """

    name: str
    cells: dict[str, LibraryCell]
    measure: Measure
    over_base: Against | None
    over_lora: Against | None

    @property
    def any_cell(self) -> LibraryCell:
        """One of the cells, for what they have in common."""
        return next(iter(self.cells.values()))


def read_tasks(folder: Path, confidence: float) -> list[Compared]:
    """Every task of the library that has cells in a folder, in the library's order.

    Raises:
        PipelineError: if there is none, or the cells of a task are of other rows.
    """
    found = [_compared(name, folder, confidence) for name in task_names() if any(_paths(folder, name))]
    if not found:
        raise PipelineError("the folder must have cells", got=folder, do="Run it without --table.")
    return found


def _paths(folder: Path, name: str) -> Iterable[tuple[str, Path]]:
    return ((method, path) for method in METHODS if (path := cell_path(folder, name, method)).is_file())


def _compared(name: str, folder: Path, confidence: float) -> Compared:
    cells = {method: read_cell(path) for method, path in _paths(folder, name)}
    if len({(cell.data, cell.rows, cell.epochs, cell.seed, cell.base) for cell in cells.values()}) > 1:
        raise PipelineError(f"the cells of {name} must be of one base, the same rows and epochs", got="others",
                            do="Remove those that are old.")  # fmt: skip
    measure = measure_of(next(iter(cells.values())))
    how = _resampling(next(iter(cells.values())), confidence)
    stood = {method: np.array(cell.scores, dtype=np.float64) for method, cell in cells.items() if cell.error is None}

    def lead(one: str, other: str) -> Against | None:
        return against(measure, [stood[one]], [stood[other]], how) if {one, other} <= stood.keys() else None

    return Compared(name, cells, measure, lead(LOREFT, BASE), lead(LOREFT, LORA))


def _resampling(cell: LibraryCell, confidence: float) -> Resampling:
    return Resampling(confidence, RESAMPLES, 0, np.array(cell.groups, dtype=np.int64))


def report(folder: Path, confidence: float) -> str:
    """The table in Markdown, what its columns are, and on which tasks LoReFT wins and loses."""
    tasks = read_tasks(folder, confidence)
    adjusted = holm([1.0 if task.over_lora is None else task.over_lora.p_value for task in tasks])
    lines = [_line(task, p_value, confidence) for task, p_value in zip(tasks, adjusted, strict=True)]
    verdicts = {task.name: _verdict(task, p, confidence) for task, p in zip(tasks, adjusted, strict=True)}
    return f"{_heading(tasks, confidence)}\n\n{table(HEADER, lines)}\n{_said(tasks, verdicts)}"


def _heading(tasks: Sequence[Compared], confidence: float) -> str:
    bases = sorted({task.any_cell.base for task in tasks})
    epochs = sorted({task.any_cell.epochs for task in tasks})
    rates = {method: sorted({task.cells[method].learning_rate or 0.0 for task in tasks if method in task.cells})
             for method in (LOREFT, LORA)}  # fmt: skip
    said = ", ".join(f"{method} {' and '.join(f'{rate:g}' for rate in own)}" for method, own in rates.items())
    return (
        f"{', '.join(bases)}; {' or '.join(map(str, epochs))} epochs, one seed; learning rates: {said}. Intervals of "
        f"{confidence:.0%} are paired and of other test rows, or groups of them. p is that of the exact test "
        "between LoReFT and LoRA, adjusted over the tasks of the table (Holm). Perplexity is that of neutral text, as "
        "a change against the frozen base. Seconds are of training + asking the test rows. Of instructions the figure "
        "is the loss of the references, in nats a token, and a difference says by how much less it is."
    )


def _line(task: Compared, p_value: float, confidence: float) -> list[str]:
    cell = task.any_cell
    groups = len(set(cell.groups))
    lead = task.over_lora
    return [
        code(task.name),
        "loss" if task.measure == LIKELIHOOD else measure_words(task.measure.name),
        str(cell.rows[0]),
        f"{len(cell.groups)}" + (f" ({groups})" if groups < len(cell.groups) else ""),
        _unread(cell),
        *(_figure(task, method) for method in METHODS),
        *(_difference(each, task.measure) for each in (task.over_base, lead)),
        "" if lead is None else f"{p_value:.2g}",
        _verdict(task, p_value, confidence),
        *(_forgetting(task, method, confidence) for method in (LOREFT, LORA)),
        *(_seconds(task, method) for method in (LOREFT, LORA)),
    ]


def _unread(cell: LibraryCell) -> str:
    """The figures of answers that read no prompt."""
    known = [cell.baselines.get(name) for name in ("chance", MAJORITY)]
    return (
        " / ".join("–" if value is None else share(value) for value in known)
        if any(value is not None for value in known)
        else ""
    )


def _figure(task: Compared, method: str) -> str:
    if method not in task.cells:
        return ""
    cell = task.cells[method]
    if cell.error is not None:
        return "failed"
    value = task.measure.add_up(np.array(cell.scores, dtype=np.float64))
    return f"{-value:.3f}" if task.measure == LIKELIHOOD else share(value)


def _difference(lead: Against | None, measure: Measure) -> str:
    if lead is None:
        return ""
    scale, digits = (1, 3) if measure == LIKELIHOOD else (100, 1)
    found = lead.difference
    low, high = (f"{scale * each:+.{digits}f}" for each in (found.low, found.high))
    return f"{scale * found.value:+.{digits}f} ({low} to {high})"


def _verdict(task: Compared, p_value: float, confidence: float) -> str:
    """What may be said of LoReFT beside LoRA, by interval, test and the adjustment over tasks together."""
    if task.over_lora is None:
        return ""
    how, found = _resampling(task.any_cell, confidence), task.over_lora.difference
    if how.units < least_rows(confidence):
        return "too few rows"
    if p_value < 1 - confidence and (found.low > 0 or found.high < 0):
        return BETTER if found.low > 0 else WORSE
    least = detectable(task.over_lora.difference, how, task.measure)
    if least is None:
        return "not told apart"
    return f"not told apart: it takes {f'{least:.3f}' if task.measure == LIKELIHOOD else points(least, sign=False)}"


def _forgetting(task: Compared, method: str, confidence: float) -> str:
    if not {BASE, method} <= task.cells.keys() or task.cells[method].error is not None:
        return ""
    found = forgotten(task.cells[BASE], task.cells[method], confidence)
    return f"{relative(found.value)} ({relative(found.low)} to {relative(found.high)})"


def forgotten(base: LibraryCell, cell: LibraryCell, confidence: float) -> Interval:
    """How much higher the perplexity of neutral text is, as a share of the base's; passages are drawn anew."""
    passages: Ints = np.repeat(np.arange(len(base.neutral)), [tokens for tokens, _ in base.neutral])
    how = Resampling(confidence, RESAMPLES, 0, passages)
    return perplexity_change([_tokens(cell)], _tokens(base), how)


def _tokens(cell: LibraryCell) -> Floats:
    """Nats of each token as its passage's mean, whose sums are what passages are drawn by."""
    found: Floats = np.concatenate([np.full(tokens, nats / tokens) for tokens, nats in cell.neutral])
    return found


def _seconds(task: Compared, method: str) -> str:
    if method not in task.cells:
        return ""
    return f"{task.cells[method].train_seconds:.0f} + {task.cells[method].score_seconds:.0f}"


def _all_seconds(cell: LibraryCell) -> float:
    return cell.train_seconds + cell.score_seconds


def _said(tasks: Sequence[Compared], verdicts: dict[str, str]) -> str:
    """Where LoReFT loses and wins, in words."""
    compared = [task for task in tasks if task.over_lora is not None]
    if not compared:
        return ""
    by_verdict = {word: [code(name) for name, own in verdicts.items() if own == word] for word in (BETTER, WORSE)}
    below = [code(task.name) for task in compared if task.over_lora and task.over_lora.difference.value < 0]
    above = [code(task.name) for task in compared if task.over_lora and task.over_lora.difference.value > 0]
    behind_base = [
        code(task.name) for task in tasks if task.over_base is not None and task.over_base.difference.value < 0
    ]
    seconds = {method: sum(task.cells[method].train_seconds for task in compared) for method in (LOREFT, LORA)}
    perplexities = {
        method: np.mean([perplexity(_tokens(task.cells[method])) / perplexity(_tokens(task.cells[BASE])) - 1
                         for task in compared if BASE in task.cells])
        for method in (LOREFT, LORA)
    }  # fmt: skip
    every = [cell for task in tasks for cell in task.cells.values()]
    return "".join([
        f"- Surely worse than LoRA: {_list(by_verdict[WORSE])}. Surely better: {_list(by_verdict[BETTER])}.\n",
        f"- Below LoRA, surely or not: {_list(below)}. Above: {_list(above)}.\n",
        f"- Below the frozen base, surely or not: {_list(behind_base)}.\n",
        f"- Seconds of all trainings: {', '.join(f'{name} {value:.0f}' for name, value in seconds.items())}. Mean ",
        f"change of perplexity: {', '.join(f'{name} {relative(float(v))}' for name, v in perplexities.items())}.\n",
        f"- All {len(every)} cells took {sum(map(_all_seconds, every)) / 60:.0f} minutes, trainings and asking.\n",
    ])  # fmt: skip


def _list(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
