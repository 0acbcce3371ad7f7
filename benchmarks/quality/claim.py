"""Does ReFT keep its promise, and which recipes win? The cells of docs/results/protocol.md, in its order.

Rows are those of the folder that the variable REFT_BENCH_DATA names, the base is that of params.yaml. Each cell is a
JSON file in --out with the sha256 of the protocol; one that is there is never made again, so test rows are asked once a
cell, and what was stopped goes on. --table reads the cells alone. One thread of one core.
"""

from __future__ import annotations

import datetime
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality.cells import VARIABLE
from benchmarks.quality.claim_cells import ClaimCell, read_cells
from benchmarks.quality.claim_plan import Figures, Protocol, Step, chosen, next_rate
from benchmarks.quality.library_cells import write_cell
from benchmarks.sides.arguments import number, parser
from pipelines.errors import PipelineError
from pipelines.yaml_file import read_yaml

PROTOCOL = Path("docs/results/protocol.md")
CELLS = Path("docs/results/cells")


def tried(cells: Mapping[str, ClaimCell], task: str, line: str) -> dict[float, Figures | None]:
    """The figures of a line's trials on validation rows, by learning rate."""
    trials = [cell for cell in cells.values() if (cell.task, cell.line, cell.purpose) == (task, line, "tuning")]
    return {cell.learning_rate or 0.0: figures_of(cell) for cell in trials}


def figures_of(cell: ClaimCell) -> Figures | None:
    """The measure and the loss of the validation rows; None of a training that failed."""
    from benchmarks.quality.claim_lines import measure_of

    if cell.validation is None:
        return None
    return measure_of(cell).add_up(np.array(cell.validation.scores, dtype=np.float64)), cell.validation.loss


