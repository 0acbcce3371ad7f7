"""``reft predict``: the rows of a file are answered, in their order and in bounded memory."""

from __future__ import annotations

import csv
import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, Protocol, TextIO

from tqdm.auto import tqdm

from pipelines.contracts.prepared import Rejection, Row
from pipelines.errors import PipelineError
from pipelines.files import whole_file
from pipelines.serving.answerer import Answerer
from pipelines.sources.raw_row import SUFFIXES, Format, RawRow, format_of
from pipelines.sources.rows import Reader

STANDARD = "-"  # standard input or output
CHUNK = 1024  # rows that are read, answered and written together
LIMIT = 1 << 40  # bytes of an unpacked file: it is read as a stream, so the disk is what bounds it


@dataclass(frozen=True)
class Asked:
    """Which rows are asked for, and where their answers go.

    Attributes:
        file: their path, or "-" for standard input.
        out: a path that ends in .jsonl or .csv, or "-" for JSON Lines on standard output.
        rejected: a path for rows that cannot be answered; None: there must be none.
        format: None: as the file's name ends.
        quoting: of lines and cells: whether double quotes hold cells together.
        scale: the adapter's strength; 1 is the adapter as trained, 0 the frozen base.
    """

    file: str
    out: str = STANDARD
    rejected: Path | None = None
    format: Format | None = None
    quoting: bool = True
    scale: float = 1.0


@dataclass(frozen=True)
class Predicted:
    """How many rows were answered and rejected, and how long that took."""

    rows: int
    rejected: int
    seconds: float


def predict(asked: Asked, answerer: Answerer) -> Predicted:
    """Answer every row; files that are written appear whole in the end, or not at all.

    Rows are read as training's are. Without ``asked.rejected`` a row that breaks a rule is an error: before anything
    is answered where the rows are in a file, which is read twice then, and when it comes up where they are piped in.

    Raises:
        PipelineError: for such a row, a file that is none, has no rows or not the columns of the adapter's template, or
            a strength that the adapter cannot have.
    """
    with answerer.at_scale(asked.scale):
        return _predict(asked, answerer)


def _predict(asked: Asked, answerer: Answerer) -> Predicted:
    started = time.monotonic()
    _check_paths(asked)
    writer = _writer_of(asked.out)
    source = _Source(asked, answerer)
    total = None if asked.file == STANDARD or asked.rejected is not None else source.check()
    done, refused = 0, 0
    with ExitStack() as stack:
        answers = stack.enter_context(writer(asked.out))
        rejections = stack.enter_context(_rejections(asked.rejected))
        bar = stack.enter_context(tqdm(total=total, desc="predict", unit=" rows"))
        rows = source.rows()
        while chunk := list(islice(rows, CHUNK)):
            good = [row for row in chunk if isinstance(row, Row)]
            for row in chunk:
                if isinstance(row, Rejection):
                    rejections(row)
            for row, answer in zip(good, answerer.answer(good, lambda count: _advance(bar, count)), strict=True):
                answers({"line": int(row.id.rpartition(":")[2]), **answer})
            done, refused = done + len(good), refused + len(chunk) - len(good)
        if done == 0:
            raise PipelineError(
                "a file must hold rows that can be answered",
                got=f"none in {asked.file}, and {refused} that cannot",
                do="Look at the file's format.",
            )
    return Predicted(done, refused, time.monotonic() - started)


def _advance(bar: tqdm[NoReturn], rows: int) -> None:
    bar.update(rows)


@dataclass(frozen=True)
class _Source:
    asked: Asked
    answerer: Answerer

    def rows(self) -> Iterator[Row | Rejection]:
        """The rows in their order, each as the model is asked or why it cannot be."""
        return map(self.answerer.read, self._raw())

    def check(self) -> int:
        """Count the rows.

        Raises:
            PipelineError: if one breaks a rule.
        """
        count, broken, first = 0, 0, None
        for row in tqdm(self.rows(), desc="check", unit=" rows", leave=False, delay=1.0):
            count += 1
            if isinstance(row, Rejection):
                broken, first = broken + 1, first or row
        if first is not None:
            raise _broken(first, f"{broken:,} of {count:,} rows break a rule; the first, ")
        return count

    def _raw(self) -> Iterator[RawRow]:
        layout, needed = _format(self.asked), self.answerer.columns.names
        if self.answerer.task.parts() and layout not in ("json", "jsonl"):
            needed = ()  # a file has the columns of its rows' tasks, which need not be all of them
        reader = Reader(layout, None, self.asked.quoting, needed)
        with _stream(self.asked.file) as stream:
            name = "standard input" if self.asked.file == STANDARD else self.asked.file
            yield from reader.parse(stream, name, limit=LIMIT)


