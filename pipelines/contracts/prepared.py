"""The rows of data/prepared, one file a split, and those that were left out, with the reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pipelines.errors import PipelineError, printable
from pipelines.files import read_jsonl, sha256_file, sha256_json, write_jsonl

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
FORMAT = 1
SHOWN = 200  # characters of a value in a rejection
ALWAYS = ("id", "prompt", "completion")  # in the files; of the others, those that a row has
WHILE_PREPARED = ("key", "tokens")
BESIDE = "slices"  # of a row, in a file of its own: what figures are sliced by is no part of what is trained on


@dataclass(frozen=True)
class Row:
    """One row of a task, from where a data file's row is understood to where a model is asked.

    Attributes:
        id: FILE:LINE of the source.
        prompt: what the model reads.
        completion: what it is to say after the prompt, and is trained on.
        label: the name of the right answer, or of the slice that it is counted in; "" for none. Splits are stratified
            by it.
        domain: its t, finite, or None in data without a domain column.
        choices: the texts that may be answered, where they differ by row.
        choice_tokens: how many tokens each of them has.
        options: what each of them stands for, where they are letters.
        references: the texts that count as right, where the answer is free.
        group: what it belongs to (a passage, a pair of twins), which never crosses splits; None for itself alone.
        second: the other text of a pair, which an encoder reads beside the prompt; "" for none.
        task: of a mixture, the name of the task that it is of; "" where all rows are of one.
        key: while it is prepared: its own text, as texts are compared. Not written.
        tokens: while it is prepared: of the prompt with the completion or its longest choice. Not written.
        slices: while it is prepared: its values of the columns that figures are sliced by. Written for themselves.
    """

    id: str
    prompt: str
    completion: str
    label: str = ""
    domain: float | None = None
    choices: tuple[str, ...] = ()
    choice_tokens: tuple[int, ...] = ()
    options: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    group: str | None = None
    second: str = ""
    task: str = ""
    key: str = ""
    tokens: int = 0
    slices: Mapping[str, str] = field(default_factory=dict)

    @property
    def unit(self) -> str:
        """What is in one split as a whole: the row's group, or its text, which may stand in several domains."""
        return self.key if self.group is None else self.group

    def reject(self, reason: str, value: object) -> Rejection:
        """The rejection of this row."""
        file, _, line = self.id.rpartition(":")
        return Rejection(file, int(line), reason, printable(str(value)[:SHOWN]))


@dataclass(frozen=True)
class Rejection:
    """A row that was left out: where it stands, why (one of few phrases), and the value that broke the rule."""

    file: str
    line: int
    reason: str
    value: str


def write_rows(folder: Path, split: Split, rows: Iterable[Row]) -> None:
    """Write SPLIT.jsonl."""
    write_jsonl(folder / f"{split}.jsonl", (_written(row) for row in rows))


def write_rejected(folder: Path, rejected: Iterable[Rejection]) -> None:
    """Write rejected.jsonl."""
    write_jsonl(folder / "rejected.jsonl", (asdict(row) for row in rejected))


def read_rows(prepared: Path, split: Split) -> list[Row]:
    """Read a split.

    Raises:
        PipelineError: if the file is missing or a row has other fields.
    """
    path = prepared / f"{split}.jsonl"
    try:
        return [_read(raw) for raw in read_jsonl(path)]
    except TypeError as error:
        raise PipelineError(f"{path} must hold prepared rows", got=error, do="Run the prepare stage again.") from None


def data_sha256(prepared: Path) -> str:
    """Return the identity of the data: SHA-256 of the hashes of the three splits."""
    return sha256_json({split: sha256_file(prepared / f"{split}.jsonl") for split in SPLITS})


def _written(row: Row) -> dict[str, Any]:
    """Leave out what a row has none of: a task's files have nothing in them of what other tasks need."""
    values = {name: value for name, value in vars(row).items() if name not in (*WHILE_PREPARED, BESIDE)}
    return {name: value for name, value in values.items() if name in ALWAYS or value not in (None, (), "")}


def _read(raw: dict[str, Any]) -> Row:
    several = ("choices", "choice_tokens", "options", "references")
    lists: dict[str, Any] = {name: tuple(raw[name]) for name in several if name in raw}
    return Row(**{**raw, **lists})
