"""A page's content, said once and written twice: as HTML for a browser, and as Markdown for cards and artifacts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from xml.etree.ElementTree import Element

from pipelines import markdown
from pipelines.reports.markup import element, table

WIDE = 5  # columns of a table that is moved sideways in a narrow window, so that its cells stay broad enough to read


@dataclass(frozen=True)
class Paragraph:
    """Words; ``kind`` is how a page shows them: as ``small`` ones, or as a ``warning``."""

    words: str
    kind: str = ""


@dataclass(frozen=True)
class Figures:
    """A table. Its first column names its rows, and ``title`` says of what they are."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Drawn:
    """A chart, on a page alone: the figures that it is drawn from stand in a table of the same section."""

    draw: Callable[[], Element]


@dataclass(frozen=True)
class Texts:
    """Texts in full, each under its name; ``title`` says what they have in common."""

    title: str
    named: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Commands:
    """Lines for a terminal."""

    lines: Sequence[str]


Block = Paragraph | Figures | Drawn | Texts | Commands


@dataclass(frozen=True)
class Section:
    """A part of a page under its title."""

    title: str
    blocks: Sequence[Block]

    @property
    def anchor(self) -> str:
        """What a link to it names."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


# --- as HTML ---------------------------------------------------------------------------------------------------------


def contents(sections: Iterable[Section]) -> Element:
    """Links to the sections."""
    links = (element("a", {"href": f"#{one.anchor}"}, one.title) for one in sections)
    entries = (element("li", None, link) for link in links)
    return element("nav", {"aria-label": "Sections"}, element("ul", None, *entries))


def as_element(section: Section) -> Element:
    """The section; charts, and texts, that follow each other stand side by side where there is room."""
    shown: list[Element] = []
    for kind, blocks in groupby(section.blocks, type):
        elements = [_block(block) for block in blocks]
        shown += [element("div", {"class": "grid"}, *elements)] if kind in (Drawn, Texts) else elements
    return element("section", {"id": section.anchor}, element("h2", None, section.title), *shown)


def _block(block: Block) -> Element:
    match block:
        case Paragraph(words, kind):
            return element("p", {"class": kind or None}, words)
        case Figures(title, header, rows):
            region = {"class": "frame", "role": "region", "aria-label": title, "tabindex": "0"}  # its own arrow keys
            kind = "facts" if len(header) == 2 else "figures" if len(header) < WIDE else "figures wide"
            return element("div", region, table(header, rows, kind=kind))
        case Drawn(draw):
            return draw()
        case Texts(title, named):
            pairs = [part for name, words in named for part in (element("dt", None, name), element("dd", None, words))]
            return element("article", {"class": "card"}, element("h3", None, title), element("dl", None, *pairs))
        case Commands(lines):
            code = element("code", None, "\n".join(lines))
            return element("pre", {"class": "frame", "tabindex": "0"}, code)


# --- as Markdown -----------------------------------------------------------------------------------------------------


def as_markdown(section: Section, *, level: int) -> str:
    """The section, under a title of this level."""
    shown = [f"{'#' * level} {markdown.text(section.title)}"]
    for block in section.blocks:
        match block:
            case Paragraph(words, kind):
                warned = "**Warning:** " if kind == "warning" else ""
                shown.append(f"{warned}{markdown.text(words)}")
            case Figures(_, header, rows):
                shown.append(_table(header, rows))
            case Texts(title, named):
                shown.append(_table(["", title], named))
            case Commands(lines):
                shown.append(markdown.block("\n".join(lines), "sh"))
            case Drawn():
                pass
    return "\n\n".join(shown)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = [[markdown.text(cell) for cell in row] for row in rows]
    return "\n".join(markdown.table([markdown.text(name) for name in header], cells))
