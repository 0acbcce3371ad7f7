"""What kind of file a data file is, found from its content: format, columns, quoting."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal

from pipelines.errors import PipelineError
from pipelines.sources.raw_row import RawRow
from pipelines.sources.rows import Reader

SAMPLE = 20_000  # rows that are looked at
CONSISTENT = 0.9  # share of the lines that must have the same number of cells
DELIMITERS: dict[Literal["tsv", "csv"], str] = {"tsv": "\t", "csv": ","}  # tabs first: text holds commas anyway
_QUOTED = re.compile(r'"(?:[^"]|"")*"\s*')
_TITLE = re.compile(r"[#A-Za-z_][\w #.-]{0,39}")  # what the cells of a header row look like


@dataclass(frozen=True)
class Layout:
    """How a file is to be read.

    Attributes:
        format: as in params.yaml.
        columns: names for the columns; None: the file names them.
        quoting: whether double quotes of csv and tsv are special.
        titled: whether the first row holds titles all the same, but ones that a template cannot use; that row is then
            read like any other and rejected, since it has no label.
    """

    format: Literal["json", "jsonl", "csv", "tsv", "parquet"]
    columns: tuple[str, ...] | None
    quoting: bool
    titled: bool = False


@dataclass(frozen=True)
class _Delimited:
    """A way to read a file as lines of cells, and the cells."""

    format: Literal["tsv", "csv"]
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


def find_layout(path: Path) -> Layout:
    """Say how to read a data file; its name plays no part.

    Raises:
        PipelineError: if it is empty, not UTF-8, or none of json, jsonl, csv, tsv and parquet.
    """
    with path.open("rb") as file:
        if file.read(4) == b"PAR1":
            return Layout("parquet", None, quoting=True)
    first = next((line for line in _lines(path) if line.strip()), None)
    if first is None:
        raise PipelineError("a data file must hold rows", got=f"{path.name}, which is empty", do="Name another file.")
    if re.match(r"\s*\[\s*(\{|$)", first):
        return Layout("json", None, quoting=True)
    if _is_object(first):
        return Layout("jsonl", None, quoting=True)
    return _delimited(path)


def sample_rows(path: Path, layout: Layout) -> list[RawRow]:
    """Read the first rows (at most :data:`SAMPLE`) as the prepare stage will.

    Raises:
        PipelineError: as :class:`pipelines.sources.rows.Reader`.
    """
    reader = Reader(layout.format, layout.columns, layout.quoting, ())
    with path.open("rb") as stream:
        return list(islice(reader.parse(stream, path.name), int(layout.titled), SAMPLE))


def nameless(layout: Layout) -> bool:
    """Whether the file has no titles and the names of its columns are made up."""
    return layout.columns is not None and not layout.titled


def renamed(layout: Layout, names: dict[str, str]) -> Layout:
    """The layout with some of its made-up names changed."""
    return replace(layout, columns=tuple(names.get(column, column) for column in layout.columns or ()))


def _delimited(path: Path) -> Layout:
    found = [way for kind in DELIMITERS if (way := _best_quoting(path, kind)) is not None]
    fitting = [way for way in found if way.width > 1 and way.consistency >= CONSISTENT]
    if not fitting:
        raise PipelineError(
            "a data file must be json, jsonl, csv (with commas), tsv or parquet",
            got=f"{path.name}, whose lines do not split into the same columns by tabs or commas",
            do="Save it as one of these.",
        )
    way = max(fitting, key=lambda way: way.consistency)
    if not _has_header(way.rows):
        return Layout(way.format, tuple(f"column{number + 1}" for number in range(way.width)), way.quoting)
    titles = way.rows[0]
    if all(re.fullmatch(r"\w*", title) for title in titles) and len(set(titles)) == len(titles):
        return Layout(way.format, None, way.quoting)
    return Layout(way.format, _usable_names(titles), way.quoting, titled=True)


def _usable_names(titles: list[str]) -> tuple[str, ...]:
    """Titles as a template can use them: "#1 String" is string_1."""
    names: list[str] = []
    for number, title in enumerate(titles, start=1):
        name = (
            re.sub(r"\W+", "_", re.sub(r"^\W*(\d+)\W+(.*)$", r"\2_\1", title)).strip("_").lower() or f"column{number}"
        )
        names.append(f"{name}_{number}" if name in names else name)
    return tuple(names)


def _best_quoting(path: Path, kind: Literal["tsv", "csv"]) -> _Delimited | None:
    """Read with double quotes as plain characters and as marks, and keep the reading that makes more sense."""
    plain = _Delimited(kind, False, list(islice(_cells(path, kind, quoting=False), SAMPLE)))
    try:
        quoted = _Delimited(kind, True, list(islice(_cells(path, kind, quoting=True), SAMPLE)))
    except csv.Error:
        return plain
    if plain.consistency != quoted.consistency:
        return max(plain, quoted, key=lambda way: way.consistency)
    if len(plain.rows) != len(quoted.rows):  # a stray quote swallowed line ends
        return plain
    if quoted.width < plain.width:  # quotes hold each line's delimiters of the text together
        return quoted
    marked = [cell for row in plain.rows for cell in row if cell.startswith('"')]
    if not marked:
        return quoted if kind == "csv" else plain
    return quoted if all(_QUOTED.fullmatch(cell) for cell in marked) else plain


def _cells(path: Path, kind: Literal["tsv", "csv"], *, quoting: bool) -> Iterator[list[str]]:
    reader = csv.reader(
        _lines(path),
        delimiter=DELIMITERS[kind],
        quoting=csv.QUOTE_MINIMAL if quoting else csv.QUOTE_NONE,
        strict=True,
    )
    try:
        yield from (cells for cells in reader if cells)
    except csv.Error:
        if quoting:
            raise
        return  # a cell of more characters than csv reads


def _lines(path: Path) -> Iterator[str]:
    """The lines of a text file, as :mod:`pipelines.sources.rows` cuts them."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise PipelineError(
                    f"{path.name} must be UTF-8 text", got=f"line {number}: {error}", do="Convert the file to UTF-8."
                ) from None


def _has_header(rows: list[list[str]]) -> bool:
    """Whether the first row is made of short titles that are not themselves values of their columns."""
    first, rest = rows[0], rows[1:]
    titles = [title for title in first if title]  # an index column often has none, nor what a last delimiter makes
    if not rest or not titles or not all(_TITLE.fullmatch(title) for title in titles):
        return False
    columns = zip(first, *(row for row in rest[:1000] if len(row) == len(first)), strict=True)
    return not any(title in values for title, *values in columns if title)


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
