"""Answers of an adapter, or of its frozen base, to the rows of a file; each is kept, so that a stopped run goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from tqdm.auto import tqdm

from pipelines.contracts.prepared import BESIDE, WHILE_PREPARED, Rejection, Row
from pipelines.errors import PipelineError
from pipelines.files import sha256_json
from pipelines.judge.kept import Kept
from pipelines.judge.systems import System
from pipelines.project.code import code_sha256
from pipelines.project.keys import input_key
from pipelines.serving.answerer import BATCH_SIZE, Answerer
from pipelines.sources.raw_row import SUFFIXES, RawRow, format_of
from pipelines.sources.rows import Reader

LIMIT = 1 << 30  # bytes of a file of rows
# What decides an answer beside the code of the stage evaluate.
ANSWERS_CODE = ("pipelines/judge/answers.py", "pipelines/serving/answerer.py")

Losses = dict[str, tuple[float, int]]
"""Nats and tokens of references after the prompts, by the rows' ids."""


@dataclass(frozen=True)
class Answered:
    """What a system says to rows, by their ids; a row that it cannot be asked is in ``rejected``.

    ``losses``: of the rows with a reference, nats and tokens of that after the prompt.
    """

    texts: dict[str, str]
    losses: Losses
    rejected: tuple[Rejection, ...]


def read_file(path: Path, columns: Sequence[str]) -> list[RawRow]:
    """Read the rows of a file that have these columns.

    Raises:
        PipelineError: for a file that is none, or has not the columns.
    """
    layout = format_of(path.name)
    if layout is None or not path.is_file():
        raise PipelineError(f"rows are in a file that ends in {', '.join(SUFFIXES)}", got=path, do="Name such a file.")
    with path.open("rb") as stream:
        return list(Reader(layout, None, True, columns).parse(stream, path.name, limit=LIMIT))


def row_id(raw: RawRow) -> str:
    """FILE:LINE, as a row made of it is called."""
    return f"{raw.file}:{raw.line}"


def instruction_of(raw: RawRow, columns: Sequence[str]) -> str:
    """What a judge is told that was asked: the row's text, or its texts by the names of their columns."""
    texts = {name: str(raw.values.get(name)).strip() for name in columns}
    if len(texts) == 1:
        return next(iter(texts.values()))
    return "\n\n".join(f"{name}: {text}" for name, text in texts.items())


class Asking:
    """One system and what it said before.

    Args:
        answerer: the adapter on its base.
        scale: its strength: 1, or 0 for the frozen base.
        system: hashes of adapter and base.
        kept: earlier answers.
    """

    def __init__(self, answerer: Answerer, *, scale: float, system: System, kept: Kept) -> None:
        if answerer.task.parts() or answerer.task.ASKS != "text":
            raise PipelineError(
                "a judge compares free answers", got="an adapter that gives none", do="Name one of a task generation."
            )
        self._answerer, self._scale, self._kept = answerer, scale, kept
        self.columns, self.system = answerer.columns, system
        whose = system.adapter_sha256, system.base_sha256, scale
        task = answerer.task.spec.prompt(reads_domain=True)
        self._decides = input_key("evaluate", "judge", *whose, task, code_sha256(ANSWERS_CODE))

    def answer(self, raws: Sequence[RawRow], references: dict[str, str]) -> Answered:
        """Answer the rows, and where ``references`` has some, find out what they cost after the prompt."""
        read = [self._answerer.read(raw) for raw in raws]
        rows = [row for row in read if isinstance(row, Row)]
        rejected = tuple(row for row in read if isinstance(row, Rejection))
        return Answered(self.texts(rows), self.losses(rows, references), rejected)

    def texts(self, rows: Sequence[Row]) -> dict[str, str]:
        """The answers by the rows' ids."""
        keys = {row.id: sha256_json(["answer", self._decides, _read_of(row)]) for row in rows}
        unknown = {keys[row.id]: row for row in rows if self._kept.get(keys[row.id]) is None}
        order = sorted(unknown, key=lambda key: (len(unknown[key].prompt), key))
        with tqdm(total=len(order), desc="answer", unit=" rows", leave=False, disable=not order) as bar:
            for start in range(0, len(order), BATCH_SIZE):
                chunk = order[start : start + BATCH_SIZE]
                with self._answerer.at_scale(self._scale):
                    said = self._answerer.answer([unknown[key] for key in chunk], lambda count: _advance(bar, count))
                for key, answer in zip(chunk, said, strict=True):
                    self._kept.add(key, {"text": answer[self._answerer.task.ANSWER]})
        return {name: str((self._kept.get(key) or {})["text"]) for name, key in keys.items()}

    def losses(self, rows: Sequence[Row], references: dict[str, str]) -> Losses:
        """What the references cost the system after the prompts, by the rows' ids: nats, and tokens."""
        asked = [row for row in rows if row.id in references]
        keys = {row.id: sha256_json(["loss", self._decides, _read_of(row), references[row.id]]) for row in asked}
        unknown = [row for row in asked if self._kept.get(keys[row.id]) is None]
        for start in tqdm(range(0, len(unknown), BATCH_SIZE), "loss", leave=False, disable=not unknown):
            chunk = unknown[start : start + BATCH_SIZE]
            with self._answerer.at_scale(self._scale):
                found = self._answerer.losses(chunk, [references[row.id] for row in chunk])
            for row, loss in zip(chunk, found, strict=True):
                self._kept.add(keys[row.id], {"nats": loss.nats, "tokens": loss.tokens})
        told = {name: self._kept.get(key) or {} for name, key in keys.items()}
        return {name: (float(value["nats"]), int(value["tokens"])) for name, value in told.items() if value["tokens"]}


def _read_of(row: Row) -> dict[str, object]:
    """All of a row that a model may read, its domain too, but for where it stands."""
    return {name: value for name, value in vars(row).items() if name not in ("id", BESIDE, *WHILE_PREPARED)}


def _advance(bar: tqdm[NoReturn], rows: int) -> None:
    bar.update(rows)
