"""Locks, and death with the parent: with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipelines.errors import PipelineError
from pipelines.runtime.process import locked, marker_path, read_marker, write_marker

ROOT = Path(__file__).parents[3]
DEADLINE = 20.0

HOLD = """
import sys, time
from pathlib import Path
from pipelines.runtime.process import locked
with locked(Path(sys.argv[1]), "run", wait_seconds=0):
    print("held", flush=True)
    time.sleep(60)
"""
CHILD = """
import time
from pipelines.runtime.process import die_with_parents
die_with_parents()
print("up", flush=True)
time.sleep(60)
"""
# A stage: it notes what it was stopped by. With a word it is one that would then never end.
STAGE = """
import sys, time
from pathlib import Path
from pipelines.runtime.process import begin_process
begin_process()
try:
    print("up", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    Path(sys.argv[1]).write_text("stopped")
    while len(sys.argv) > 2:
        time.sleep(1)
"""
PARENT = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", *sys.argv[1:]], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(60)
"""


def start(*arguments: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", *arguments], stdout=subprocess.PIPE, text=True, cwd=ROOT, env=env or dict(os.environ)
    )


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def gone(pid: int) -> bool:
    until = time.monotonic() + DEADLINE
    while time.monotonic() < until:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def test_a_second_run_is_refused_and_told_who_is_in_the_way(tmp_path: Path) -> None:
    holder = start(HOLD, str(tmp_path))
    try:
        assert line(holder) == "held"
        with (
            pytest.raises(PipelineError, match=rf"process {holder.pid} .*run\.wait_seconds"),
            locked(tmp_path, "run", wait_seconds=0),
        ):
            pass
    finally:
        holder.kill()
        holder.wait()


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    holder = start(HOLD, str(tmp_path))
    assert line(holder) == "held"
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with locked(tmp_path, "run", wait_seconds=0):
        pass


def test_a_stage_ends_when_its_parent_is_killed() -> None:
    parent = start(PARENT, CHILD)
    child = int(line(parent))
    assert psutil.pid_exists(child)
    parent.kill()
    parent.wait()
    assert gone(child)


def test_a_stage_ends_when_the_flow_is_killed_though_its_parent_lives() -> None:
    flow = start("import time; time.sleep(60)")
    parent = start(PARENT, CHILD, env=dict(os.environ) | {"REFT_FLOW_PID": str(flow.pid)})
    child = int(line(parent))
    flow.kill()
    flow.wait()
    assert gone(child)
    assert parent.poll() is None
    parent.kill()
    parent.wait()


def test_sigterm_stops_a_stage_as_ctrl_c_does(tmp_path: Path) -> None:
    stage = start(STAGE, str(tmp_path / "note"))
    assert line(stage) == "up"
    stage.terminate()
    assert stage.wait(timeout=DEADLINE) == 0
    assert (tmp_path / "note").read_text() == "stopped"


@pytest.mark.parametrize("more", [[], ["never end"]])
def test_a_stage_whose_parent_is_killed_can_note_that_it_was_stopped(tmp_path: Path, more: list[str]) -> None:
    parent = start(PARENT, STAGE, str(tmp_path / "note"), *more)
    child = int(line(parent))
    parent.kill()
    parent.wait()
    assert gone(child)
    assert (tmp_path / "note").read_text() == "stopped"


def test_each_run_leaves_another_marker(tmp_path: Path) -> None:
    assert read_marker(tmp_path, "train") is None
    write_marker(tmp_path, "train", 1.5)
    first = read_marker(tmp_path, "train")
    write_marker(tmp_path, "train", 1.5)
    assert first is not None
    assert first.seconds == 1.5
    assert read_marker(tmp_path, "train") != first


@pytest.mark.parametrize("content", [b"", b"{", b'{"run": 1}', b"[]", b"\xff"])
def test_a_damaged_marker_is_none(tmp_path: Path, content: bytes) -> None:
    write_marker(tmp_path, "train", 1.5)
    path = marker_path(tmp_path, "train")
    path.write_bytes(content)
    assert read_marker(tmp_path, "train") is None
    write_marker(tmp_path, "train", 2.5)
    marker = read_marker(tmp_path, "train")
    assert marker is not None
    assert marker.seconds == 2.5


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"pid": 1, "started": "x", "what": ""}'])
def test_a_holder_without_a_readable_name_is_still_a_holder(tmp_path: Path, content: str) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    (tmp_path / ".reft" / "locks" / "run.json").write_text(content)
    try:
        with (
            pytest.raises(PipelineError, match="a process that did not leave its name"),
            locked(tmp_path, "run", wait_seconds=0),
        ):
            pass
    finally:
        process.kill()
        process.wait()
