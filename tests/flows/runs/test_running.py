"""A flow run that was stopped does not stay "Running" in Prefect's database; Ctrl-C and SIGTERM end one at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from flows.runs import running
from tests.project import make_tiny_project
from tests.servers import kill, wait_for

pytestmark = pytest.mark.slow

STATES = """
from prefect.client.orchestration import get_client
with get_client(sync_client=True) as client:
    for run in client.read_flow_runs():
        print("STATE", run.id, run.state.name, run.state.message)
"""


# As `reft run` and `reft search` begin; what Prefect would do after it is not begun.
INTERRUPTED = """
import time
from flows.runs import running
running.stop_at_once()
print("ready", flush=True)
try:
    time.sleep(60)
finally:
    print("prefect was asked")
"""


def test_ctrl_c_ends_a_run_at_once() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    said, warned = process.communicate(timeout=30)  # half of what it would sleep
    assert process.returncode == 130
    assert said == ""
    assert "the next run goes on from here" in warned


@pytest.mark.long
@pytest.mark.parametrize(
    ("number", "state"),
    [
        (signal.SIGTERM, "Crashed Its process was killed."),
        (signal.SIGINT, "Cancelled It was stopped with Ctrl-C; the next run goes on from there."),
    ],
)
def test_a_signal_ends_a_run_at_once_and_the_next_marks_it(tmp_path: Path, number: signal.Signals, state: str) -> None:
    # A column that is not there ends the second run early: this test is about its beginning.
    project = make_tiny_project(tmp_path / "project", tmp_path / "home", {"prepare.label_column": "nowhere"})
    note = project.root / ".reft" / "flow-run.json"

    def at_a_stage() -> str | None:
        found = json.loads(note.read_text(encoding="utf-8")) if note.is_file() else {}
        return str(found["flow_run"]) if found.get("stage") else None

    flow = project.start("reft", "run", log=tmp_path / "run.log")
    try:
        killed = wait_for("stage", at_a_stage, seconds=180, every=0.2)
        os.killpg(flow.pid, number)  # as a service manager or a terminal ends it, with all that it started
        assert flow.wait(timeout=15) == 128 + number  # Prefect would try the stage again after five
        wait_for("the end of DVC and of the stage", lambda: not _group(flow.pid), seconds=30, every=0.2)
    finally:
        kill(flow)
    said = (tmp_path / "run.log").read_text(encoding="utf-8")
    assert "stopped; the next run goes on from here" in said
    for words in ("ERROR", "failed to reproduce", "interrupted by the user"):  # of the stage, or of DVC itself
        assert words not in said
    done = project.run("reft", "run", check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr  # Prefect's own lines are kept from the terminal
    said = project.run("python", "-c", STATES).stdout
    states = dict(line.split(" ", 2)[1:] for line in said.splitlines() if line.startswith("STATE"))
    assert states.pop(killed) == state
    [other] = states.values()
    assert other.startswith("Failed")


def _group(number: int) -> list[int]:
    """The processes of a process group that are at work."""
    found = (process for process in psutil.process_iter() if _is_of(process.pid, number))
    return [process.pid for process in found if process.status() != psutil.STATUS_ZOMBIE]


def _is_of(process: int, group: int) -> bool:
    try:
        return os.getpgid(process) == group
    except ProcessLookupError:
        return False


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", "5", '{"flow_run": "none"}', '{"flow_run": 7, "stage": []}'])
def test_a_damaged_note_of_a_run_is_set_aside(tmp_path: Path, content: str) -> None:
    path = tmp_path / ".reft" / "flow-run.json"
    path.parent.mkdir()
    path.write_text(content)
    assert running.stage_of(tmp_path, "run") is None
    assert [file.name for file in path.parent.iterdir()] == ["flow-run.json.damaged"]


def test_a_run_that_left_its_note_was_killed(tmp_path: Path) -> None:
    assert not running.was_killed(tmp_path)
    (tmp_path / ".reft").mkdir()
    (tmp_path / ".reft" / "flow-run.json").write_text('{"flow_run": "01a3c2f4-0000-4000-8000-000000000000"}')
    assert running.was_killed(tmp_path)
    running.finish(tmp_path)
    assert not running.was_killed(tmp_path)
