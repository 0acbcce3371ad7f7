"""Another process of DVC at work in the project: it is waited for, and then named."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.runs.dvc import await_lock
from pipelines.errors import PipelineError

HOLD = (
    "import sys, time, zc.lockfile; lock = zc.lockfile.LockFile(sys.argv[1]); print('held', flush=True); time.sleep(60)"
)


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock as DVC does, with its library."""
    lock = tmp_path / ".dvc" / "tmp" / "lock"
    lock.parent.mkdir(parents=True)
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_process_that_holds_dvcs_lock_is_named(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=rf"one process at a time.*process {holder.pid} \(.*zc\.lockfile"):
        await_lock(tmp_path, 0.3)


def test_dvcs_lock_is_waited_for(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    began = time.monotonic()
    with subprocess.Popen(["sh", "-c", f"sleep 0.5; kill -9 {holder.pid}"]):
        await_lock(tmp_path)
        assert time.monotonic() - began > 0.4  # and at most a minute, after which it is an error


def test_nothing_is_waited_for_where_nobody_holds_it(tmp_path: Path) -> None:
    await_lock(tmp_path, 0)
    (tmp_path / ".dvc" / "tmp").mkdir(parents=True)
    (tmp_path / ".dvc" / "tmp" / "lock").write_text(" 1\n")
    await_lock(tmp_path, 0)
