"""Locks that belong to a database: one for all who use it, from whatever folder, container or machine.

sqlite has a lock file beside the database, which the operating system holds. PostgreSQL holds the lock itself, in a
session that lasts as long. Either is free when its holder's process is gone, however it ended.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from pipelines.files import write_json
from pipelines.runtime.process import BusyError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

log = logging.getLogger(__name__)

# A machine that is gone without a word is noticed within a minute, and its lock is free.
KEEPALIVE = {"tcp_keepalives_idle": 30, "tcp_keepalives_interval": 10, "tcp_keepalives_count": 3}
LOCK_NOT_AVAILABLE = "55P03"  # what PostgreSQL says when lock_timeout is over
LONGEST_NAME = 63  # bytes of a session's name; PostgreSQL cuts what is longer
QUIET_SECONDS = 5.0  # of waiting, before it is told for whom

Check = Callable[[], None]
"""Raises if the lock is no longer held: the database's own error."""


def locks(url: str) -> bool:
    """Whether the address is of a database that has such locks."""
    return url.startswith(("sqlite:", "postgresql:", "postgresql+"))


@contextlib.contextmanager
def database_lock(url: str, kind: str, name: str = "", *, wait_seconds: float | None) -> Iterator[Check]:
    """Hold a lock of a database; yields what tells whether it is still held.

    Args:
        url: the database's address; see :func:`locks`.
        kind: what is locked, one word. A file of sqlite has one lock for each kind.
        name: which of that kind, where a database can tell them apart.
        wait_seconds: how long another may hold it; None for as long as it does.

    Raises:
        BusyError: if another holds it for longer; the message names it.
        sqlalchemy.exc.SQLAlchemyError: if the database does not answer.
        OSError: if there can be no file beside the database.
    """
    import sqlalchemy
    from sqlalchemy.pool import NullPool

    engine = sqlalchemy.create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    if engine.dialect.name == "sqlite":
        # Resolved, since a link to the folder is another name of the same database.
        file = Path(str(engine.url.database)).resolve()
        with _file_lock(file.with_name(f"{file.name}.{kind}.lock"), kind, wait_seconds):
            yield lambda: None
        return
    with _session_lock(engine, f"{kind}:{name}", kind, wait_seconds) as session:
        yield lambda: _confirm(session)


@contextlib.contextmanager
def _file_lock(path: Path, kind: str, wait_seconds: float | None) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    lock, holder = FileLock(path), path.with_name(f"{path.name}.json")
    _wait(lambda seconds: _take_file(lock, seconds), lambda: _read_holder(holder), kind, wait_seconds)
    try:
        write_json(holder, {"who": holder_name(), "since": time.time()})
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _take_file(lock: FileLock, seconds: float | None) -> bool:
    try:
        lock.acquire(timeout=-1 if seconds is None else seconds)
    except Timeout:
        return False
    return True


def _read_holder(holder: Path) -> str:
    try:
        raw = json.loads(holder.read_text(encoding="utf-8"))
        return f"{raw['who']}, since {time.strftime('%H:%M:%S', time.localtime(raw['since']))}"
    except (OSError, ValueError, KeyError, TypeError):
        return "a process that did not leave its name"


@contextlib.contextmanager
def _session_lock(engine: Engine, name: str, kind: str, wait_seconds: float | None) -> Iterator[Connection]:
    import sqlalchemy

    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)
    with engine.connect() as session:  # whose end frees the lock
        for setting, value in KEEPALIVE.items():
            session.execute(sqlalchemy.text(f"SET {setting} = {value}"))
        session.execute(sqlalchemy.text("SELECT set_config('application_name', :name, false)"), {"name": holder_name()})
        _wait(
            lambda seconds: _take_session(session, key, seconds), lambda: _session_holder(session, key), kind,
            wait_seconds,
        )  # fmt: skip
        yield session


def _take_session(session: Connection, key: int, seconds: float | None) -> bool:
    import sqlalchemy

    milliseconds = 0 if seconds is None else max(1, round(1000 * seconds))  # 0 is for ever
    session.execute(sqlalchemy.text(f"SET lock_timeout = {milliseconds}"))
    try:
        session.execute(sqlalchemy.text("SELECT pg_advisory_lock(:key)"), {"key": key})
    except sqlalchemy.exc.DBAPIError as error:
        if LOCK_NOT_AVAILABLE in (getattr(error.orig, "pgcode", None), getattr(error.orig, "sqlstate", None)):
            return False
        raise
    return True


def _session_holder(session: Connection, key: int) -> str:
    """Who holds the lock, by the name that its session has, and where from."""
    import sqlalchemy

    # A key of 64 bits stands in pg_locks as two numbers of 32 that have no sign.
    query = sqlalchemy.text(
        "SELECT a.application_name, a.client_addr, to_char(a.query_start, 'HH24:MI:SS') "
        "FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory' AND l.granted "
        "AND l.objsubid = 1 AND ((l.classid::bigint << 32) | l.objid::bigint) = :key"
    )
    row = session.execute(query, {"key": key}).first()
    if row is None:
        return "a process that has just ended"
    name, address, since = row
    told = [name or "a process without a name", f"from {address}" if address else "", f"since {since}" if since else ""]
    return ", ".join(part for part in told if part)


def _confirm(session: Connection) -> None:
    import sqlalchemy

    session.execute(sqlalchemy.text("SELECT 1"))


def _wait(
    take: Callable[[float | None], bool], holder: Callable[[], str], kind: str, wait_seconds: float | None
) -> None:
    """Take the lock: quietly at first, and then saying for whom this process waits."""
    first = QUIET_SECONDS if wait_seconds is None else min(QUIET_SECONDS, wait_seconds)
    if take(first):
        return
    log.info("waiting for the lock %s, which is held by %s", kind, holder())
    if take(None if wait_seconds is None else wait_seconds - first):
        return
    raise BusyError(
        f"one process at a time holds the lock {kind} of a database; this one waited {wait_seconds:.0f} s",
        got=f"it is held by {holder()}",
        do="Wait for that process, or stop it: the lock is free when it is gone.",
    )


def holder_name() -> str:
    """This process as others are told of it: its number, its machine and its folder; the end may be cut."""
    told = f"reft {os.getpid()} on {socket.gethostname()} in {Path.cwd().name}"
    return told.encode()[:LONGEST_NAME].decode("utf-8", "ignore")
