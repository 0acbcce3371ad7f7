"""The table of all trials on the report page, which its script sorts."""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree.ElementTree import Element

from pipelines.contracts.trials import TrialRecord
from pipelines.reports.markup import element
from pipelines.reports.search.study_charts import score
from pipelines.reports.search.verdict import Verdict
from pipelines.wording import part_value, share

STATES = {"chosen": "chosen", "complete": "complete", "pruned": "stopped early", "fail": "failed"}


@dataclass(frozen=True)
class _Cell:
    """What a cell says, and the number that its column is sorted by where its words do not do."""

    words: str
    number: float | None = None


def trial_table(verdict: Verdict) -> Element:
    """A row for each trial; the columns marked ``data-brief`` are what a chart tells of a trial under the pointer."""
    parts = [str(part) for part in verdict.found.space.parts()]
    brief = ["trial", "state", verdict.measure, *parts, "trained numbers", "seconds"]
    more = ["tokens", "memory (MB)", "seed", f"{verdict.measure} at each report", "over a limit", "error"]
    heads = [
        element(
            "th",
            {"scope": "col", "data-brief": "" if name in brief else None},
            element("button", {"type": "button"}, name),
        )
        for name in [*brief, *more]
    ]
    rows = [_row(verdict, record, parts) for record in verdict.found.records]
    return element(
        "div",
        {"class": "frame tall"},
        element(
            "table",
            {"class": "trials", "id": "trials"},
            element("thead", None, element("tr", None, *heads)),
            element("tbody", None, *rows),
        ),
    )


def _row(verdict: Verdict, record: TrialRecord, parts: list[str]) -> Element:
    kind, value = verdict.kind(record), score(record)
    ended = "" if record.value is not None or value is None else ", then stopped"
    cells = [
        _Cell(STATES[kind]),
        _Cell("" if value is None else f"{share(value)}{ended}", value),
        *(_part(record.params.get(part)) for part in parts),
        *map(_amount, (record.parameters, record.seconds, record.tokens, record.memory_mb)),
        _Cell(str(record.seed), record.seed),
        _Cell(", ".join(f"{100 * record.intermediate[report]:.1f}" for report in sorted(record.intermediate))),
        _Cell(", ".join(record.over)),
        _Cell(record.error or ""),
    ]
    head = element("th", {"scope": "row"}, str(record.number))
    body = [element("td", {"data-number": _plain(cell.number)}, cell.words) for cell in cells]
    return element("tr", {"class": kind, "data-row": str(record.number)}, head, *body)


def _part(value: object) -> _Cell:
    number = float(value) if isinstance(value, int | float) else None
    return _Cell("" if value is None else part_value(value), number)


def _amount(value: float | None) -> _Cell:
    if value is None:
        return _Cell("")
    return _Cell(f"{value:,.1f}".removesuffix(".0"), value)


def _plain(number: float | None) -> str | None:
    return None if number is None else repr(float(number))
