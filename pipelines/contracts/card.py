"""metrics/data.json: the data card, what the stage prepare says of the rows."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipelines.contracts.prepared import FORMAT, SPLITS, Split
from pipelines.contracts.reading import Fields, read_metrics, write_metrics

TOTAL = "total"
_IDENTITIES = ("source_sha256", "content_sha256")


@dataclass(frozen=True)
class Domains:
    """The lowest and the highest domain of a split's rows, and how many different ones there are."""

    low: float
    high: float
    different: int


@dataclass(frozen=True)
class SplitCard:
    """Rows of a split: how many, by label, their lengths in tokens (quantiles and the longest), and their domains."""

    rows: int
    labels: dict[str, int]
    tokens: dict[str, float]
    domain: Domains | None = None


@dataclass(frozen=True)
class TaskCard:
    """What became of the rows of a mixture's task; ``rows`` are those that stand in the splits."""

    source: str
    source_sha256: str | None
    read: int
    rejected: int
    unused: int
    rows: dict[Split, int]


@dataclass(frozen=True)
class Overlap:
    """How many rows of one split say what those of another do.

    Attributes:
        left_out: rows whose text or group stands in the sources of two splits, and are in one alone.
        test_near_train: test rows that are nearly a training row; near.jsonl names them.
        test_near_validation: test rows that are nearly one of validation.
        validation_near_train: rows of validation that are nearly a training row.
    """

    left_out: int
    test_near_train: int
    test_near_validation: int
    validation_near_train: int


@dataclass(frozen=True)
class DataCard:
    """What metrics/data.json holds beside its format number; ``rejected`` counts rows by reason.

    ``near_duplicates``: rows that differ from another in signs and spacing alone, and from one of another split;
    ``joined_otherwise``: rows whose prompt and completion have other tokens together than apart. ``tasks``: those of a
    mixture, by their names; not written where there is one task. ``overlap`` of splits is None in a file of an earlier
    release.
    """

    source: str
    source_sha256: str | None
    content_sha256: str
    read: int
    rejected: dict[str, int]
    unused: int
    near_duplicates: dict[str, int]
    joined_otherwise: int
    splits: dict[Split, SplitCard]
    tasks: dict[str, TaskCard] = field(default_factory=dict)
    overlap: Overlap | None = None


def write_card(path: Path, card: DataCard) -> None:
    """Write data.json."""
    rejected = {TOTAL: sum(card.rejected.values()), **card.rejected}
    splits = {name: _without_none(asdict(split)) for name, split in card.splits.items()}
    values = {"format": FORMAT, **asdict(card), "rejected": rejected, "splits": splits}
    if not card.tasks:
        del values["tasks"]
    write_metrics(path, values, identities=_IDENTITIES)


def read_card(path: Path) -> DataCard:
    """Read data.json; raises :class:`PipelineError` if it is not what the stage writes."""
    return read_metrics(path, _card, stage="prepare")


def _card(raw: Fields) -> DataCard:
    values = {"overlap": None, **{name: value for name, value in raw.items() if name != "format"}}
    if values["overlap"] is not None:
        values["overlap"] = Overlap(**values["overlap"])
    rejected = {reason: count for reason, count in raw["rejected"].items() if reason != TOTAL}
    splits = {name: _split(raw["splits"][name]) for name in SPLITS}
    tasks = {name: TaskCard(**task) for name, task in raw.get("tasks", {}).items()}
    return DataCard(**{**values, "rejected": rejected, "splits": splits, "tasks": tasks})


def _split(raw: Fields) -> SplitCard:
    domain = {"domain": Domains(**raw["domain"])} if "domain" in raw else {}
    return SplitCard(**{**raw, **domain})


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
