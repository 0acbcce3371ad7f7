"""A program on a tether: its exit code, and that nothing of it outlives whoever asked, nor what it left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from pipelines.server import tether
from tests.servers import wait_for

OWNER = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-I", "-S", *sys.argv[1:]], stdin=subprocess.PIPE, start_new_session=True)
time.sleep(600)
"""
DEAF = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
with open(sys.argv[1] + ".new", "w") as out:
    out.write(f"{os.getpid()} {child.pid}")
os.rename(sys.argv[1] + ".new", sys.argv[1])
time.sleep(600)
"""


def pids(told: Path) -> list[psutil.Process]:
    """The program and its child, once they run."""
    wait_for("program", told.exists, seconds=60, every=0.05)
    return [psutil.Process(int(number)) for number in told.read_text().split()]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGHUP])
def test_a_killed_owner_takes_the_program_and_its_child_along(tmp_path: Path, how: int) -> None:
    """The program does not listen to SIGTERM, and its child is told nothing at all."""
    told = tmp_path / "told"
    words = [sys.executable, "-c", OWNER, tether.__file__, sys.executable, "-c", DEAF, str(told)]
    with subprocess.Popen(words) as owner:
        running = pids(told)
        owner.send_signal(how)
    assert not psutil.wait_procs(running, timeout=20)[1]


@pytest.mark.parametrize(("said", "code"), [("sys.exit(7)", 7), ("os.kill(os.getpid(), signal.SIGKILL)", 137)])
def test_the_exit_code_is_the_programs(said: str, code: int) -> None:
    program = [sys.executable, "-c", f"import os, signal, sys; {said}"]
    with subprocess.Popen([sys.executable, tether.__file__, *program], stdin=subprocess.PIPE) as asked:
        assert asked.wait(60) == code


def test_sigterm_is_passed_on(tmp_path: Path) -> None:
    told = tmp_path / "told"
    listening = (
        "import pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\n"
        "pathlib.Path(sys.argv[1]).touch()\n"
        "time.sleep(600)\n"
    )
    words = [sys.executable, tether.__file__, sys.executable, "-c", listening, str(told)]
    with subprocess.Popen(words, stdin=subprocess.PIPE) as asked:
        wait_for("program", told.exists, seconds=60, every=0.05)
        asked.terminate()
        assert asked.wait(60) == 5


def test_a_program_that_is_killed_with_its_owner_leaves_no_child(tmp_path: Path) -> None:
    """Both are gone before it looks: the child has nobody else."""
    told = tmp_path / "told"
    words = [sys.executable, "-c", OWNER, tether.__file__, sys.executable, "-c", DEAF, str(told)]
    with subprocess.Popen(words) as owner:
        program, child = pids(told)
        tethered = program.parent()
        assert tethered is not None
        tethered.suspend()
        program.kill()
        owner.kill()
        owner.wait()
        os.kill(tethered.pid, signal.SIGCONT)
    assert not psutil.wait_procs([child, tethered], timeout=20)[1]
