"""What a killed flow left at work is ended by the next, and nobody else's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.runs.orphans import end_orphans
from pipelines.runtime.process import FLOW_PID

# A DVC that hangs as one does that waits for its remote: run as `python -m dvc push`, from a module of that name.
HANGS = "import time; time.sleep(600)"


def hanging(root: Path, owner: int | None) -> subprocess.Popen[bytes]:
    root.mkdir(exist_ok=True)
    (root / "dvc.py").write_text(HANGS, encoding="utf-8")
    env = {name: value for name, value in os.environ.items() if name != FLOW_PID}
    env |= {} if owner is None else {FLOW_PID: str(owner)}
    return subprocess.Popen([sys.executable, "-m", "dvc", "push"], cwd=root, env=env)


@pytest.fixture
def gone() -> int:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


@pytest.fixture
def others(tmp_path: Path, gone: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """A user's own DVC, that of a flow that lives, and that of a dead flow in another folder."""
    here = tmp_path / "project"
    started = [hanging(here, None), hanging(here, os.getpid()), hanging(tmp_path / "other", gone)]
    yield started
    for process in started:
        process.kill()
        process.wait()


def test_dvc_of_a_dead_flow_is_ended_and_no_other(
    tmp_path: Path, gone: int, others: list[subprocess.Popen[bytes]]
) -> None:
    orphan = hanging(tmp_path / "project", gone)
    assert end_orphans(tmp_path / "project") == [orphan.pid]
    assert orphan.poll() is not None
    assert all(process.poll() is None for process in others)
