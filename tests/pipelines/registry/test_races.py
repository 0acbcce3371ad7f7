"""Projects of one store register, or promote, at the same moment: one version an adapter, aliases as they are due."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.postgres import postgres, why_not
from tests.promoting import race_promotions
from tests.racing import race
from tests.servers import answers, free_port, wait_for

pytestmark = pytest.mark.long

ROUNDS = int(os.environ.get("REFT_RACES", "10"))  # of each store


@contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    with postgres() as address:
        yield address


@contextmanager
def sqlite(folder: Path) -> Iterator[str]:
    yield f"sqlite:///{folder}/shared/mlflow.db"


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """``mlflow server`` on PostgreSQL."""
    port = free_port()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # the server looks for uvicorn there
    env = os.environ | {"PATH": path, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # nothing here is a job
    with postgresql(folder) as address, (folder / "log").open("w") as log:
        command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", address, "--workers", "1"]
        command += ["--artifacts-destination", str(folder / "artifacts"), "--host", "127.0.0.1", "--port", str(port)]
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=env)
        try:
            wait_for("server", lambda: answers(f"http://127.0.0.1:{port}/health"), seconds=600)
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.parametrize("store", [sqlite, postgresql, server])
def test_each_race_has_one_challenger(store: Callable[[Path], AbstractContextManager[str]], tmp_path: Path) -> None:
    with store(tmp_path) as uri:
        figures, words = race(tmp_path, uri, ROUNDS)
    print(f"{uri}: {figures}")  # pytest -s shows it
    assert str(figures) == (
        f"races {ROUNDS}, right {ROUNDS}, false alias 0, lost alias 0, double versions 0, errors 0"
    ), words


@pytest.mark.parametrize("store", [sqlite, postgresql, server])
def test_of_two_challengers_the_better_one_is_champion_at_the_end(
    store: Callable[[Path], AbstractContextManager[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REFT_HOME", str(tmp_path / "home"))
    with store(tmp_path) as uri:
        figures, words = race_promotions(tmp_path, uri, ROUNDS)
    print(f"{uri}: {figures}")  # pytest -s shows it
    assert str(figures) == f"races {ROUNDS}, right {ROUNDS}, wrong previous 0, lost alias 0, unfinished 0, errors 0", (
        words
    )
