"""What stands beside the prepared rows for evaluation alone; no training reads it, and it is no part of their hash.

``near.jsonl``: rows of test and validation that nearly stand among the rows that a recipe is trained or chosen on.
``slices.jsonl``: of each test row the values of the columns that figures are sliced by.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pipelines.contracts.prepared import Row, Split
from pipelines.contracts.reading import read_lines
from pipelines.files import write_jsonl

NEAR, SLICES = "near.jsonl", "slices.jsonl"


@dataclass(frozen=True)
class NearRow:
    """A row that is nearly another one of another split.

    Attributes:
        split: of the row.
        id: of the row.
        other_split: of the most similar row there is in that split.
        other_id: of that row.
        similarity: of both texts, from 0 to 1.
    """

    split: Split
    id: str
    other_split: Split
    other_id: str
    similarity: float


@dataclass(frozen=True)
class RowValues:
    """A row's values of the columns that figures are sliced by; one that it has none of is not there."""

    id: str
    values: dict[str, str]


def write_near(folder: Path, rows: Iterable[NearRow]) -> None:
    """Write near.jsonl."""
    write_jsonl(folder / NEAR, map(asdict, rows))


def read_near(prepared: Path) -> list[NearRow]:
    """Read near.jsonl."""
    return read_lines(prepared / NEAR, lambda raw: NearRow(**raw), stage="prepare")


def write_slices(folder: Path, rows: Iterable[Row]) -> None:
    """Write slices.jsonl."""
    write_jsonl(folder / SLICES, (asdict(RowValues(row.id, dict(row.slices))) for row in rows))


def read_slices(prepared: Path) -> dict[str, Mapping[str, str]]:
    """Read slices.jsonl: by a row's id its values, by column."""
    rows = read_lines(prepared / SLICES, lambda raw: RowValues(raw["id"], dict(raw["values"])), stage="prepare")
    return {row.id: row.values for row in rows}
