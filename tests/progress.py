"""How far a run is, told by the processor time that it used: on a busy machine that is a better clock."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence

import psutil

STANDSTILL = 12.0  # processor seconds; a flow that only waits and its server use 8 in ten minutes
POLL = 2.0  # seconds between two looks
LOOK = 0.1  # at least, since all processes of the machine are looked at
PATIENCE = 8  # how many times as long a process may take to end that does not use the processor


class NoEndError(AssertionError):
    """A run does not end, or stands still."""


class Progress:
    """The processor time of a process and of everything below it.

    Args:
        process: the first of them.
        seconds: of the processor that they may use in all; and of the clock, in which they must use ``STANDSTILL``.
    """

    def __init__(self, process: subprocess.Popen[bytes] | subprocess.Popen[str], seconds: float) -> None:
        self._root, self._seconds = process, seconds
        self._known: dict[tuple[int, float], float] = {}
        self._since, self._used_then, self._looked = time.monotonic(), 0.0, 0.0

    def used(self) -> float:
        """Processor seconds until now, those of processes that ended in between too, as far as they were seen."""
        if time.monotonic() - self._looked < LOOK:
            return sum(self._known.values())
        self._looked = time.monotonic()
        try:
            root = psutil.Process(self._root.pid)
            alive = [root, *root.children(recursive=True)]
        except psutil.Error:
            alive = []
        for process in alive:
            key = process.pid, process.create_time()
            self._known[key] = max(_used(process), self._known.get(key, 0.0))
        return sum(self._known.values())

    def check(self) -> float:
        """Processor seconds until now, where the run neither takes too long nor stands still.

        Raises:
            NoEndError: with what was used.
        """
        used, now = self.used(), time.monotonic()
        if used > self._seconds:
            raise NoEndError(f"no end after {used:.0f} s of the processor")
        if used - self._used_then >= STANDSTILL:
            self._since, self._used_then = now, used
        elif now - self._since > self._seconds:
            raise NoEndError(
                f"it stands still: {used - self._used_then:.1f} s of the processor in {now - self._since:.0f} s"
            )
        return used


def wait(process: subprocess.Popen[bytes], seconds: float) -> int:
    """Wait for a run to end; its exit code.

    Args:
        process: the run.
        seconds: as of :class:`Progress`.

    Raises:
        NoEndError: if it does not end.
    """
    progress = Progress(process, seconds)
    while True:
        try:
            return process.wait(timeout=POLL)
        except subprocess.TimeoutExpired:
            progress.check()


def communicate(process: subprocess.Popen[str], seconds: float) -> tuple[str, str]:
    """The same for a process whose output is read; what it wrote to stdout, and to stderr."""
    progress = Progress(process, seconds)
    while True:
        try:
            return process.communicate(timeout=POLL)
        except subprocess.TimeoutExpired:
            progress.check()


def outliving(processes: Sequence[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Those of the processes that do not end, though they had the processor for so many seconds.

    One that is starved of it has longer; one that wants none, ``PATIENCE`` times as long.
    """
    began, alive = time.monotonic(), list(processes)
    used = {process: _used(process) for process in alive}
    while alive:
        _, alive = psutil.wait_procs(alive, timeout=min(seconds, 1.0))
        alive = [process for process in alive if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
        waited = time.monotonic() - began
        late = [process for process in alive if _used(process) - used[process] >= seconds]
        if waited >= PATIENCE * seconds or (late and waited >= seconds):
            return alive
    return []


def _used(process: psutil.Process) -> float:
    """Processor seconds that a process used; none for one that has ended."""
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)
