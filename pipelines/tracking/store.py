"""Where the tracking store and the database of trials are, and whether they answer: within seconds, and lightly."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import sqlite3
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from pipelines.errors import PipelineError
from pipelines.files import set_aside
from pipelines.params.whole import TrackingParams
from pipelines.runtime.database_lock import database_lock
from pipelines.runtime.process import work_folder

PING_SECONDS = 5.0
SILENT = (OSError, ValueError, sqlite3.Error, http.client.HTTPException)  # what a store that is none raises
SQLITE_ENDS = ("-journal", "-wal", "-shm")  # of the files that sqlite keeps beside a database
PORTS = {"postgresql": 5432, "mysql": 3306}


def public_uri(uri: str) -> str:
    """Return the address without user, password and query: what may stand in a file, a log or a message."""
    if uri.startswith("sqlite:"):
        return uri.partition("?")[0]
    parts = urlsplit(uri)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def store_uri(tracking: TrackingParams, root: Path) -> str:
    """The store's address; a relative sqlite path is taken under the project folder."""
    return _under(tracking.uri, root)


def public_store(tracking: TrackingParams, root: Path) -> str:
    """The store's address as it may be shown: whole, so that it means the same in any folder, and without password."""
    return public_uri(store_uri(tracking, root))


def check_store(tracking: TrackingParams, root: Path) -> None:
    """Make sure, within some seconds and without loading MLflow, that the store answers.

    Raises:
        PipelineError: if the server or database does not answer, or the sqlite file cannot be one.
    """
    uri = store_uri(tracking, root)
    try:
        _ping(uri)
    except SILENT as error:
        raise unreachable(uri, error) from None


def trials_uri(storage: str, root: Path) -> str:
    """The address of the database of trials; a relative sqlite path is taken under the project folder."""
    return _under(storage, root)


def check_trials(storage: str, root: Path) -> None:
    """Make sure, within some seconds and without loading Optuna, that search.storage answers.

    A damaged file in the project's own work folder is set aside, and the search begins anew: its trials are work in
    progress. One elsewhere is somebody's to mend.

    Raises:
        PipelineError: if the database does not answer, or the sqlite file cannot be one.
    """
    uri = trials_uri(storage, root)
    path = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:///") and work_folder(root.resolve()) in path.parents:
        _set_aside_damaged(path)
    try:
        _ping(uri)
    except SILENT as error:
        raise unreachable(uri, error, rule="search.storage must answer", key="search.storage") from None


def _set_aside_damaged(path: Path) -> None:
    """Set a database aside whose pages are not those of one, with its journal, which would be taken for the next's."""
    if _damage(path) is None:
        return
    with database_lock(f"sqlite:///{path}", "tables", wait_seconds=None):  # under it the tables are made
        why = _damage(path)  # another process may have been here
        if why is not None:
            set_aside(path, why)
            for end in SQLITE_ENDS:
                if (beside := path.with_name(path.name + end)).exists():
                    set_aside(beside, why)


def _damage(path: Path) -> str | None:
    """What is wrong with the pages of a database; one that cannot be asked, or is busy, has no damage that is known."""
    if not path.is_file():
        return None
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=PING_SECONDS)) as connection:
            said = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
            return None if said == "ok" else said
    except sqlite3.OperationalError:
        return None
    except sqlite3.DatabaseError as error:
        return str(error)


def unreachable(
    uri: str, error: BaseException, *, rule: str = "the tracking store must answer", key: str = "tracking.uri"
) -> PipelineError:
    """The error for a store that does not answer or refuses, without its password."""
    # The driver's words hold the whole address, so a password too, in the text of sqlalchemy's errors.
    secret = urlsplit(uri).password
    reason = " ".join(str(error).split())[:300]
    return PipelineError(
        rule,
        got=f"{public_uri(uri)}: {reason.replace(secret, '***') if secret else reason}",
        do=f"Start it or repair it, or set {key} in params.yaml.",
    )


def _under(uri: str, root: Path) -> str:
    if not uri.startswith("sqlite:///"):
        return uri
    path = root.resolve() / uri.removeprefix("sqlite:///")
    if "?" in root.resolve().as_posix() and path.is_relative_to(root.resolve()):
        raise PipelineError(
            "the path of a project with an sqlite database in it must not hold a ?, at which an address of one ends",
            got=root.resolve(),
            do="Move or rename the folder; the project comes with it.",
        )
    return f"sqlite:///{path.as_posix()}"


def _ping(uri: str) -> None:
    scheme = urlsplit(uri).scheme.partition("+")[0]
    if scheme == "sqlite":
        _ping_file(Path(uri.removeprefix("sqlite:///")))
    elif scheme in PORTS:
        _ping_port(uri, PORTS[scheme])
    else:
        _ping_http(uri)


def _ping_file(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        with contextlib.closing(sqlite3.connect(path, timeout=PING_SECONDS)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise PermissionError(f"{path} cannot be written")


def _ping_port(uri: str, port: int) -> None:
    parts = urlsplit(uri)
    if parts.hostname:  # none: a local socket, which the driver finds by itself
        socket.create_connection((parts.hostname, parts.port or port), timeout=PING_SECONDS).close()


def _ping_http(uri: str) -> None:
    try:
        urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=PING_SECONDS).close()  # noqa: S310  (http or https: params.py)
    except urllib.error.HTTPError as error:
        if error.code >= 500:  # 401, 403 and 404 are answers too
            raise
