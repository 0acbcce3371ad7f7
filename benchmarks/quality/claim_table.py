"""The tables of docs/results/protocol.md in Markdown, and its pictures, from the cells alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.quality.claim_cells import ClaimCell, read_cells
from benchmarks.quality.claim_lines import Compared, Line, find
from benchmarks.quality.claim_pictures import PICTURES, picture
from benchmarks.quality.claim_plan import Protocol
from benchmarks.speed.tables import table
from pipelines.contracts.interval import Interval
from pipelines.files import write_text
from pipelines.markdown import code
from pipelines.model.intervals import detectable, holm, least_rows
from pipelines.wording import measure_words, points, relative

HEADER = (
    "line", "test rows", "spread", "seeds", "loss, nats", "trained numbers", "rate (trials)", "validation rows",
    "training, s", "all trials, s", "perplexity of neutral text",
)  # fmt: skip
COMPARED = ("task", "lines", "difference, points", "seeds", "p", "p, Holm", "verdict")

ABOUT = """\
Written by `python -m benchmarks.quality.claim --table` from the files in `cells/`; [the protocol](protocol.md) says
what they are and how they are read. Intervals are of other test rows and, of more than one seed, of other seeds too;
the spread is the standard deviation over seeds. Loss is minus the logarithm of the probability of the right answer
among a row's answers. A rate was chosen by the validation rows, in as many trials as stand behind it. Seconds are of
the processor, one thread: of one training, and of all trials with asking their rows. Perplexity is a change against the
frozen base's."""


def report(cells: Mapping[str, ClaimCell], protocol: Protocol, confidence: float) -> str:
    """The tables in Markdown: of each task its lines, then the comparisons."""
    found = find(cells, protocol, confidence)
    parts = []
    for task in protocol.plan.tasks:
        lines = [line for line in found.lines if line.task == task]
        if lines:
            one = next(cell for cell in cells.values() if cell.task == task)
            parts.append(f"{_heading(one)}\n\n{table(HEADER, map(_row, lines))}")
    return "\n".join([*parts, f"## Comparisons\n\n{table(COMPARED, _rows(found.compared, confidence))}"])


def _heading(cell: ClaimCell) -> str:
    unread = ", ".join(f"{name} {100 * value:.1f} %" for name, value in cell.baselines.items())
    rows = f"{measure_words(cell.measure).capitalize()} of {len(cell.groups)} test rows"
    return f"## {cell.task}\n\n{rows}{f'; answers that read no prompt: {unread}' if unread else ''}."


def _row(line: Line) -> list[str]:
    change = line.forgetting
    return [
        line.name,
        f"{100 * line.value.value:.1f} % ({100 * line.value.low:.1f} to {100 * line.value.high:.1f})",
        "" if line.spread is None else f"{100 * line.spread:.1f}",
        "" if line.rate is None else f"{line.seeds}{f', {line.failed} failed' if line.failed else ''}",
        f"{line.loss:.3f}",
        f"{line.parameters:,}",
        "" if line.rate is None else f"{line.rate:g} ({line.trials})",
        f"{100 * line.validation:.1f} %",
        "" if line.rate is None else f"{line.train:.0f}",
        "" if line.rate is None else f"{line.tuning:.0f}",
        "" if change is None else f"{relative(change.value)} ({relative(change.low)} to {relative(change.high)})",
    ]


def _rows(compared: Sequence[Compared], confidence: float) -> list[list[str]]:
    """Those that were measured; in the adjustment each that was not counts as one that shows nothing."""
    adjusted = holm([1.0 if one.lead is None else one.lead.p_value for one in compared])
    return [
        [
            code(one.task),
            f"{one.lines[0]} over {one.lines[1]}",
            _difference(one.lead.difference),
            str(one.seeds),
            f"{one.lead.p_value:.2g}",
            f"{p_value:.2g}",
            _verdict(one, p_value, confidence),
        ]
        for one, p_value in zip(compared, adjusted, strict=True)
        if one.lead is not None
    ]


def _difference(found: Interval) -> str:
    return f"{100 * found.value:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"


def _verdict(one: Compared, p_value: float, confidence: float) -> str:
    """What may be said, by interval, test and adjustment together."""
    assert one.lead is not None
    assert one.how is not None
    assert one.measure is not None
    found = one.lead.difference
    if one.how.units < least_rows(confidence):
        return "too few rows"
    if p_value < 1 - confidence and (found.low > 0 or found.high < 0):
        return "better" if found.low > 0 else "worse"
    least = detectable(found, one.how, one.measure)
    return "not told apart" if least is None else f"not told apart: it takes {points(least, sign=False)}"


def counted(cells: Mapping[str, ClaimCell], protocol: Protocol) -> str:
    """How far the plan has come."""
    names = [step.file for step in protocol.steps()]
    promised, versions = protocol.promised(), len({cell.code for cell in cells.values()})
    done, more = sum(name in cells for name in names[:promised]), len(cells.keys() - set(names))
    spent = sum(cell.train_cpu + sum(asked.cpu for asked in cell.every_asked()) for cell in cells.values()) / 60
    return (
        f"{done} of the {promised} cells of the protocol's {protocol.plan.hours:g} hours are measured, and {more} "
        f"further trials of lines whose best learning rate stood at an end: {spent:.0f} minutes of the processor, by "
        f"{versions} version{'s' if versions > 1 else ''} of the code.\n"
    )


def write_tables(folder: Path, protocol: Protocol, confidence: float) -> None:
    """Write tables.md beside a folder of cells, and the pictures of what was asked test rows."""
    cells = read_cells(folder, protocol.sha256)
    lines = find(cells, protocol, confidence).lines
    for name, axis in PICTURES.items() if lines else ():
        write_text(folder.parent / name, picture(lines, axis))
    write_text(folder.parent / "tables.md", page(cells, protocol, confidence))


def page(cells: Mapping[str, ClaimCell], protocol: Protocol, confidence: float) -> str:
    """The page of all tables."""
    said = f"# Tables\n\n{counted(cells, protocol)}\n{ABOUT}\n"
    if not any(cell.test for cell in cells.values()):
        return said
    pictures = "".join(f"\n![{axis.words}]({name})\n" for name, axis in PICTURES.items())
    return f"{said}\n{report(cells, protocol, confidence)}{pictures}"
