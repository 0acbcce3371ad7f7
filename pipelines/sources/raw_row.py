"""A row of a data file as it stands there, and the formats that rows are read from."""

from __future__ import annotations

import datetime
import decimal
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

Format = Literal["json", "jsonl", "csv", "tsv", "ssv", "psv", "parquet", "hub"]

DELIMITERS: dict[Format, str] = {"csv": ",", "tsv": "\t", "ssv": ";", "psv": "|"}
"""What stands between the cells of each format of lines and cells."""

SUFFIXES: dict[str, Format] = {
    ".csv": "csv", ".tsv": "tsv", ".ssv": "ssv", ".psv": "psv",
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".parquet": "parquet",
}  # fmt: skip
PACKED = (".gz", ".bz2", ".xz")
LONGEST_ROW = 1 << 24  # bytes of a row, whatever its format; a longer one is given up alone where its end is known
MOST_ROWS = 10_000_000  # of a file: a few bytes of parquet may stand for any number
MOST_LINES = 5 * MOST_ROWS  # a row in quotes may have several


@dataclass(frozen=True)
class RawRow:
    """One row.

    Attributes:
        file: the file in its source.
        line: the line that it starts on, from 1; in json, parquet and hub data its number, from 1.
        values: by column.
        problem: why the row could not be read, or None; ``values`` is then empty.
    """

    file: str
    line: int
    values: dict[str, object]
    problem: str | None = None


def plain(value: object) -> object:
    """Return a typed cell (parquet, hub) as JSON or text has it: a decimal, a date or bytes become their text.

    A decimal's text keeps every digit, and text that spells a number is one wherever a number is wanted. Bytes that are
    no UTF-8 stay bytes, so that whoever wants text refuses them.
    """
    if isinstance(value, decimal.Decimal | datetime.date | datetime.time | datetime.timedelta):
        return str(value)
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return value
    return value


def format_of(name: str) -> Format | None:
    """The format that a file's name says, which may end in .gz and its like after that; None: none that is known."""
    suffixes = [suffix.lower() for suffix in PurePosixPath(name).suffixes]
    while suffixes and suffixes[-1] in PACKED:
        suffixes.pop()
    return SUFFIXES.get(suffixes[-1]) if suffixes else None
