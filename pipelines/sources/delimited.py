"""Lines of cells: csv, tsv and the like."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from pipelines.errors import PipelineError
from pipelines.sources.content import TextLines
from pipelines.sources.raw_row import DELIMITERS, LONGEST_ROW, Format, RawRow

LONGEST_CELL = (
    2**31 - 1
)  # characters, the most that csv takes; a file has no more bytes, and what is too long is rejected
SEPARATOR = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)  # Excel's own first line


@dataclass(frozen=True)
class Delimited:
    """How a file of lines and cells is read.

    Attributes:
        format: which delimiter.
        quoting: whether double quotes hold cells together.
        columns: their names; None: the first row names them.
        check: raises for columns that will not do.
    """

    format: Format
    quoting: bool
    columns: Sequence[str] | None
    check: Callable[[Sequence[str], str], None]

    def read(self, stream: BinaryIO, name: str) -> Iterator[RawRow]:
        """Yield the rows; one that cannot be read has a problem and ends nothing.

        Raises:
            PipelineError: for a first row without the needed columns, a quote that is left open, after which nobody can
                say where a row ends, or a file that is not UTF-8.
        """
        columns = None if self.columns is None else list(self.columns)
        titles: list[str] | None = None
        for line, cells, problem in read_cells(stream, name, self.format, quoting=self.quoting):
            if problem is not None:
                if columns is None:
                    raise self._unreadable(name, f"line {line}: {problem}")
                yield RawRow(name, line, {}, problem)
            elif columns is None:
                columns = titles = cells
                self.check(columns, name)
            elif cells == titles:
                yield RawRow(name, line, {}, "the titles again")
            elif len(cells) == len(columns):
                yield RawRow(name, line, dict(zip(columns, cells, strict=True)))
            else:
                yield RawRow(name, line, {}, f"{len(cells)} columns, not {len(columns)}")

    def _unreadable(self, name: str, got: str) -> PipelineError:
        return PipelineError(
            f"{name} must be readable {self.format}",
            got=got,
            do="Correct the line, or prepare.quoting if the file has it otherwise.",
        )


def read_cells(
    stream: BinaryIO, name: str, kind: Format, *, quoting: bool
) -> Iterator[tuple[int, list[str], str | None]]:
    """Yield the line that a row starts on, its cells, and why it cannot be read, or None; empty rows are left out.

    A row whose quotes are all closed again ends where its line ends, whatever else is wrong with it, and is given up
    alone. Excel's first line ``sep=;`` is no row.

    Raises:
        PipelineError: for a quote that is left open, another delimiter in ``sep=``, or a file that is not UTF-8.
    """
    csv.field_size_limit(LONGEST_CELL)  # of the process; its 131,072 characters would end the file at one long cell
    lines = TextLines(stream, name)
    reader = csv.reader(
        _bounded(lines, name, kind),
        delimiter=DELIMITERS[kind],
        quoting=csv.QUOTE_MINIMAL if quoting else csv.QUOTE_NONE,
        strict=True,
    )
    while True:
        lines.begin()
        start, cells, problem = lines.number + 1, [], None
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if quoting and lines.quotes % 2:
                raise _open_quote(name, kind, start, str(error)) from None
            problem = _said(error)
        problem = lines.fault or problem
        if start == 1 and cells and (match := SEPARATOR.fullmatch(DELIMITERS[kind].join(cells))):
            _check_separator(match[1], name, kind)
        elif cells or problem:
            yield start, cells, problem


def _bounded(lines: TextLines, name: str, kind: Format) -> Iterator[str]:
    """The lines, none of more than a row can have."""
    start = 0
    for text in lines:
        if lines.length == len(text):
            start = lines.number
        elif lines.length > LONGEST_ROW:  # a quote was left open
            raise _open_quote(name, kind, start, f"a row of {lines.length} characters")
        yield text


def _open_quote(name: str, kind: Format, line: int, what: str) -> PipelineError:
    return PipelineError(
        f"{name} must be readable {kind}, with every double quote closed",
        got=f"line {line}: {what}",
        do="Correct the line, or prepare.quoting if the file has it otherwise.",
    )


def _said(error: csv.Error) -> str:
    if "new-line character" in str(error):
        return "a carriage return within the line, outside of quotes"
    return str(error)


def _check_separator(found: str, name: str, kind: Format) -> None:
    if found != DELIMITERS[kind]:
        known = {delimiter: other for other, delimiter in DELIMITERS.items()}
        raise PipelineError(
            f"{name} must have the delimiter of {kind}",
            got=f"sep={found} on its first line",
            do=f"Set prepare.format: {known[found]}." if found in known else "Save it with another delimiter.",
        )
