"""A database's lock is one for all folders, names who holds it, and is free when its holder is killed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import sqlalchemy

from pipelines.runtime.database_lock import database_lock, locks
from pipelines.runtime.process import BusyError
from tests.postgres import postgres, why_not

HOLD = """
import sys, time
from pipelines.runtime.database_lock import database_lock
with database_lock(sys.argv[1], "registry", wait_seconds=10):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    with postgres() as address:
        yield address


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of either kind."""
    return str(request.getfixturevalue("postgresql")) if request.param == "postgresql" else f"sqlite:///{tmp_path}/a.db"


@contextmanager
def holder(url: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process, in another folder, that holds the lock."""
    folder.mkdir()
    with subprocess.Popen([sys.executable, "-c", HOLD, url], cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def take(url: str, kind: str = "registry", name: str = "") -> AbstractContextManager[Callable[[], None]]:
    return database_lock(url, kind, name, wait_seconds=0.3)


def test_whoever_waits_too_long_is_told_who_holds_it_and_gets_it_when_that_is_killed(url: str, tmp_path: Path) -> None:
    with holder(url, tmp_path / "neighbour") as process:
        with pytest.raises(BusyError, match=rf"held by reft {process.pid} on \S+ in neighbour.*since \d\d:"), take(url):
            pass
        process.kill()  # as kill -9 does
        process.wait()
        with take(url) as confirm:
            confirm()


def test_locks_of_other_kinds_and_of_other_databases_are_others(url: str, tmp_path: Path) -> None:
    with take(url), take(url, "tables"), take(f"sqlite:///{tmp_path}/b.db"):
        pass


def test_a_link_to_the_folder_is_the_same_database(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with (
        holder(f"sqlite:///{tmp_path}/real/a.db", tmp_path / "neighbour"),
        pytest.raises(BusyError),
        take(f"sqlite:///{tmp_path}/link/a.db"),
    ):
        pass


@pytest.mark.slow
def test_a_session_that_was_lost_is_noticed(postgresql: str) -> None:
    end = sqlalchemy.text(
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid()"
    )
    with take(postgresql) as confirm:
        confirm()
        with sqlalchemy.create_engine(postgresql).connect() as other:
            other.execute(end)
        with pytest.raises(sqlalchemy.exc.OperationalError):
            confirm()


@pytest.mark.slow
def test_names_are_told_apart_by_postgresql(postgresql: str) -> None:
    with take(postgresql, "trials", "one"), take(postgresql, "trials", "two"):
        pass


@pytest.mark.parametrize(
    ("url", "has"),
    [
        ("sqlite:///a.db", True),
        ("postgresql+psycopg2://h/d", True),
        ("postgresql://h/d", True),
        ("mysql+pymysql://h/d", False),
        ("https://h", False),
    ],
)
def test_which_stores_have_locks(url: str, has: bool) -> None:
    assert locks(url) is has
