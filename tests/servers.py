"""A real Prefect server and its worker, on a free port of this machine, for the tests that need them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tests.project import Project

T = TypeVar("T")


def free_port() -> int:
    """A port that nobody listens at just now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def wait_for(what: str, look: Callable[[], T | None], *, seconds: float, every: float = 1.0) -> T:
    """What ``look`` finds, once it finds something; fails after ``seconds``."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = look()
        if found is not None and found is not False:
            return found
        time.sleep(every)
    raise AssertionError(f"no {what} within {seconds:.0f} s")


def kill(process: subprocess.Popen[bytes], *, group: bool = True) -> None:
    """End it as kill -9 does, with all that it started or alone."""
    if process.poll() is None:
        if group:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()


@contextmanager
def prefect_server(project: Project, log: Path) -> Iterator[str]:
    """``prefect server start`` until the block ends; the project's commands use it. Yields its API's address."""
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    project.env["PREFECT_API_URL"] = api
    server = project.start(
        "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port),
        log=log, PREFECT_SERVER_UI_ENABLED="false", PREFECT_SERVER_ANALYTICS_ENABLED="false",
    )  # fmt: skip
    try:
        wait_for("server", lambda: answers(f"{api}/health"), seconds=600)
        yield api
    finally:
        kill(server)
        del project.env["PREFECT_API_URL"]


def answers(url: str) -> bool:
    """Whether a server answers well at this address."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
