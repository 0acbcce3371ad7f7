"""Runs parts one after the other: each within its time, its file written as soon as it is over, whatever ended it."""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.gpu.bench import Bench, Figure, Part
from benchmarks.gpu.limit import OutOfTimeError, or_else, within

GRACE = 30.0  # seconds that a part has to come back when its time is over
OK, FAILED, LATE = "ok", "failed", "out of time"


@dataclass
class Outcome:
    """What a part has come to.

    Attributes:
        part: its name.
        title: what it shows.
        status: how it ended.
        seconds: that it took.
        limit: that it might take.
        error: what ended it; None where nothing did.
        figures: those that it gave by then.
    """

    part: str
    title: str
    status: str
    seconds: float
    limit: float
    error: str | None = None
    figures: list[Figure] = field(default_factory=list)


def run_parts(
    bench: Bench, parts: Sequence[Part], out: Path, minutes: float, tell: Callable[[Outcome], None]
) -> list[Outcome]:
    """Run parts and return what they came to.

    Args:
        bench: the device.
        parts: in their order.
        out: folder of their files, NAME.json each.
        minutes: of all parts together; each has its share of them, and what an earlier one left.
        tell: called with each outcome.
    """
    found: list[Outcome] = []
    spare, whole = 0.0, sum(part.share for part in parts)
    for part in parts:
        limit = spare + minutes * 60 * part.share / whole
        outcome = _run(bench, part, out, limit)
        spare = max(0.0, limit - outcome.seconds)
        found.append(outcome)
        tell(outcome)
    return found


def _run(bench: Bench, part: Part, out: Path, limit: float) -> Outcome:
    outcome = Outcome(part.name, part.title, OK, 0.0, limit)
    started = time.monotonic()

    def give_up() -> None:
        outcome.status, outcome.error = LATE, "it did not come back when its time was over; the run ends here"
        outcome.seconds = time.monotonic() - started
        _write(out, outcome)
        os._exit(3)

    try:
        with or_else(limit + GRACE, give_up), within(limit):
            for figure in part.measure(bench):
                outcome.figures.append(figure)
    except OutOfTimeError as error:
        outcome.status, outcome.error = LATE, str(error)
    except Exception as error:  # noqa: BLE001  the other parts are wanted whatever became of this one
        outcome.status, outcome.error = FAILED, f"{type(error).__name__}: {error}\n{traceback.format_exc()}"
    outcome.seconds = time.monotonic() - started
    _write(out, outcome)
    bench.tidy()
    return outcome


def _write(out: Path, outcome: Outcome) -> None:
    """Write an outcome under another name first: a file that is there is whole."""
    path = out / f"{outcome.part}.json"
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(asdict(outcome), indent=1, default=str) + "\n", encoding="utf-8")
    beside.replace(path)
