"""The tables of `reft doctor`, `reft run --dry-run` and `reft clean`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from flows.runs.lines import lines_to_copy

if TYPE_CHECKING:  # what they import takes seconds to load
    from flows.commands.clean import Survey
    from flows.commands.plan import Planned
    from pipelines.upkeep.checkup import Finding

COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def findings_table(findings: Sequence[Finding]) -> RenderableType:
    """Each check, what was found, and below what to do."""
    table = Table(title="Findings", title_justify="left")
    for column in ("check", "state", "found"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        table.add_row(Text(finding.check), Text(finding.level, style=COLOURS[finding.level]), Text(finding.found))
    remedies = [(finding.check, finding.do) for finding in findings if finding.do]
    return Group(table, "", lines_to_copy("What to do", remedies)) if remedies else table


def plan_table(planned: Sequence[Planned]) -> Table:
    """What each stage would do, and why."""
    table = Table(title="Plan", title_justify="left")
    for column in ("stage", "would", "why"):
        table.add_column(column, overflow="fold")
    for one in planned:
        table.add_row(Text(one.stage), one.action, Text("\n".join(one.why)))
    return table


def survey_tables(survey: Survey) -> RenderableType:
    """What takes room, and what of it could go."""
    places = Table(title="What takes room", title_justify="left")
    places.add_column("place", overflow="fold")
    places.add_column("size", justify="right")
    places.add_column("what it is", overflow="fold")
    for holding in survey.holdings:
        places.add_row(Text(str(holding.path)), megabytes(holding.bytes), holding.what)
    unused = Table(title="What nothing refers to", title_justify="left")
    for column in ("kind", "name", "size", "why"):
        unused.add_column(column, overflow="fold")
    for leftover in survey.leftovers:
        bytes_ = "" if leftover.bytes is None else megabytes(leftover.bytes)
        unused.add_row(leftover.kind, Text(leftover.where), bytes_, leftover.why)
    if survey.unused_cached is None:
        unused.add_row("DVC's cache", "not looked at", "", "it is outside this project: other projects may use it")
    else:
        why = "in no commit and no experiment, and not in the workspace"
        unused.add_row("DVC's cache", f"{survey.unused_cached} files", "", why)
    return Group(places, "", unused)


def megabytes(count: int) -> str:
    """Bytes as megabytes with one decimal."""
    return f"{count / 1e6:.1f} MB"
