"""Rows that were served, with labels that came later: joined, and written as one more file of a folder of rows.

Three files are joined: the rows that `reft predict` was given, what it wrote of them (by the line), and the labels (by
an id, or by the texts that were asked).
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, TextIO

from pipelines.errors import PipelineError
from pipelines.files import whole_file
from pipelines.sources.addresses import FileSource, own_path, parse_source
from pipelines.sources.parts import visible
from pipelines.sources.raw_row import DELIMITERS, SUFFIXES, RawRow, format_of
from pipelines.sources.rows import Reader
from pipelines.tasks.keys.prepare import PrepareParams
from pipelines.tasks.reader import present
from pipelines.tasks.rows import comparable

LINE = "line"  # in what `reft predict` writes
DIGITS = 12  # of the hash that a file of rows is called by
Row = dict[str, object]


@dataclass(frozen=True)
class Feedback:
    """The files that are joined.

    Attributes:
        labels: an answer for each id, or for each text.
        served: the rows that `reft predict` was given.
        answers: what it wrote.
        id_column: in ``served`` and ``labels``; None: they are joined by the texts that were asked.
    """

    labels: Path
    served: Path
    answers: Path
    id_column: str | None


@dataclass(frozen=True)
class Joined:
    """The rows with their labels, and how many of what there were.

    Attributes:
        rows: by column, as the folder of rows has them.
        answered: rows that were served and answered.
        unlabelled: of them, those without a label.
        contradictory: of them, those whose id or text has two labels; they are left out.
        repeated: of them, those that stand for a text or id once more; they are left out.
        strange: labels of no row that was answered.
    """

    rows: Sequence[Row]
    answered: int
    unlabelled: int
    contradictory: int
    repeated: int
    strange: int


def join(config: PrepareParams, given: Feedback) -> Joined:
    """Join the three files.

    Raises:
        PipelineError: if one cannot be read or has not the columns, answers are of other rows, an id stands for two
            texts, or nothing can be joined.
    """
    answers = sorted(set(config.answer_columns().values()))
    if not answers:
        raise PipelineError(
            "labels that come later need a column of their own",
            got=f"task {config.task}, whose answers are a part of the text",
            do="Put rows of this kind into the folder of rows by hand.",
        )
    columns = [name for name in config.row_columns() if name not in answers]
    key = _by_text(config) if given.id_column is None else _by_id(given.id_column)
    labels, contradictory = _labels(given, answers, config, key)
    served = _answered(given, _needed(given.id_column, columns))
    _check_ids(served, given, columns, key)
    rows: dict[str, Row] = {}
    unlabelled = against = repeated = 0
    for raw in served:
        own = key(raw)
        if own in contradictory:
            against += 1
        elif own not in labels:
            unlabelled += 1
        elif own in rows:
            repeated += 1
        else:
            rows[own] = {**{name: present(raw.values[name]) for name in columns}, **labels[own]}
    if not rows:
        how = "text" if given.id_column is None else given.id_column
        raise PipelineError(
            f"some rows that were answered must have a label, by their {how}",
            got=f"none of {len(served)}; {len(labels)} labels are of other rows, {len(contradictory)} contradict "
            "each other",
            do="Look whether the files belong together; --id names a column that both have.",
        )
    known = {key(raw) for raw in served}
    return Joined(list(rows.values()), len(served), unlabelled, against, repeated, len(labels.keys() - known))


def growing_folder(config: PrepareParams, root: Path) -> Path:
    """The folder that takes one more file of rows.

    Raises:
        PipelineError: if the main source is no such folder, or of a format that is not written.
    """
    parsed = parse_source(config.source)
    folder = own_path(parsed, root) if isinstance(parsed, FileSource) else None
    if folder is None or not folder.is_dir() or config.growing is None:
        raise PipelineError(
            "labels that came later are put into a folder of rows that grows",
            got=f"prepare.source: {config.source}, growing: {'null' if config.growing is None else 'set'}",
            do="Add the rows as a folder, with `reft data add FOLDER`, which sets prepare.growing too.",
        )
    if config.format not in (*DELIMITERS, "jsonl"):
        do = "Write the folder's files as JSON Lines, and set prepare.format: jsonl."
        raise PipelineError("rows are added as JSON Lines, or lines of cells", got=config.format, do=do)
    return folder


def write_part(config: PrepareParams, rows: Sequence[Row], folder: Path, *, today: date) -> Path:
    """Write rows as one more file of a folder; it is there whole, and is read as it was meant, or not at all.

    Raises:
        PipelineError: if these rows are there already, or cannot be written in the folder's format.
    """
    digest = hashlib.sha256(json.dumps(rows, sort_keys=True, default=str).encode()).hexdigest()[:DIGITS]
    if earlier := [path.name for path in visible(folder) if f"-{digest}." in path.name]:
        raise PipelineError("rows are added once", got=f"the same ones are in {folder.name}/{earlier[0]}")
    suffix = next(name for name, kind in SUFFIXES.items() if kind == config.format)
    path = folder / f"feedback-{today.isoformat()}-{digest}{suffix}"
    with whole_file(path) as file:
        if config.format == "jsonl":
            file.writelines(map(_json_line, rows))
        else:
            _write_cells(config, rows, file)
        file.flush()
        _check_written(config, rows, Path(file.name))
    return path


def _labels(
    given: Feedback, answers: Sequence[str], config: PrepareParams, key: Callable[[RawRow], str]
) -> tuple[dict[str, Row], set[str]]:
    """The answers by id or text, and those ids or texts that have two; an empty one is none."""
    keys = _asked(config) if given.id_column is None else (given.id_column,)
    found: dict[str, Row] = {}
    against: set[str] = set()
    for raw in _read(given.labels, (*keys, *answers)):
        own, said = key(raw), {name: raw.values[name] for name in answers}
        if any(_plain(value) == "" for value in said.values()):
            continue
        earlier = found.setdefault(own, said)
        if any(_plain(earlier[name]) != _plain(said[name]) for name in answers):
            against.add(own)
    return {own: said for own, said in found.items() if own not in against}, against


def _answered(given: Feedback, columns: Sequence[str]) -> list[RawRow]:
    """The rows that were served and answered."""
    lines = {_line(raw, given.answers) for raw in _read(given.answers, (LINE,))}
    served = {raw.line: raw for raw in _rows(given.served, columns)}
    if strange := sorted(lines - served.keys()):
        raise PipelineError(
            "answers must be of the rows that were served",
            got=f"{given.answers.name} has line {strange[0]}, and {given.served.name} has no row there",
            do="Name the file that `reft predict` was given when it wrote these answers.",
        )
    rows = [served[line] for line in sorted(lines)]
    _check_whole(rows, columns, given.served)
    return rows


def _check_ids(served: Sequence[RawRow], given: Feedback, columns: Sequence[str], key: Callable[[RawRow], str]) -> None:
    if given.id_column is None:
        return
    first: dict[str, RawRow] = {}
    for raw in served:
        other = first.setdefault(key(raw), raw)
        if any(other.values[name] != raw.values[name] for name in columns):
            raise PipelineError(
                f"an id must stand for one row, {given.id_column} in {given.served.name}",
                got=f"{key(raw)!r} in lines {other.line} and {raw.line}",
                do="Give each row an id of its own, or join by text, without --id.",
            )


def _read(path: Path, columns: Sequence[str]) -> list[RawRow]:
    rows = list(_rows(path, columns))
    _check_whole(rows, columns, path)
    return rows


def _rows(path: Path, columns: Sequence[str]) -> Iterator[RawRow]:
    kind = format_of(path.name)
    if kind is None:
        raise PipelineError(f"the name of a file of rows must end in {', '.join(SUFFIXES)}", got=path)
    try:
        with path.open("rb") as stream:
            yield from Reader(kind, None, True, columns).parse(stream, path.name)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise PipelineError("the file must be there", got=f"{path}: {error.strerror}") from None


def _check_whole(rows: Sequence[RawRow], columns: Sequence[str], path: Path) -> None:
    for raw in rows:
        missing = [name for name in columns if name not in raw.values]
        if raw.problem is not None or missing:
            raise PipelineError(
                f"each row of {path.name} must have {', '.join(columns)}",
                got=f"line {raw.line}: {raw.problem or 'no ' + ', '.join(missing)}",
                do="Correct it, so that no label goes astray.",
            )


def _line(raw: RawRow, path: Path) -> int:
    try:
        return int(str(raw.values[LINE]))
    except ValueError:
        raise PipelineError(
            "answers must be what `reft predict` wrote", got=f"{path.name}, line {raw.values[LINE]!r}"
        ) from None


def _by_id(column: str) -> Callable[[RawRow], str]:
    return lambda raw: _plain(raw.values[column])


def _by_text(config: PrepareParams) -> Callable[[RawRow], str]:
    columns = _asked(config)
    return lambda raw: "\x1f".join(comparable(_plain(raw.values[name])) for name in columns)


def _asked(config: PrepareParams) -> tuple[str, ...]:
    """The columns of what was asked: the texts, and options where rows have their own."""
    answers = set(config.answer_columns().values())
    return tuple(name for name in config.task_columns() if name not in {*answers, *config.made_columns()})


def _needed(id_column: str | None, columns: Sequence[str]) -> list[str]:
    return list(dict.fromkeys([*columns, *([] if id_column is None else [id_column])]))


def _json_line(row: Row) -> str:
    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"
    except ValueError as error:
        do = "Correct it where the rows or labels come from."
        raise PipelineError("numbers of rows that are added must be finite", got=f"{error}: {row}", do=do) from None


def _plain(value: object) -> str:
    return "" if present(value) is None else str(value).strip()


def _write_cells(config: PrepareParams, rows: Sequence[Row], file: TextIO) -> None:
    """Lines of cells, with titles where params.yaml names no columns; what it names beside ours stays empty."""
    if deep := [name for row in rows for name, value in row.items() if isinstance(value, list | dict)]:
        raise PipelineError(
            "a cell holds one value",
            got=f"a list or object in {deep[0]}",
            do="Write the folder's files as JSON Lines, and set prepare.format: jsonl.",
        )
    titles = list(rows[0]) if config.columns is None else config.columns
    how: dict[str, Any] = {} if config.quoting else {"quoting": csv.QUOTE_NONE, "quotechar": None}
    table = csv.writer(file, delimiter=DELIMITERS[config.format], lineterminator="\n", **how)
    try:
        if config.columns is None:
            table.writerow(titles)
        table.writerows([row.get(title, "") for title in titles] for row in rows)
    except csv.Error as error:
        raise PipelineError(
            "without quotes (prepare.quoting: false) no cell may hold what stands between cells",
            got=error,
            do="Write the folder's files as JSON Lines, and set prepare.format: jsonl.",
        ) from None


def _check_written(config: PrepareParams, rows: Sequence[Mapping[str, object]], path: Path) -> None:
    """What is read of the new file must be what was meant."""
    reader = Reader(config.format, config.columns, config.quoting, tuple(rows[0]))
    with path.open("rb") as stream:
        found = list(reader.parse(stream, path.name))
    for meant, raw in zip(rows, found, strict=False):
        for name, value in meant.items():
            if _plain(raw.values.get(name)) != _plain(value):
                raise PipelineError(
                    f"a row must be read as it was written, in format {config.format}",
                    got=f"{name}: {raw.values.get(name)!r} for {value!r}",
                    do="Write the folder's files as JSON Lines, and set prepare.format: jsonl.",
                )
    if len(found) != len(rows):
        raise PipelineError("as many rows must be read as were written", got=f"{len(found)} of {len(rows)}")
