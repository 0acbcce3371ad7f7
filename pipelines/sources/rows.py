"""Rows of a data file as they stand there, with the place that each came from."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from pipelines.errors import PipelineError
from pipelines.sources.addresses import (
    DATA_LIMIT,
    FileSource,
    HubSource,
    PypiSource,
    Source,
    hub_error,
    open_source,
    parse_source,
)

Format = Literal["json", "jsonl", "csv", "tsv", "parquet", "hub"]


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
            PipelineError: for a source that cannot be had, broken JSON, text that is not UTF-8, or a missing column,
                with file and line. A row with another number of columns is no error: it has a ``problem``.
        """
        if self.columns is not None and self.format not in ("csv", "tsv"):
            raise PipelineError("columns names the columns of csv and tsv files", got=f"format {self.format}")
        parsed = parse_source(source)
        name = file_name(parsed)
        if isinstance(parsed, HubSource):
            yield from self._hub(parsed, name)
            return
        with open_source(source, sha256, root=root, limit=limit) as stream:
            yield from self.parse(stream, name)

    def parse(self, stream: BinaryIO, name: str) -> Iterator[RawRow]:
        """Yield the rows of an open file; ``name`` stands in rows and messages."""
        if self.format == "json":
            return _json(stream, name)
        if self.format == "jsonl":
            return _jsonl(stream, name)
        if self.format == "parquet":
            return self._parquet(stream, name)
        return self._delimited(stream, name)

    def _delimited(self, stream: BinaryIO, name: str) -> Iterator[RawRow]:
        reader = csv.reader(
            _lines(stream, name),
            delimiter="," if self.format == "csv" else "\t",
            quoting=csv.QUOTE_MINIMAL if self.quoting else csv.QUOTE_NONE,
            strict=True,
        )
        columns = list(self.columns) if self.columns is not None else None
        start = 1
        try:
            for cells in reader:
                line, start = start, reader.line_num + 1
                if columns is None:
                    columns = cells
                    self._check_columns(columns, name)
                elif len(cells) == len(columns):
                    yield RawRow(name, line, dict(zip(columns, cells, strict=True)))
                elif cells:
                    yield RawRow(name, line, {}, f"{len(cells)} columns, not {len(columns)}")
        except csv.Error as error:
            hint = "Correct the line, or prepare.quoting if the file has it otherwise."
            raise PipelineError(
                f"{name} must be readable {self.format}", got=f"line {start}: {error}", do=hint
            ) from None

    def _parquet(self, stream: BinaryIO, name: str) -> Iterator[RawRow]:
        import pyarrow
        from pyarrow import parquet

        try:
            file = parquet.ParquetFile(stream)
            self._check_columns(file.schema_arrow.names, name)
            number = 0
            for batch in file.iter_batches():
                for values in batch.to_pylist():
                    number += 1
                    yield RawRow(name, number, values)
        except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk's fault, not the file's
            raise PipelineError(
                f"{name} must be a readable parquet file", got=error, do="Write it again, or correct prepare.format."
            ) from None

    def _hub(self, source: HubSource, name: str) -> Iterator[RawRow]:
        import httpx2
        from datasets import load_dataset_builder
        from datasets.exceptions import DatasetsError

        split = source.split or "train"
        try:
            builder = load_dataset_builder(source.name, source.config, revision=source.revision)
            # With the hub out of reach, datasets takes the newest copy in its cache, of whatever commit.
            if builder.hash != source.revision:
                raise PipelineError(
                    f"the hub must be within reach for {source.name} at {source.revision}",
                    got=f"the cache's copy, of {builder.hash}",
                    do="Check the network and HF_ENDPOINT, then run again.",
                )
            builder.download_and_prepare()
            rows = builder.as_dataset(split=split)
        except (DatasetsError, httpx2.HTTPError, OSError, ValueError, RuntimeError, KeyError) as error:
            raise hub_error(f"the data set {source.name}", source, error, split=split) from error
        self._check_columns(rows.column_names, name)
        for number, values in enumerate(rows, start=1):
            yield RawRow(name, number, values)

    def _check_columns(self, columns: Sequence[str], name: str) -> None:
        missing = [column for column in self.needed if column not in columns]
        if missing or len(set(columns)) < len(columns):
            raise PipelineError(
                f"{name} must have each of the columns {', '.join(self.needed)} once",
                got=", ".join(map(repr, columns)),
                do="Correct template, label_column, domain_column or columns; columns names them where no row does.",
            )


def file_name(source: Source) -> str:
    """Return the name that stands for a source's file in rows, rejections and messages."""
    if isinstance(source, PypiSource):
        return source.inner or source.member
    if isinstance(source, FileSource):
        return source.path
    config = f":{source.config}" if source.config else ""
    return f"{source.name}{config}#{source.split or 'train'}"


def _lines(stream: BinaryIO, name: str) -> Iterator[str]:
    """Decode line by line, so that a wrong byte is named with its line; a byte order mark is dropped."""
    for number, line in enumerate(stream, start=1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise PipelineError(
                f"{name} must be UTF-8 text", got=f"line {number}: {error}", do="Convert the file to UTF-8."
            ) from None


def _jsonl(stream: BinaryIO, name: str) -> Iterator[RawRow]:
    for number, line in enumerate(_lines(stream, name), start=1):
        if line.strip():
            yield _object(_load_json(line, name, f"line {number}: "), name, number)


def _json(stream: BinaryIO, name: str) -> Iterator[RawRow]:
    rows = _load_json("".join(_lines(stream, name)), name, "")
    if not isinstance(rows, list):
        raise PipelineError(
            f"{name} must hold an array of objects",
            got=f"a JSON {type(rows).__name__}",
            do="Put the rows in an array, or set format: jsonl for one object a line.",
        )
    for number, values in enumerate(rows, start=1):
        yield _object(values, name, number)


def _object(value: Any, name: str, number: int) -> RawRow:
    if isinstance(value, dict):
        return RawRow(name, number, value)
    return RawRow(name, number, {}, f"a JSON {type(value).__name__}, not an object")


def _load_json(text: str, name: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        # Of one line of many, the error's own line number would be misleading.
        told = f"{error.msg}, character {error.pos + 1}" if where and isinstance(error, json.JSONDecodeError) else error
        raise PipelineError(
            f"{name} must be readable JSON", got=f"{where}{told}", do="Correct it there, or prepare.format."
        ) from None
