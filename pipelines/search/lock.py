"""The lock under which the trials of a study are counted and begun: one for all processes, on whatever machine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy
from filelock import FileLock
from sqlalchemy.pool import NullPool

# A machine that is gone without a word is noticed within a minute, and its lock is free.
KEEPALIVE = {"tcp_keepalives_idle": 30, "tcp_keepalives_interval": 10, "tcp_keepalives_count": 3}


@contextmanager
def study_lock(url: str, name: str) -> Iterator[None]:
    """Hold the lock ``name`` of a database of trials; it is gone when the process is, however it ends.

    A file of sqlite has a lock file beside it. PostgreSQL holds the lock itself, in a session that lasts as long.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: if the database does not answer.
    """
    engine = sqlalchemy.create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    if engine.dialect.name == "sqlite":
        path = Path(str(engine.url.database))
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f"{path.name}.lock")):
            yield
        return
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)
    with engine.connect() as session:  # whose end frees the lock
        for setting, value in KEEPALIVE.items():
            session.execute(sqlalchemy.text(f"SET {setting} = {value}"))
        session.execute(sqlalchemy.text("SELECT pg_advisory_lock(:key)"), {"key": key})
        yield