def further(protocol: Protocol, step: Step, cells: Mapping[str, ClaimCell]) -> Step | None:
    """The trial that is to come before a step because the best rate so far is at an end; None where none is."""
    if step.purpose not in ("test", "whole"):
        return None
    found = tried(cells, step.task, step.line)
    rate = next_rate(protocol.plan.lines[step.line], found, protocol.plan.most_trials)
    if rate is None:
        return None
    like = next(
        each for each in protocol.steps() if (each.task, each.line, each.purpose) == (step.task, step.line, "tuning")
    )
    return Step(step.task, step.line, "tuning", protocol.plan.seed, len(found), like.seconds)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make cells until the time is over, or say what is left, or write the tables; 2 if there are no data."""
    words = parser("benchmarks.quality.claim", __doc__, out=f"folder of the cells (default: {CELLS})")
    words.add_argument("--protocol", type=Path, default=PROTOCOL, help=f"(default: {PROTOCOL})")
    words.add_argument("--work", type=Path, default=Path("plots/claim"), help="folder of rows and trainings")
    words.add_argument("--minutes", type=number, help="begin no cell that would end later (default: make all)")
    words.add_argument("--until", type=_clock, help="the same, as HH:MM")
    words.add_argument("--list", action="store_true", help="print what is left, with its seconds, and end")
    words.add_argument("--table", action="store_true", help="write tables and pictures beside the cells, and end")
    given = words.parse_args(arguments)
    out = given.out or given.root / CELLS
    try:
        protocol = Protocol.read(given.root / given.protocol)
        if given.table:
            from benchmarks.quality.claim_table import write_tables

            raw: Any = read_yaml(given.root / "params.yaml")
            write_tables(out, protocol, raw["evaluate"]["confidence"])
        elif given.list:
            print(listed(protocol, read_cells(out, protocol.sha256)), end="")
        else:
            ends = [time.time() + 60 * given.minutes] if given.minutes else []
            _make(protocol, given, out, min([*ends, *([given.until] if given.until else [])], default=float("inf")))
    except PipelineError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def listed(protocol: Protocol, cells: Mapping[str, ClaimCell]) -> str:
    """What is there and what is left, a line for each cell that is not, with its seconds."""
    steps, promised = protocol.steps(), protocol.promised()
    places = {place: step for place, step in enumerate(steps) if step.file not in cells}
    missing = [step for place, step in places.items() if place < promised]
    lines = [
        f"{promised} of the plan's {len(steps)} cells take {protocol.plan.hours:g} hours; of these "
        f"{promised - len(missing)} are there, and {len(missing)} are left: "
        f"{sum(step.seconds for step in missing) / 60:.0f} minutes of one core."
    ]
    for place, step in places.items():
        beyond = "" if place < promised else ", beyond the hours"
        trial = f" {step.trial + 1}" if step.purpose == "tuning" else ""
        words = f"{step.task}, {step.line}, {step.purpose}{trial}, seed {step.seed}"
        lines.append(f"{words}: {step.seconds:.0f} s{beyond}")
    return "\n".join(lines) + "\n"


def _make(protocol: Protocol, given: Any, out: Path, end: float) -> None:
    """Make the cells that are not there, until one would end too late."""
    from benchmarks.quality.claim_task import ClaimTask

    data = os.environ.get(VARIABLE)
    if not data:
        raise PipelineError(f"the rows are in the folder that {VARIABLE} names", got="nothing", do="Set it.")
    raw: Any = read_yaml(given.root / "params.yaml")
    opened: ClaimTask | None = None
    there = read_cells(out, protocol.sha256)
    for planned in (step for step in protocol.steps() if step.file not in there):
        step: Step | None = planned
        while step is not None:
            cells = read_cells(out, protocol.sha256)
            step = further(protocol, planned, cells) or planned
            if time.time() + step.seconds > end:
                return
            if opened is None or opened.name != step.task:
                opened = ClaimTask(step.task, protocol, raw=raw, data=Path(data), place=given.work / step.task)
            _one(protocol, opened, step, cells, out)
            step = None if step is planned else planned


def _one(protocol: Protocol, task: Any, step: Step, cells: Mapping[str, ClaimCell], out: Path) -> None:
    found = tried(cells, step.task, step.line)
    rate = _rate(protocol, step, found)
    if rate is None and step.purpose != "base":
        print(f"{step.task}, {step.line}: no training stood, or the trials are over", file=sys.stderr, flush=True)
        return
    started = time.perf_counter()
    cell = task.make(step, rate)
    out.mkdir(parents=True, exist_ok=True)
    write_cell(out / cell.name, cell)
    if step.purpose == "tuning":
        task.keep(step.line, chosen(found | {rate or 0.0: figures_of(cell)}))
    spent = time.perf_counter() - started
    print(f"{cell.name}: {cell.error or _said(cell)}; {spent:.0f} s", file=sys.stderr, flush=True)


def _rate(protocol: Protocol, step: Step, found: Mapping[float, Figures | None]) -> float | None:
    if step.recipe is not None:
        return float(step.recipe["learning_rate"])
    if step.purpose == "base":
        return None
    if step.purpose == "tuning":
        return next_rate(protocol.plan.lines[step.line], found, protocol.plan.most_trials)
    return chosen(found)


def _said(cell: ClaimCell) -> str:
    from benchmarks.quality.claim_lines import measure_of

    parts = {split: asked for split in ("validation", "test") if (asked := getattr(cell, split)) is not None}
    figures = (
        f"{split} {measure_of(cell).add_up(np.array(asked.scores)):.3f}, loss {asked.loss:.3f}"
        for split, asked in parts.items()
    )
    return f"rate {cell.learning_rate or 0:g}, {'; '.join(figures)}, train {cell.train_cpu:.0f} s of the processor"


def _clock(text: str) -> float:
    hour, minute = (int(part) for part in text.split(":"))
    return datetime.datetime.now().astimezone().replace(hour=hour, minute=minute, second=0, microsecond=0).timestamp()


if __name__ == "__main__":
    sys.exit(main())
