"""A PostgreSQL server of the tests' own, from Debian's package: a fresh cluster on a free port of this machine."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers import free_port, wait_for

FOLDERS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
USER = "postgres"  # the server refuses to run as root
# What keeps data safe in a power cut is left out.
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
}


def why_not() -> str | None:
    """Why there can be no server here; None if there can."""
    if not FOLDERS:
        return "PostgreSQL is not installed (apt-get install postgresql)"
    if importlib.util.find_spec("psycopg2") is None:
        return "its driver is not installed (make setup)"
    if os.geteuid() == 0 and shutil.which("runuser") is None:
        return "a PostgreSQL server does not run as root, and there is no runuser"
    return None


@contextmanager
def postgres() -> Iterator[str]:
    """The address of a database that is there until the block ends."""
    folder, port = Path(tempfile.mkdtemp(prefix="reft-postgres-")), free_port()
    if os.geteuid() == 0:
        shutil.chown(folder, USER)
    data, log = folder / "data", folder / "log"
    subprocess.run(
        _as_user("initdb", "--pgdata", str(data), "--username", "reft", "--auth", "trust", "--no-sync"),
        check=True, capture_output=True, cwd="/",
    )  # fmt: skip
    words = [word for name, value in SETTINGS.items() for word in ("-c", f"{name}={value}")]
    with log.open("wb") as file:
        server = subprocess.Popen(
            _as_user("postgres", "-D", str(data), "-p", str(port), *words),
            stdout=file, stderr=file, cwd="/", start_new_session=True,
        )  # fmt: skip
    try:
        wait_for("PostgreSQL", lambda: _listens(port), seconds=60, every=0.1)
        yield f"postgresql://reft@127.0.0.1:{port}/postgres"
    finally:
        os.killpg(server.pid, signal.SIGQUIT)  # at once, without a last checkpoint
        server.wait(timeout=30)
        shutil.rmtree(folder)


def _as_user(program: str, *words: str) -> list[str]:
    command = [str(FOLDERS[-1] / program), *words]
    return ["runuser", "-u", USER, "--", *command] if os.geteuid() == 0 else command


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
