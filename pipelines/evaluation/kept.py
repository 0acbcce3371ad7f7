"""Answers that are kept as they come, so that what was asked is asked once, whoever stops the process and however."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.contracts.prepared import BESIDE, WHILE_PREPARED, Row
from pipelines.files import read_kept, sha256_json, write_json
from pipelines.params.computation import Computation
from pipelines.project.keys import input_key
from pipelines.tasks.family import Answer

SAYS_WHERE = "id"  # of a row: where it stands, which no model reads
BASE = "base"  # in the place of an adapter's hash


@dataclass(frozen=True)
class AnswersOf:
    """All that answers depend on, but for the row: whose they are, and how they were computed.

    Attributes:
        adapter_sha256: None of the frozen base.
        base_sha256: of the base.
        task_sha256: of the task.json of the rows.
        batch_size: rows in one forward pass.
        computation: device, threads, and what is kept of the base.
    """

    adapter_sha256: str | None
    base_sha256: str
    task_sha256: str
    batch_size: int
    computation: Computation

    def key(self) -> str:
        """A short hash of it and of the code that scores."""
        whose = self.adapter_sha256 or BASE, self.base_sha256, self.task_sha256
        return input_key("evaluate", "answers", *whose, self.batch_size, *self.computation.decides())


class KeptAnswers:
    """What one system answered, in a folder: a file for each group of rows that were asked together, written whole.

    A damaged file is set aside, and its rows are asked again.

    Args:
        folder: of this system's answers.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._said: dict[str, Answer] = {}
        for path in sorted(folder.glob("*.json")):
            self._said |= read_kept(path, _read) or {}

    def missing(self, rows: Sequence[Row]) -> list[Row]:
        """Those that were not asked yet, each text once, in their order."""
        return list({digest: row for row in rows if (digest := row_sha256(row)) not in self._said}.values())

    def keep(self, rows: Sequence[Row], answers: Sequence[Answer]) -> None:
        """Keep what was answered to rows that were asked together."""
        said = {row_sha256(row): answer for row, answer in zip(rows, answers, strict=True)}
        written = {digest: _written(answer) for digest, answer in said.items()}
        write_json(self._folder / f"{sha256_json(list(said))[:16]}.json", written)
        self._said |= said

    def of(self, rows: Sequence[Row]) -> list[Answer]:
        """The answers to rows that were all asked."""
        return [self._said[row_sha256(row)] for row in rows]


def row_sha256(row: Row) -> str:
    """The identity of a row by all that a model may be asked of it."""
    beside = {SAYS_WHERE, BESIDE, *WHILE_PREPARED}
    return sha256_json({name: value for name, value in vars(row).items() if name not in beside})


def _written(answer: Answer) -> object:
    """An answer as JSON can hold it: a text, a number, or log-probabilities, of which one may be minus infinity."""
    if isinstance(answer, str | float):
        return answer
    return [float(value) if np.isfinite(value) else None for value in answer]


def _read(raw: Mapping[str, Any]) -> dict[str, Answer]:
    return {digest: _answer(value) for digest, value in raw.items()}


def _answer(value: Any) -> Answer:
    if isinstance(value, list):
        return np.array([-np.inf if each is None else float(each) for each in value], dtype=np.float64)
    if not isinstance(value, str | float):
        raise TypeError(f"an answer that is {type(value).__name__}")
    return value