def _check_paths(asked: Asked) -> None:
    files = [name for name in (asked.file, asked.out, str(asked.rejected or STANDARD)) if name != STANDARD]
    if len({Path(name).resolve() for name in files}) < len(files):
        raise PipelineError("rows, answers and rejected rows must be files of their own", got=", ".join(files))


def _broken(row: Rejection, before: str = "") -> PipelineError:
    return PipelineError(
        "every row must be one that the adapter could have been trained on",
        got=f"{before}line {row.line}: {row.reason} ({row.value})",
        do="Correct them, or give --rejected FILE, which takes them while the others are answered.",
    )


def _format(asked: Asked) -> Format:
    if asked.format is not None:
        return asked.format
    if asked.file == STANDARD:
        return "jsonl"
    found = format_of(asked.file)
    if found is None:
        raise PipelineError(
            f"the name of a file of rows must end in {', '.join(SUFFIXES)}", got=asked.file, do="Or give --format."
        )
    return found


@contextmanager
def _stream(file: str) -> Iterator[BinaryIO]:
    if file == STANDARD:
        yield sys.stdin.buffer
        return
    try:
        with Path(file).open("rb") as stream:
            yield stream
    except (FileNotFoundError, IsADirectoryError) as error:
        raise PipelineError("the file of rows must be there", got=f"{file}: {error.strerror}") from None


class Write(Protocol):
    """Takes one answer."""

    def __call__(self, answer: Mapping[str, Any], /) -> None: ...


class _Writer(Protocol):
    def __call__(self, out: str, /) -> Any: ...


def _writer_of(out: str) -> _Writer:
    suffix = Path(out).suffix.lower()
    if out == STANDARD:
        return _standard
    if suffix in (".jsonl", ".ndjson"):
        return _json_lines
    if suffix == ".csv":
        return _csv
    raise PipelineError("answers go to a file that ends in .jsonl or .csv", got=out, do="Name such a file, or -.")


@contextmanager
def _standard(_out: str) -> Iterator[Write]:
    yield lambda answer: _put_line(sys.stdout, answer)
    sys.stdout.flush()


@contextmanager
def _json_lines(out: str) -> Iterator[Write]:
    with whole_file(Path(out)) as file:
        yield lambda answer: _put_line(file, answer)


def _put_line(file: TextIO, answer: Mapping[str, Any]) -> None:
    file.write(json.dumps(answer, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def _csv(out: str) -> Iterator[Write]:
    """Columns are the first answer's; what is known of an answer by name gets a column for each name."""
    with whole_file(Path(out)) as file:
        table = csv.writer(file, lineterminator="\n")
        titles: list[str] = []

        def put(answer: Mapping[str, Any]) -> None:
            cells = dict(_cells(answer))
            if not titles:
                titles.extend(cells)
                table.writerow(titles)
            elif cells.keys() != set(titles):
                raise PipelineError(
                    "answers in a .csv file must all have the same columns",
                    got=f"{', '.join(cells)} after {', '.join(titles)}",
                    do="Write a .jsonl file, or ask rows of one task at a time.",
                )
            table.writerow([cells[title] for title in titles])

        yield put


def _cells(answer: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    for name, value in answer.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{key}", inner) for key, inner in value.items())
        else:
            yield name, value


class _Reject(Protocol):
    def __call__(self, row: Rejection, /) -> None: ...


@contextmanager
def _rejections(path: Path | None) -> Iterator[_Reject]:
    if path is None:
        yield _refuse
        return
    with whole_file(path) as file:
        yield lambda row: _put_line(file, asdict(row))


def _refuse(row: Rejection) -> None:
    raise _broken(row)
