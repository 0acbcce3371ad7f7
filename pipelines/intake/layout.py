"""What kind of file a data file is, found from its content: format, columns, quoting."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TypeVar

from pipelines.errors import PipelineError
from pipelines.sources.addresses import DATA_LIMIT
from pipelines.sources.content import PARQUET, TextLines, opened
from pipelines.sources.delimited import SEPARATOR, read_cells
from pipelines.sources.raw_row import DELIMITERS, Format, RawRow
from pipelines.sources.rows import Reader

T = TypeVar("T")
SAMPLE = 20_000  # rows that are looked at
SAMPLE_BYTES = 1 << 28  # of them, about
LAYOUT_BYTES = 1 << 24  # of the lines that are split in each way that they may be meant
CELL_BYTES = 64  # of a value beside its text
MOST_COLUMNS = 2000  # of which one is to be found that answers, and others that ask
CONSISTENT = 0.9  # share of the lines that must have the same number of cells
KINDS: tuple[Format, ...] = ("tsv", "psv", "ssv", "csv")  # the rarest in a text first
SHOWN = 60  # characters of a line in a message
_QUOTED = re.compile(r'"(?:[^"]|"")*"\s*')
_TITLE = re.compile(r"[^\W\d][\w #.()/-]{0,39}|#[\w #.-]{0,39}")  # what the cells of a header row look like


@dataclass(frozen=True)
class Layout:
    """How a file is to be read.

    Attributes:
        format: as in params.yaml.
        columns: names for the columns; None: the file names them.
        quoting: whether double quotes of csv and tsv are special.
        titled: whether the first row holds titles all the same, but ones that a template cannot use; that row is then
            read like any other and rejected, since it has no label.
        doubts: what else it may be.
    """

    format: Format
    columns: tuple[str, ...] | None
    quoting: bool
    titled: bool = False
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Delimited:
    """A way to read a file as lines of cells, and the cells."""

    format: Format
    quoting: bool
    rows: list[list[str]]

    @property
    def width(self) -> int:
        """The number of cells that most rows have."""
        return Counter(len(row) for row in self.rows).most_common(1)[0][0] if self.rows else 0

    @property
    def consistency(self) -> float:
        """The share of the rows that have that many."""
        width = self.width
        return sum(len(row) == width for row in self.rows) / max(len(self.rows), 1)

    @property
    def likely(self) -> tuple[bool, float]:
        """What the more likely way has more of: a first row like the others (a decimal comma is in no title), then
        consistency.
        """
        return len(self.rows[0]) == self.width, self.consistency


def find_layout(path: Path) -> Layout:
    """Return how to read a data file; its name plays no part.

    Raises:
        PipelineError: if it is empty, not UTF-8, or of no format that is read.
    """
    with path.open("rb") as file, opened(file, path.name, DATA_LIMIT) as stream:
        if stream.peek(len(PARQUET)).startswith(PARQUET):
            return Layout("parquet", None, quoting=True)
        first = next((line for line in TextLines(stream, path.name) if line.strip()), None)
    if first is None:
        raise PipelineError("a data file must hold rows", got=f"{path.name}, which is empty", do="Name another file.")
    if re.match(r"\s*\[\s*(\{|\]?\s*$)", first):
        return Layout("json", None, quoting=True)
    if re.match(r"\s*[\[{]", first):
        _check_object(first, path.name)
        return Layout("jsonl", None, quoting=True)
    return _delimited(path, first)


def sample_rows(path: Path, layout: Layout, inner: Sequence[str] = ()) -> list[RawRow]:
    """Read the first rows (at most :data:`SAMPLE`) as the prepare stage will.

    Args:
        path: the file.
        layout: of it.
        inner: paths into the columns of JSON, as `instances.0.output`, that are to be columns too.

    Raises:
        PipelineError: as :class:`pipelines.sources.rows.Reader`.
    """
    needed = inner if layout.format in ("json", "jsonl") else ()
    reader = Reader(layout.format, layout.columns, layout.quoting, needed)
    with path.open("rb") as stream:
        rows = list(_sample(reader.parse(stream, path.name), lambda row: row.values.values(), SAMPLE_BYTES))
    names = {column for row in rows for column in row.values}
    if len(names) > MOST_COLUMNS:
        raise PipelineError(
            f"the rows of a file must share their columns, {MOST_COLUMNS} at most, for its answers to be found",
            got=f"{len(names)} columns in {len(rows)} rows",
            do="With --no-params the file comes in alone, and prepare in params.yaml is yours to write.",
        )
    return [row for row in rows if row.values != rows[0].values] if layout.titled else rows


def _sample(rows: Iterable[T], cells: Callable[[T], Iterable[object]], most: int) -> Iterator[T]:
    """The first rows, until there are enough of them or of what they hold."""
    held = 0
    for row in islice(rows, SAMPLE):
        yield row
        held += _size(cells(row))
        if held > most:
            return


def _size(cells: Iterable[object]) -> int:
    return sum(CELL_BYTES + len(str(cell)) for cell in cells)


def is_sample(rows: Sequence[RawRow]) -> bool:
    """Whether these are the first rows of a file that may have more."""
    return len(rows) == SAMPLE or sum(_size(row.values.values()) for row in rows) > SAMPLE_BYTES


def nameless(layout: Layout) -> bool:
    """Whether the file has no titles and the names of its columns are made up."""
    return layout.columns is not None and not layout.titled


def renamed(layout: Layout, names: dict[str, str]) -> Layout:
    """The layout with some of its made-up names changed."""
    return replace(layout, columns=tuple(names.get(column, column) for column in layout.columns or ()))


def _delimited(path: Path, first: str) -> Layout:
    said = SEPARATOR.fullmatch(first)  # Excel's own first line
    kinds = [kind for kind in KINDS if said is None or DELIMITERS[kind] == said[1]]
    found = [way for kind in kinds if (way := _best_quoting(path, kind)) is not None]
    fitting = [way for way in found if way.width > 1 and way.consistency >= CONSISTENT]
    if not fitting:
        raise PipelineError(
            "a data file must be json, jsonl, csv (with commas, semicolons or |), tsv or parquet",
            got=f"{path.name}, whose lines do not split into the same columns by any of these"
            + (f", and whose first line is {first.strip()}" if said else ""),
            do="Save it as one of these.",
        )
    best = max(way.likely for way in fitting)
    way, *others = [way for way in fitting if way.likely == best]
    others = [
        other for other in others if way.format == "ssv"
    ]  # a tab or | in each line is no chance, as a comma may be
    doubts = tuple(f"the lines split as {other.format} as well as {way.format}" for other in others)
    if not _has_header(way.rows):
        columns = tuple(f"column{number + 1}" for number in range(way.width))
        return Layout(way.format, columns, way.quoting, doubts=doubts)
    titles = way.rows[0]
    if all(usable_name(title) for title in titles if title) and len(set(titles)) == len(titles):
        return Layout(way.format, None, way.quoting, doubts=doubts)
    return Layout(way.format, _usable_names(titles), way.quoting, titled=True, doubts=doubts)


def usable_name(name: str) -> bool:
    """Whether a template can name such a column."""
    return bool(name.strip()) and not set(name) & set("{}\r\n")


def _usable_names(titles: list[str]) -> tuple[str, ...]:
    """Titles as a template can use them: "#1 String" is string_1."""
    names: list[str] = []
    for number, title in enumerate(titles, start=1):
        name = (
            re.sub(r"\W+", "_", re.sub(r"^\W*(\d+)\W+(.*)$", r"\2_\1", title)).strip("_").lower() or f"column{number}"
        )
        names.append(f"{name}_{number}" if name in names else name)
    return tuple(names)


def _best_quoting(path: Path, kind: Format) -> _Delimited | None:
    """Read with double quotes as plain characters and as marks, and keep the reading that makes more sense."""
    plain = _Delimited(kind, False, list(_sample(_cells(path, kind, quoting=False), list, LAYOUT_BYTES)))
    if not plain.rows:
        return None
    try:
        quoted = _Delimited(kind, True, list(_sample(_cells(path, kind, quoting=True), list, LAYOUT_BYTES)))
    except PipelineError:  # a quote that is left open
        return plain
    if not quoted.rows:
        return plain
    if plain.consistency != quoted.consistency:
        return max(plain, quoted, key=lambda way: way.consistency)
    if len(plain.rows) != len(quoted.rows):  # a stray quote swallowed line ends
        return plain
    if quoted.width < plain.width:  # quotes hold each line's delimiters of the text together
        return quoted
    marked = [cell for row in plain.rows for cell in row if cell.startswith('"')]
    if not marked:
        return plain if kind == "tsv" else quoted
    return quoted if all(_QUOTED.fullmatch(cell) for cell in marked) else plain


def _cells(path: Path, kind: Format, *, quoting: bool) -> Iterator[list[str]]:
    """The rows' cells, without the rows that cannot be read."""
    with path.open("rb") as file, opened(file, path.name, DATA_LIMIT) as stream:
        for _, cells, problem in read_cells(stream, path.name, kind, quoting=quoting):
            if problem is None:
                yield cells


