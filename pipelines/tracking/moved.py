"""A project's own store follows the project to another folder.

MLflow keeps where artifacts lie as absolute addresses, whatever it is given. Of a store that lies in the project, they
are corrected when it is opened at another place than the one that they name: a moved project would otherwise make its
old folder again, and a copied one would write into the original's.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pipelines.params.whole import TrackingParams
from pipelines.tracking.store import store_uri

log = logging.getLogger(__name__)

PROJECT = "reft.project"  # tag of our experiment: the folder that the addresses in its store are for
# Where the tables of MLflow hold addresses; a test looks for others.
ADDRESSES = (
    ("experiments", "artifact_location"),
    ("experiment_tags", "value"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
LOCK_SECONDS = 30.0


def follow_project(tracking: TrackingParams, root: Path) -> None:
    """Correct the addresses in the project's own store, if it was made or last opened in another folder.

    The lock on the store is the caller's. A server, and a database that lies elsewhere, are left as they are: they are
    where they say.
    """
    file = own_database(tracking, root)
    if file is None or not file.is_file():
        return
    with contextlib.closing(sqlite3.connect(file, timeout=LOCK_SECONDS)) as connection, connection:
        former = _former_root(connection, tracking)
        if former is None or former == root.resolve():
            return
        for table, column in ADDRESSES:
            if _has(connection, table, column):
                _replace(connection, table, column, former, root.resolve())
    log.info("The project was in %s before; its tracking store now names this folder.", former)


def own_database(tracking: TrackingParams, root: Path) -> Path | None:
    """The file of the tracking store, if it is one and lies in the project."""
    uri = store_uri(tracking, root)
    if not uri.startswith("sqlite:///"):
        return None
    file = Path(uri.removeprefix("sqlite:///").partition("?")[0]).resolve()
    return file if file.is_relative_to(root.resolve()) else None


def _former_root(connection: sqlite3.Connection, tracking: TrackingParams) -> Path | None:
    """The folder that the addresses are for; without the tag, of earlier releases, as the artifacts' folder says it."""
    if not _has(connection, "experiment_tags", "value"):
        return None  # no tables yet
    tagged = connection.execute("SELECT value FROM experiment_tags WHERE key = ?", (PROJECT,)).fetchone()
    if tagged is not None:
        return _local_path(tagged[0])
    below = Path(tracking.artifacts)
    for (address,) in connection.execute("SELECT artifact_location FROM experiments").fetchall():
        path = _local_path(address)
        if path is not None and not below.is_absolute() and path.parts[-len(below.parts) :] == below.parts:
            return path.parents[len(below.parts) - 1]
    return None


def _has(connection: sqlite3.Connection, table: str, column: str) -> bool:
    return (column,) in connection.execute("SELECT name FROM pragma_table_info(?)", (table,)).fetchall()


def _local_path(address: str) -> Path | None:
    parts = urlsplit(address)
    if parts.scheme not in ("", "file"):
        return None
    return Path(unquote(parts.path) if parts.scheme else address)


def _replace(connection: sqlite3.Connection, table: str, column: str, former: Path, now: Path) -> None:
    for old, new in _spellings(former, now):
        connection.execute(
            f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {column} = ? OR substr({column}, 1, ?) = ?",  # noqa: S608
            (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
        )


def _spellings(former: Path, now: Path) -> Iterator[tuple[str, str]]:
    """A folder as MLflow may have written it: as an address, and as a path."""
    yield former.as_uri(), now.as_uri()
    yield str(former), str(now)
