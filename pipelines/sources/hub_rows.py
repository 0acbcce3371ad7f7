"""Rows of a data set of the hub, decoded in a child with limits as any stranger's file is.

`datasets` downloads it and writes it to its cache as Arrow files, which hold what parquet's dictionaries and zstd stand
for in full: so the child has a limit on its memory, and one on each file that it writes, which is a split.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from threading import RLock
from typing import TYPE_CHECKING

from pipelines.errors import PipelineError
from pipelines.limited import Limits, answers
from pipelines.sources.addresses import HubSource, hub_error
from pipelines.sources.raw_row import LONGEST_ROW, RawRow, plain

if TYPE_CHECKING:
    from datasets import Dataset

BATCH = 1024  # rows of parquet decoded at once, where its row groups are longer
PIECE = 1 << 20  # bytes of the rows that are handed on at once
LIMITS = Limits(
    memory=2 << 30,  # datasets takes a row group of parquet whole, which may be most of a data set
    cpu_seconds=1800,
    answer_seconds=6 * 3600,  # the first comes after the download
    imports=(),
    do="Is it the data set that you mean? Else name another config or split, or `reft data add` a part of it.",
)


def read_hub(
    source: HubSource, name: str, needed: Sequence[str], check: Callable[[Sequence[str], str], None], *, limit: int
) -> Iterator[RawRow]:
    """Yield the rows with the needed columns, or with all if none is needed; a row that is too long, or with a value
    that JSON does not have (a picture, a sound), has a problem.

    Args:
        source: which data set, config and split.
        name: for rows and messages.
        needed: the columns.
        check: raises for columns that will not do.
        limit: bytes of the decoded rows, of each file that is downloaded, and of each split in the cache.

    Raises:
        PipelineError: for a data set that the hub does not have or give, without the columns, or past a limit.
    """
    # The server of children began with the surroundings of an earlier time.
    surroundings = {key: value for key, value in os.environ.items() if key.startswith(("HF_", "HUGGING_FACE_"))}
    arguments = (source, name, list(needed), limit, surroundings)
    limits = replace(LIMITS, file_bytes=limit)
    pieces = answers(decoded, arguments, limits, what=f"{name}, a data set of the hub,")
    columns: list[str] = json.loads(next(pieces))
    check(columns, name)
    lines = (line for piece in pieces for line in piece.splitlines())
    for number, line in enumerate(lines, start=1):
        row = json.loads(line)
        yield RawRow(name, number, row, None) if isinstance(row, dict) else RawRow(name, number, {}, row)


def decoded(
    source: HubSource, name: str, needed: list[str], limit: int, surroundings: Mapping[str, str]
) -> Iterator[bytes]:
    """Yield the names of the columns as JSON, then rows as lines of JSON: an object by column, or a text, the problem.

    Raises:
        PipelineError: for a data set that cannot be had, or whose rows pass the limit.
        MemoryError: at this process's limit.
    """
    os.environ.update(surroundings)
    import pyarrow
    from tqdm import tqdm

    pyarrow.set_cpu_count(1)  # a thread that finds no memory ends the process without a word
    tqdm.set_lock(RLock())  # its own is of many processes, and would be missed when this one is ended
    rows = _prepared(source, name, limit)
    yield json.dumps(rows.column_names).encode()
    if needed:  # other columns may hold pictures or sound, which cost much to decode
        rows = rows.select_columns(list(dict.fromkeys(needed)))
    total, piece = 0, bytearray()
    for values in rows:
        line = _line(values)
        total += len(line)
        if total > limit:
            raise _too_large(name, limit)
        piece += line
        if len(piece) > PIECE:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece)


def _prepared(source: HubSource, name: str, limit: int) -> Dataset:
    """The split of a data set, from the hub or the cache; the cache holds it afterwards."""
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
        if builder.name == "parquet":
            builder.config.batch_size = BATCH
        builder.download_and_prepare(max_shard_size=2 * limit)  # a file a split: the limit is one on all of it
        return builder.as_dataset(split=split)
    except (DatasetsError, httpx2.HTTPError, OSError, ValueError, RuntimeError, KeyError, MemoryError) as error:
        causes = list(_causes(error))
        if any(isinstance(cause, MemoryError) for cause in causes):
            raise MemoryError from None
        if any(isinstance(cause, OSError) and cause.errno == errno.EFBIG for cause in causes):
            raise _too_large(name, limit) from None
        raise hub_error(f"the data set {source.name}", source, error, split=split) from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _too_large(name: str, limit: int) -> PipelineError:
    return PipelineError(f"{name} must not pass {limit} bytes", got="more", do=LIMITS.do)


def _line(values: Mapping[str, object]) -> bytes:
    try:
        line = json.dumps(values, default=_text, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        return json.dumps(f"a value that JSON does not have: {error}").encode() + b"\n"
    if len(line) > LONGEST_ROW:
        return json.dumps(f"a row of more than {LONGEST_ROW} bytes").encode() + b"\n"
    return line


def _text(value: object) -> object:
    """A date, a decimal or bytes as their text, wherever they stand."""
    if isinstance(found := plain(value), str):
        return found
    raise TypeError(f"{type(value).__name__} is neither text, number, list nor object")
