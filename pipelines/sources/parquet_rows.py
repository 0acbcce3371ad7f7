"""Rows of a parquet file: the columns that are asked for, and no others.

A few hundred bytes of parquet may stand for gigabytes: a long text in a dictionary with a million places, a list of a
billion nothings. So it is decoded in a child with limits, which hands on pieces of bounded size.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from pipelines.errors import PipelineError
from pipelines.limited import Limits, answers
from pipelines.sources.raw_row import LONGEST_ROW, RawRow, plain

if TYPE_CHECKING:
    from pyarrow import Array, RecordBatch

BATCH = 1024  # rows decoded at once, at most
PIECE = 1 << 24  # bytes of the rows that are handed on at once
ELEMENT = 16  # bytes that any element counts, for what Python makes of one that parquet has for nothing
LIMITS = Limits(
    memory=1 << 30,
    cpu_seconds=1800,
    answer_seconds=120,
    imports=("pyarrow.parquet",),
    do="Is it the file that you mean? Else write it again as JSON Lines, or as parquet in smaller row groups.",
)


def read_parquet(
    stream: BinaryIO, name: str, needed: Sequence[str], check: Callable[[Sequence[str], str], None], *, limit: int
) -> Iterator[RawRow]:
    """Yield the rows with the needed columns, or with all if none is needed; a cell that no Python value holds, and a
    row that is too long, is a problem of its row.

    Args:
        stream: from its beginning.
        name: for rows and messages.
        needed: the columns.
        check: raises for columns that will not do.
        limit: bytes of the decoded rows.

    Raises:
        PipelineError: for a file that is no parquet, without the columns, or past a limit.
    """
    from pyarrow import ipc

    with _on_disk(stream) as path:
        pieces = answers(decoded, (str(path), name, list(needed), limit), LIMITS, what=f"{name}, a parquet file,")
        columns: list[str] = json.loads(next(pieces))
        check(columns, name)
        columns = list(dict.fromkeys(needed)) or columns
        number = 1
        for piece in pieces:
            batch = ipc.open_stream(piece).read_next_batch() if piece else None
            if batch is None:
                yield RawRow(name, number, {}, f"a row of more than {LONGEST_ROW} bytes")
            else:
                yield from _rows(batch, columns, name, number)
            number += 1 if batch is None else batch.num_rows


@contextmanager
def _on_disk(stream: BinaryIO) -> Iterator[Path]:
    """The file of a stream, which another process can open: its own, or a copy."""
    own = getattr(stream, "name", None)
    if isinstance(own, str) and Path(own).is_file():
        yield Path(own)
        return
    with tempfile.NamedTemporaryFile(prefix="reft-", suffix=".parquet") as copy:
        shutil.copyfileobj(stream, copy, 1 << 20)
        copy.flush()
        yield Path(copy.name)


def decoded(path: str, name: str, needed: list[str], limit: int) -> Iterator[bytes]:
    """Yield the names of the columns as JSON, then pieces of rows as Arrow streams, and b"" for a row that is too long.

    Raises:
        PipelineError: for a file that is no parquet, or whose rows pass ``limit`` bytes.
        MemoryError: at this process's limit.
    """
    import pyarrow
    from pyarrow import parquet

    pyarrow.set_memory_pool(pyarrow.system_memory_pool())  # the others take addresses ahead, which count as memory
    total = 0
    try:
        file = parquet.ParquetFile(path, buffer_size=1 << 20)
        names = list(file.schema_arrow.names)
        yield json.dumps(names).encode("utf-8", "surrogatepass")
        columns = list(dict.fromkeys(needed)) or names
        for batch in file.iter_batches(_batch_rows(file.metadata), columns=columns, use_threads=False):
            # pyarrow takes "a.b" for a field of "a" as well, so a batch may hold more than was asked for.
            for piece, size in _pieces(batch.select(columns)):
                total += size
                if total > limit:
                    raise PipelineError(
                        f"the rows of {name} must not pass {limit} bytes", got=f"{total} or more", do=LIMITS.do
                    )
                yield b"" if piece is None else _stream(piece)
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        if isinstance(error, MemoryError):
            raise
        if isinstance(error, OSError) and error.errno is not None:
            raise PipelineError("the disk must give the file", got=error) from None
        raise PipelineError(
            f"{name} must be a readable parquet file", got=error, do="Write it again, or correct prepare.format."
        ) from None


def _batch_rows(metadata: Any) -> int:
    """How many rows to decode at once: fewer where rows are long."""
    size = sum(metadata.row_group(place).total_byte_size for place in range(metadata.num_row_groups))
    return max(1, min(BATCH, PIECE * max(metadata.num_rows, 1) // max(size, 1)))


def _pieces(batch: RecordBatch) -> Iterator[tuple[RecordBatch | None, int]]:
    """The rows of a batch in pieces of bounded size, each with its size; None for a row that is too long by itself."""
    size = sum(map(_size, batch.columns))
    if size <= PIECE or batch.num_rows <= 1:
        yield (batch if size <= LONGEST_ROW else None), size
        return
    half = batch.num_rows // 2
    yield from _pieces(batch.slice(0, half))
    yield from _pieces(batch.slice(half))


def _size(array: Array) -> int:
    """Bytes of an array, and of what Python makes of its elements, whatever it is nested of."""
    from pyarrow import types

    kind = array.type
    own = int(array.nbytes) + ELEMENT * len(array)
    if types.is_dictionary(kind):
        return own
    if types.is_struct(kind):
        return own + sum(_size(array.field(place)) for place in range(kind.num_fields))
    if types.is_nested(kind) and not types.is_union(kind):
        return own + _size(array.flatten())
    return own


def _stream(batch: RecordBatch) -> bytes:
    import pyarrow
    from pyarrow import ipc

    sink = pyarrow.BufferOutputStream()
    with ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return cast(bytes, sink.getvalue().to_pybytes())


def _rows(batch: RecordBatch, columns: Sequence[str], name: str, start: int) -> Iterator[RawRow]:
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
