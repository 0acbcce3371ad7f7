"""Answers of an adapter, or of its frozen base, to the rows of a file; each is kept, so that a stopped run goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from tqdm.auto import tqdm

from pipelines.contracts.prepared import Rejection, Row
from pipelines.errors import PipelineError
from pipelines.files import sha256_json
from pipelines.judge.kept import Kept
from pipelines.serving.answerer import BATCH_SIZE, Answerer
from pipelines.sources.raw_row import SUFFIXES, RawRow, format_of
from pipelines.sources.rows import Reader

LIMIT = 1 << 30  # bytes of a file of rows


@dataclass(frozen=True)
class Answered:
    """What a system says to rows, by their ids; a row that it cannot be asked is in ``rejected``.

    ``losses``: of the rows with a reference, nats and tokens of that after the prompt.
    """

    texts: dict[str, str]
    losses: dict[str, tuple[float, int]]
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
    texts = {name: str(raw.values[name]).strip() for name in columns}
    if len(texts) == 1:
        return next(iter(texts.values()))
    return "\n\n".join(f"{name}: {text}" for name, text in texts.items())


class Asking:
    """One system and what it said before.

    Args:
        answerer: the adapter on its base.
        scale: its strength: 1, or 0 for the frozen base.
        identity: hashes of adapter and base.
        kept: earlier answers.
    """

    def __init__(self, answerer: Answerer, *, scale: float, identity: str, kept: Kept) -> None:
        if answerer.task.parts() or answerer.task.ASKS != "text":
            raise PipelineError(
                "a judge compares free answers", got="an adapter that gives none", do="Name one of a task generation."
            )
        self._answerer, self._scale, self._identity, self._kept = answerer, scale, identity, kept
        self.columns = answerer.columns

    def answer(self, raws: Sequence[RawRow], references: dict[str, str]) -> Answered:
        """Answer the rows, and where ``references`` has some, find out what they cost after the prompt."""
        read = [self._answerer.read(raw) for raw in raws]
        rows = [row for row in read if isinstance(row, Row)]
        rejected = tuple(row for row in read if isinstance(row, Rejection))
        return Answered(self.texts(rows), self.losses(rows, references), rejected)

    def texts(self, rows: Sequence[Row]) -> dict[str, str]:
        """The answers by the rows' ids."""
        keys = {row.id: sha256_json(["answer", self._identity, self._scale, self._limit(), row.prompt]) for row in rows}
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

    def losses(self, rows: Sequence[Row], references: dict[str, str]) -> dict[str, tuple[float, int]]:
        """What the references cost the system after the prompts, by the rows' ids: nats, and tokens."""
        asked = [row for row in rows if row.id in references]
        keys = {
            row.id: sha256_json(["loss", self._identity, self._scale, row.prompt, references[row.id]]) for row in asked
        }
        unknown = [row for row in asked if self._kept.get(keys[row.id]) is None]
        for start in tqdm(range(0, len(unknown), BATCH_SIZE), "loss", leave=False, disable=not unknown):
            chunk = unknown[start : start + BATCH_SIZE]
            with self._answerer.at_scale(self._scale):
                found = self._answerer.losses(chunk, [references[row.id] for row in chunk])
            for row, loss in zip(chunk, found, strict=True):
                self._kept.add(keys[row.id], {"nats": loss.nats, "tokens": loss.tokens})
        told = {name: self._kept.get(key) or {} for name, key in keys.items()}
        return {name: (float(value["nats"]), int(value["tokens"])) for name, value in told.items() if value["tokens"]}

    def _limit(self) -> int:
        return int(self._answerer.task.max_new_tokens)


def mean_loss(losses: dict[str, tuple[float, int]]) -> float | None:
    """Nats a token, over all rows."""
    tokens = sum(count for _, count in losses.values())
    return sum(nats for nats, _ in losses.values()) / tokens if tokens else None


def _advance(bar: tqdm[NoReturn], rows: int) -> None:
    bar.update(rows)