def _has_header(rows: list[list[str]]) -> bool:
    """Whether the first row is made of short titles that are not themselves values of their columns."""
    first = rows[0]
    rest = [row for row in rows[1:] if row != first]  # files that were put together have the titles again
    titles = [title for title in first if title]  # an index column often has none, nor what a last delimiter makes
    if not rest or not titles or not all(_TITLE.fullmatch(title) for title in titles):
        return False
    columns = zip(first, *(row for row in rest[:1000] if len(row) == len(first)), strict=True)
    return not any(title in values for title, *values in columns if title)


def _check_object(line: str, name: str) -> None:
    """Refuse what begins as JSON and is no object a line, before it is taken for cells between commas."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        said = line.strip()[:SHOWN]
        comma = line.rstrip().endswith(",")
        do = "Take the comma away from the end of each line" if comma else "Write each row on a line of its own"
        raise PipelineError(
            f"{name} must be JSON Lines, one object a line, or one JSON array of objects",
            got=f"{said!r} ({error})",
            do=f"{do}, or put all rows into one array, [ ... ].",
        ) from None
    if not isinstance(value, dict):
        do = "Write each row as an object, which names its columns."
        raise PipelineError(f"{name} must hold objects", got=f"a JSON {type(value).__name__} a line", do=do)
