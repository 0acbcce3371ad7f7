"""The page of two systems beside each other: who is better, by how much, and on which rows; and the files beside it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from pipelines.contracts.evaluation import SystemFigures
from pipelines.contracts.interval import Interval
from pipelines.contracts.predictions import write_predictions
from pipelines.evaluation.pair import Compared, PairFigures
from pipelines.evaluation.rows import rows_words
from pipelines.evaluation.systems import System
from pipelines.files import write_json, write_text
from pipelines.reports.differing import Names, differing_section
from pipelines.reports.document import Commands, Figures, Paragraph, Section, as_element, contents
from pipelines.reports.markup import element, page
from pipelines.wording import many, measure_words, points, share

SHOWN = 50  # rows that are won and as many that are lost; the file of predictions has all
PAIR_HEADER = ("task", "measure", "rows", "first", "second", "difference", "p, Holm", "better")


def write_pair(folder: Path, found: Compared, *, command: str, seed: int) -> Path:
    """Write page, figures and predictions, each whole, by the names of the two and of the rows; return the page."""
    name = _file_name(found)
    page_path = folder / f"{name}.html"
    write_predictions(folder / f"{name}.parquet", found.predictions)
    write_json(folder / f"{name}.json", _record(found))
    write_text(page_path, pair_page(found, command=command, seed=seed))
    return page_path


def pair_page(found: Compared, *, command: str, seed: int) -> str:
    """The page as HTML. The same comparison gives the same text: there is no time of day in it."""
    one, other = found.one.title, found.other.title
    sections = [
        Section("Figures", _figures(found)),
        differing_section(found.predictions, Names(one, other), seed=seed, shown=SHOWN),
        Section("Who was compared", [_lineage((found.one, found.other))]),
        Section("Command", [Commands([command])]),
    ]
    header = element(
        "header",
        None,
        element("h1", None, f"Is {one} better than {other}?"),
        element("p", {"class": "answer"}, pair_answer(found)),
        element("p", {"class": "study"}, f"Rows: {found.asked.title}. Seed: {seed}."),
        contents(sections),
    )
    return page(f"{one} and {other}", header, element("main", None, *map(as_element, sections)))


def pair_answer(found: Compared) -> str:
    """The answer in one sentence, with the interval and the chance."""
    figures, one, other = found.figures, found.one.title, found.other.title
    own = figures.difference
    ahead, lead = (one, own) if own.value >= 0 else (other, Interval(-own.value, -own.high, -own.low))
    by = f"{ahead} leads by {_lead(lead)} (p = {figures.p_value:.2g}, {figures.test})"
    on = many(figures.rows, "row") + ("" if figures.groups == figures.rows else f" in {many(figures.groups, 'group')}")
    if figures.better is not None:
        first, second = (one, other) if figures.better == "one" else (other, one)
        return f"{first} is better than {second}: {by} on {on}."
    if figures.groups < figures.least_rows:
        return f"No verdict, since it takes {figures.least_rows} rows, or groups of them: {by} on {on}."
    return f"No difference beyond chance between {one} and {other}: {by} on {on}."


def pair_rows(found: Compared) -> list[tuple[str, str]]:
    """What is said of both, line by line: a name and its value."""
    figures = found.figures
    measure = measure_words(figures.measure)
    rows = [(f"{title}, {measure}", _within(own)) for title, own in _named(found)]
    shared = [name for name in figures.one.summary if name in figures.other.summary]
    for name in shared:
        both = (f"{title} {own.summary[name]:.4g}" for title, own in _named(found))
        rows.append((measure_words(name), ", ".join(both)))
    rows += [
        ("paired difference", f"{_lead(figures.difference)} at {figures.confidence:.0%} confidence"),
        (figures.test, f"p = {figures.p_value:.3g}"),
    ]
    if figures.detectable is not None:
        rows.append(("least that so many rows show", points(figures.detectable, sign=False)))
    return rows


def pair_task_rows(figures: PairFigures) -> list[list[str]]:
    """Of a mixture, a line for each task under :data:`PAIR_HEADER`."""
    words = {"one": "first", "other": "second", None: "neither"}
    return [
        [
            name, measure_words(own.measure), str(own.rows), share(own.one.value), share(own.other.value),
            _lead(own.difference), f"{own.adjusted_p_value:.2g}", words[own.better],
        ]
        for name, own in figures.tasks.items()
    ]  # fmt: skip


def _figures(found: Compared) -> Sequence[Paragraph | Figures]:
    rows = [list(row) for row in pair_rows(found)]
    blocks: list[Paragraph | Figures] = [Figures("Figures", ("what", "value"), rows)]
    if found.figures.tasks:
        blocks.append(Figures("Tasks", PAIR_HEADER, pair_task_rows(found.figures)))
        blocks.append(Paragraph("First and second are the two as the title names them.", "small"))
    return [*blocks, *(Paragraph(words, "small") for words in rows_words(found.asked, found.unknown))]


def _lineage(both: Sequence[System]) -> Figures:
    rows = [
        [one.title, one.adapter_sha256 or "none: the frozen base", f"{one.record.source} ({one.record.sha256})"]
        for one in both
    ]
    return Figures("Who was compared", ("", "adapter, sha256", "base, and its sha256"), rows)


def _record(found: Compared) -> dict[str, object]:
    systems = {
        name: {"title": one.title, "adapter_sha256": one.adapter_sha256, "base_sha256": one.record.sha256}
        for name, one in (("one", found.one), ("other", found.other))
    }
    return {"format": 1, "rows": found.asked.title, "systems": systems, "figures": asdict(found.figures)}


def _named(found: Compared) -> Sequence[tuple[str, SystemFigures]]:
    return (found.one.title, found.figures.one), (found.other.title, found.figures.other)


def _within(own: SystemFigures) -> str:
    return f"{share(own.value)} [{share(own.low)}, {share(own.high)}]"


def _lead(difference: Interval) -> str:
    return f"{points(difference.value)} [{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]"


def _file_name(found: Compared) -> str:
    """What people read of the titles, and a hash of what a file name cannot hold: other scripts, and which adapters."""
    words = f"{found.one.title} and {found.other.title} on {found.asked.title}"
    readable = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")[:100]
    whole = [words, *(f"{one.adapter_sha256} {one.record.sha256}" for one in (found.one, found.other))]
    return f"{readable}-{hashlib.sha256(chr(0).join(whole).encode()).hexdigest()[:8]}"
