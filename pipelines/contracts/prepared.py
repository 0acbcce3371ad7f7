"""The contract of data/prepared: what prepare writes and the later stages read."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pipelines.errors import PipelineError
from pipelines.files import read_json, read_jsonl, sha256_file, sha256_json, write_jsonl, write_text

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
FORMAT = 1


@dataclass(frozen=True)
class Row:
    """One prepared row: ``completion`` is what the model is to say after ``prompt``; ``id`` is FILE:LINE.

    ``domain`` is the row's t, finite, or None in data without a domain column.
    """

    id: str
    prompt: str
    completion: str
    label: str
    domain: float | None = None


@dataclass(frozen=True)
class TaskSpec:
    """How prompts were made and answers are read.

    Attributes:
        task: the task family.
        template: the prompt with {column} placeholders.
        chat: whether the prompt is a user's turn of the model's chat template.
        labels: the word that stands for each label, in the order of the reports.
        domain_column: which column each row's domain was read from; None for none.
    """

    task: str
    template: str
    chat: bool
    labels: dict[str, str]
    domain_column: str | None = None


@dataclass(frozen=True)
class Rejection:
    """A row that was left out: where it stands, why (one of few phrases), and the value that broke the rule."""

    file: str
    line: int
    reason: str
    value: str


def write_rows(folder: Path, split: Split, rows: list[Row]) -> None:
    """Write SPLIT.jsonl."""
    write_jsonl(folder / f"{split}.jsonl", (_without_none(asdict(row)) for row in rows))


def write_rejected(folder: Path, rejected: list[Rejection]) -> None:
    """Write rejected.jsonl."""
    write_jsonl(folder / "rejected.jsonl", (asdict(row) for row in rejected))


def write_task(folder: Path, task: TaskSpec) -> None:
    """Write task.json."""
    # Not write_json, which sorts keys: the order of the labels is that of the reports.
    write_text(
        folder / "task.json",
        json.dumps({"format": FORMAT, **_without_none(asdict(task))}, indent=2, ensure_ascii=False) + "\n",
    )


def read_rows(prepared: Path, split: Split) -> list[Row]:
    """Read a split.

    Raises:
        PipelineError: if the file is missing or a row has other fields.
    """
    path = prepared / f"{split}.jsonl"
    try:
        return [Row(**raw) for raw in read_jsonl(path)]
    except TypeError as error:
        raise PipelineError(f"{path} must hold prepared rows", got=error, do="Run the prepare stage again.") from None


def read_task(prepared: Path) -> TaskSpec:
    """Read task.json; raises :class:`PipelineError` if it is missing or of another format."""
    path = prepared / "task.json"
    raw: Any = read_json(path)
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise PipelineError(f"{path} must have format {FORMAT}", got=str(raw)[:80], do="Run the prepare stage again.")
    return TaskSpec(
        task=raw["task"],
        template=raw["template"],
        chat=raw["chat"],
        labels=raw["labels"],
        domain_column=raw.get("domain_column"),
    )


def data_sha256(prepared: Path) -> str:
    """Return the identity of the data: SHA-256 of the hashes of the three splits."""
    return sha256_json({split: sha256_file(prepared / f"{split}.jsonl") for split in SPLITS})


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    """Leave out what there is none of, so that data without domains have the bytes that they had before there were."""
    return {name: value for name, value in values.items() if value is not None}
