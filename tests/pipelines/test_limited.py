"""Children with limits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.servers import wait_for

ROOT = Path(__file__).parents[2]
WAITING = """
import time
from pipelines.limited import Limits, answers
next(answers(map, (time.sleep, [600]), Limits(1 << 28, 60, 600, (), ""), what="nothing"))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a child ends when it has something to say")
def test_a_child_that_waits_ends_when_who_asked_is_killed() -> None:
    asking = subprocess.Popen([sys.executable, "-c", WAITING], cwd=ROOT)
    # The tracker and the server of children, and below the latter the child.
    wait_for("child", lambda: len(psutil.Process(asking.pid).children(recursive=True)) == 3, seconds=60, every=0.1)
    below = psutil.Process(asking.pid).children(recursive=True)
    asking.kill()
    asking.wait()
    wait_for("end", lambda: not any(map(lives, below)), seconds=30, every=0.1)


def lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
