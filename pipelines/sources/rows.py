"""Rows of a data source, whatever its format, with the place that each came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pipelines.errors import PipelineError
from pipelines.sources.addresses import (
    DATA_LIMIT,
    FileSource,
    HubSource,
    PypiSource,
    Source,
    open_source,
    own_path,
    parse_source,
)
from pipelines.sources.content import opened
from pipelines.sources.delimited import Delimited
from pipelines.sources.hub_rows import read_hub
from pipelines.sources.json_rows import read_json_array, read_json_lines
from pipelines.sources.parquet_rows import read_parquet
from pipelines.sources.parts import parts_of
from pipelines.sources.raw_row import DELIMITERS, MOST_ROWS, Format, RawRow


@dataclass(frozen=True)
class Reader:
    """How to read a data file: params.yaml's ``format``, ``columns`` and ``quoting``, and the columns it must have."""

    format: Format
    columns: Sequence[str] | None
    quoting: bool
    needed: Sequence[str]

    def read(self, source: str, sha256: str | None, *, root: Path, limit: int = DATA_LIMIT) -> Iterator[RawRow]:
        """Yield the rows of a source in order.

        Raises:
            PipelineError: for a source that cannot be had, that is no such file, or that has not the needed columns. A
                fault in one row (too few cells, broken JSON on its line, bytes that are no text) is none: that row has
                a ``problem``.
        """
        if self.columns is not None and self.format not in DELIMITERS:
            raise PipelineError(f"columns names the columns of {', '.join(DELIMITERS)}", got=f"format {self.format}")
        parsed = parse_source(source)
        name = file_name(parsed)
        if isinstance(parsed, HubSource):
            yield from _bounded(read_hub(parsed, name, self.needed, self._check_columns, limit=limit), name)
            return
        if isinstance(parsed, FileSource) and own_path(parsed, root).is_dir():
            yield from _bounded(self._folder(parsed, sha256, root, limit), name)
            return
        with open_source(source, sha256, root=root, limit=limit) as stream:
            yield from self.parse(stream, name, limit=limit)

    def parse(self, stream: BinaryIO, name: str, *, limit: int = DATA_LIMIT) -> Iterator[RawRow]:
        """Yield the rows of an open file; ``name`` stands in rows and messages, ``limit`` is of its
        unpacked and decoded bytes."""
        yield from _bounded(self._parsed(stream, name, limit), name)

    def _folder(self, source: FileSource, sha256: str | None, root: Path, limit: int) -> Iterator[RawRow]:
        if sha256 is not None:
            raise PipelineError("a sha256 is of one file", got=f"{source.path}, a folder", do="Set it to null.")
        for part in parts_of(own_path(source, root), self.format):
            name = f"{source.path}/{part.name}"
            with open_source(f"file:{name}", None, root=root, limit=limit) as stream:
                yield from self.parse(stream, name, limit=limit)

    def _parsed(self, stream: BinaryIO, name: str, limit: int) -> Iterator[RawRow]:
        with opened(stream, name, limit) as rows:
            if self.format == "json":
                yield from map(self._with_inner, read_json_array(rows, name))
            elif self.format == "jsonl":
                yield from map(self._with_inner, read_json_lines(rows, name))
            elif self.format == "parquet":
                yield from read_parquet(rows, name, self.needed, self._check_columns, limit=limit)
            else:
                yield from Delimited(self.format, self.quoting, self.columns, self._check_columns).read(rows, name)

    def _with_inner(self, row: RawRow) -> RawRow:
        """A JSON row with the columns that are named by a path into it, as `instances.0.output`."""
        paths = [name for name in self.needed if "." in name and name not in row.values]
        inner = {name: found for name in paths if (found := _at(row.values, name)) is not None}
        return RawRow(row.file, row.line, {**row.values, **inner}, row.problem) if inner else row

    def _check_columns(self, columns: Sequence[str], name: str) -> None:
        missing = [column for column in self.needed if column not in columns]
        if missing or len(set(columns)) < len(columns):
            raise PipelineError(
                f"{name} must have each of the columns {', '.join(self.needed)} once",
                got=", ".join(map(repr, columns)),
                do="Correct template, label_column, domain_column or columns; columns names them where no row does.",
            )


def _bounded(rows: Iterator[RawRow], name: str) -> Iterator[RawRow]:
    for count, row in enumerate(rows, start=1):
        if count > MOST_ROWS:
            raise PipelineError(f"{name} must not pass {MOST_ROWS} rows", got="more", do="Take a part of it.")
        yield row


def _at(value: object, path: str) -> object:
    """What stands at a path of names and places from 0 in a JSON value; None for nothing."""
    for step in path.split("."):
        if isinstance(value, list) and step.isdecimal():
            value = value[int(step)] if int(step) < len(value) else None
        else:
            value = value.get(step) if isinstance(value, Mapping) else None
    return value


def file_name(source: Source) -> str:
    """Return the name that stands for a source's file in rows, rejections and messages."""
    if isinstance(source, PypiSource):
        return source.inner or source.member
    if isinstance(source, FileSource):
        return source.path
    config = f":{source.config}" if source.config else ""
    return f"{source.name}{config}#{source.split or 'train'}"
