"""Rows of a parquet file: the columns that are asked for, and no others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO

from pipelines.errors import PipelineError
from pipelines.sources.raw_row import RawRow, plain

if TYPE_CHECKING:
    from pyarrow import RecordBatch

BATCH = 1024  # rows held at once


def read_parquet(
    stream: BinaryIO, name: str, needed: Sequence[str], check: Callable[[Sequence[str], str], None]
) -> Iterator[RawRow]:
    """Yield the rows with the needed columns, or with all if none is needed; a cell that no Python value holds is a
    problem of its row.

    Args:
        stream: a seekable file.
        name: for rows and messages.
        needed: the columns.
        check: raises for columns that will not do.

    Raises:
        PipelineError: for a file that is no parquet, or without the columns.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(stream)
        check(file.schema_arrow.names, name)
        columns = list(dict.fromkeys(needed)) or list(file.schema_arrow.names)
        number = 1
        for batch in file.iter_batches(BATCH, columns=columns):
            yield from _rows(batch, columns, name, number)
            number += batch.num_rows
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's fault, not the file's
        raise PipelineError(
            f"{name} must be a readable parquet file", got=error, do="Write it again, or correct prepare.format."
        ) from None


def _rows(batch: RecordBatch, columns: Sequence[str], name: str, start: int) -> Iterator[RawRow]:
    # pyarrow takes "a.b" for a field of "a" as well, so a batch may hold more than was asked for.
    batch = batch.select(list(columns))
    try:
        rows = batch.to_pylist()
    except (ValueError, OverflowError):
        for place in range(batch.num_rows):
            yield _single(batch, place, columns, name, start + place)
        return
    for place, values in enumerate(rows):
        yield RawRow(name, start + place, {column: plain(value) for column, value in values.items()})


def _single(batch: RecordBatch, place: int, columns: Sequence[str], name: str, number: int) -> RawRow:
    values: dict[str, object] = {}
    for column in columns:
        try:
            values[column] = plain(batch.column(column)[place].as_py())
        except (ValueError, OverflowError) as error:
            return RawRow(name, number, {}, f"{column}: {error}")
    return RawRow(name, number, values)
