"""The rows of the sources on the disk, while splits are cut of them.

A temporary SQLite database compares, orders and counts them, so that a million rows take no more memory than a
thousand; what it orders by is a hash, whose sorting SQLite does on the disk too.
"""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from pipelines.contracts.prepared import WHILE_PREPARED, Rejection, Row, Split
from pipelines.files import temporary_directory
from pipelines.tasks.rows import split_digest

BATCH = 1024  # rows written or read at once
CACHE_KIB = 64 * 1024  # of the database's pages that are held
_TABLES = """
PRAGMA journal_mode = OFF;  -- nobody reads it after a crash
PRAGMA synchronous = OFF;
PRAGMA temp_store = FILE;
CREATE TABLE rows (
    n INTEGER PRIMARY KEY,  -- in the order of the sources
    pool TEXT NOT NULL,  -- the split that its source is for
    kept INTEGER NOT NULL DEFAULT 1,
    split TEXT,  -- that it is in
    tokens INTEGER NOT NULL DEFAULT 0,
    key BLOB NOT NULL,
    unit BLOB NOT NULL,
    near BLOB NOT NULL,  -- what a split is sorted by before its text: see split_digest
    near_unit BLOB NOT NULL,
    domain REAL,
    label TEXT NOT NULL,
    completion TEXT NOT NULL,
    body TEXT NOT NULL
);
CREATE TABLE rejected (n INTEGER, file TEXT, line INTEGER, reason TEXT, value TEXT);
"""


class RowStore:
    """Rows by number, and what was rejected of them. Numbers go on from source to source."""

    def __init__(self, path: Path, seed: int) -> None:
        self.database = sqlite3.connect(path, isolation_level=None)
        self.database.executescript(_TABLES)
        self.database.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        self.database.execute("BEGIN")
        self._seed, self._number = seed, 0
        self._rows: list[tuple[object, ...]] = []

    def add(self, pool: Split, row: Row) -> None:
        """Take a row of the source for ``pool``."""
        self._number += 1
        near = split_digest(self._seed, row.key)
        near_unit = near if row.group is None else split_digest(self._seed, row.unit)
        body = {name: value for name, value in vars(row).items() if name not in WHILE_PREPARED}
        self._rows.append((
            self._number, pool, encoded(row.key), encoded(row.unit), near, near_unit, row.domain,
            json.dumps(row.label), json.dumps(row.completion), json.dumps(body),
        ))  # fmt: skip
        if len(self._rows) == BATCH:
            self.flush()

    def flush(self) -> None:
        """Write what was added."""
        self.database.executemany(
            "INSERT INTO rows (n, pool, key, unit, near, near_unit, domain, label, completion, body) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            self._rows,
        )
        self._rows.clear()

    def note(self, rejection: Rejection, number: int | None = None) -> None:
        """Note a rejection: of a row that was added, or of one that could not be."""
        if number is None:
            self._number += 1
        else:
            self.database.execute("UPDATE rows SET kept = 0 WHERE n = ?", (number,))
        self.database.execute(
            "INSERT INTO rejected VALUES (?, ?, ?, ?, ?)", (number or self._number, *_values(rejection))
        )

    def kept(self, pool: Split) -> Iterator[list[tuple[int, Row]]]:
        """Yield the kept rows of a source in batches, in order; meanwhile rows may be rejected and measured."""
        last = 0
        query = "SELECT n, key, tokens, body FROM rows WHERE n > ? AND pool = ? AND kept ORDER BY n LIMIT ?"
        while found := self.database.execute(query, (last, pool, BATCH)).fetchall():
            last = found[-1][0]
            yield [(number, decoded(*columns)) for number, *columns in found]

    def row(self, number: int) -> Row:
        """The row with a number."""
        return decoded(*self.database.execute("SELECT key, tokens, body FROM rows WHERE n = ?", (number,)).fetchone())

    def measured(self, number: int, tokens: int) -> None:
        """Note how many tokens a row has."""
        self.database.execute("UPDATE rows SET tokens = ? WHERE n = ?", (tokens, number))

    def count(self, pool: Split) -> int:
        """How many rows of a source are kept."""
        return int(self.value("SELECT count(*) FROM rows WHERE pool = ? AND kept", pool))

    def value(self, query: str, *arguments: object) -> Any:
        """The one value that a query gives."""
        return self.database.execute(query, arguments).fetchone()[0]

    def reasons(self) -> list[tuple[str, int, Rejection]]:
        """Reason, how many rows were left out for it, and the first of them; the most frequent reason first."""
        query = "SELECT reason, count(*), min(rowid) FROM rejected GROUP BY reason ORDER BY 2 DESC, 3"
        found = self.database.execute(query).fetchall()
        first = "SELECT file, line, reason, value FROM rejected WHERE rowid = ?"
        return [
            (reason, count, Rejection(*self.database.execute(first, (row,)).fetchone())) for reason, count, row in found
        ]

    def rejected(self) -> Iterator[Rejection]:
        """Yield what was left out, by file and line."""
        query = "SELECT file, line, reason, value FROM rejected ORDER BY file, line, rowid"
        return (Rejection(*values) for values in self.database.execute(query))


class StoredSplit(Sequence[Row]):
    """The rows of a split in their order, read from the store each time that they are asked for."""

    def __init__(self, store: RowStore, split: Split) -> None:
        self._store, self._split = store, split
        self._count = int(store.value("SELECT count(*) FROM rows WHERE split = ?", split))

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Row]:
        query = "SELECT key, tokens, body FROM rows WHERE split = ? ORDER BY near, key, ifnull(domain, 0.0), n"
        with closing(self._store.database.execute(query, (self._split,))) as found:
            for columns in found:
                yield decoded(*columns)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return list(itertools.islice(self, *place.indices(len(self))))
        return next(itertools.islice(self, range(len(self))[place], None))


@contextmanager
def row_store(beside: Path, seed: int) -> Iterator[RowStore]:
    """An empty store on the disk of ``beside``, for the time of the block."""
    with temporary_directory(beside.with_name(f"{beside.name}-rows")) as folder:
        store = RowStore(folder / "rows.sqlite", seed)
        with closing(store.database):
            yield store


def encoded(text: str) -> bytes:
    """A text's bytes, which compare as the text does; a key may hold halves of surrogate pairs."""
    return text.encode("utf-8", "surrogatepass")


def decoded(key: bytes, tokens: int, body: str) -> Row:
    """A row as it was added."""
    raw: dict[str, Any] = json.loads(body)
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in raw.items()}
    return Row(**values, key=key.decode("utf-8", "surrogatepass"), tokens=tokens)


def _values(rejection: Rejection) -> tuple[object, ...]:
    return rejection.file, rejection.line, rejection.reason, rejection.value
