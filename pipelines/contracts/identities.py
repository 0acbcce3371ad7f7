"""data/prepared/identities.jsonl: which text and group each row is, as hashes; and those that a version was made with.

A version keeps the hashes of its training and validation rows, so that later it is compared on none of them. They tell
nobody the texts, and they stay the same where a template changes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.contracts.prepared import Row, Split
from pipelines.contracts.reading import Fields, read_fields, read_lines
from pipelines.files import write_json, write_jsonl

NAME = "identities.jsonl"
FORMAT = 1
DIGITS = 16  # of a hash, 64 bits: of a thousand rows beside ten million, one is taken for another once in 10^9
MADE_WITH: tuple[Split, ...] = ("train", "validation")  # what a version was fitted to, and chosen on


@dataclass(frozen=True)
class Identity:
    """A prepared row's text, as texts are compared, and its group; both as hashes. None: it belongs to itself alone."""

    id: str
    split: Split
    text: str
    group: str | None


@dataclass(frozen=True)
class Seen:
    """The hashes of texts and groups that a version was made with."""

    texts: frozenset[str]
    groups: frozenset[str]

    def knows(self, text: str, group: str | None) -> bool:
        """Whether a row with these hashes, or one of its group, is among them."""
        return text in self.texts or group in self.groups


def write_identities(folder: Path, splits: Mapping[Split, Sequence[Row]]) -> None:
    """Write the identities of rows that are being prepared, whose ``key`` is still there."""
    write_jsonl(folder / NAME, (vars(_identity(row, split)) for split, rows in splits.items() for row in rows))


def read_identities(prepared: Path) -> list[Identity]:
    """Read the identities of all rows; raises :class:`PipelineError` if they are not what the stage writes."""
    return read_lines(prepared / NAME, lambda raw: Identity(**raw), stage="prepare")


def seen_of(identities: Iterable[Identity]) -> Seen:
    """What a version is made with that is trained and chosen on these rows."""
    used = [one for one in identities if one.split in MADE_WITH]
    return Seen(frozenset(one.text for one in used), frozenset(one.group for one in used if one.group is not None))


def write_seen(path: Path, seen: Seen) -> None:
    """Write the hashes as a file that a version keeps."""
    write_json(path, {"format": FORMAT, "texts": sorted(seen.texts), "groups": sorted(seen.groups)})


def read_seen(path: Path) -> Seen:
    """Read such a file; raises :class:`PipelineError` if it is none."""
    return read_fields(path, _seen, stage="register")


def _seen(raw: Fields) -> Seen:
    return Seen(frozenset(_texts(raw["texts"])), frozenset(_texts(raw["groups"])))


def _texts(raw: Sequence[object]) -> Iterator[str]:
    for one in raw:
        if not isinstance(one, str):
            raise TypeError(f"a {type(one).__name__} among the hashes")
        yield one


def _identity(row: Row, split: Split) -> Identity:
    return Identity(row.id, split, _hash(row.key), None if row.group is None else _hash(row.group))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:DIGITS]
