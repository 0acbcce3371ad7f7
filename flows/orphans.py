"""The server that Prefect starts for a run without one: gone at the latest when the next run starts.

A run that ends stops its own server; one that is killed with ``kill -9`` cannot. Stages see for themselves that the
flow is gone (:func:`pipelines.process.die_with_parents`), but this server is Prefect's, and does not look.
"""

from __future__ import annotations

import os

import psutil

from pipelines.process import FLOW_PID


def claim() -> None:
    """Have every process that this one starts carry its number."""
    os.environ[FLOW_PID] = str(os.getpid())


def end_orphans() -> list[int]:
    """End the Prefect servers of flows that are gone; return their process numbers."""
    orphans = [process for process in psutil.process_iter() if _is_orphan(process)]
    for process in orphans:
        process.kill()
    psutil.wait_procs(orphans, timeout=5)
    return [process.pid for process in orphans]


def _is_orphan(process: psutil.Process) -> bool:
    try:
        words = process.cmdline()
        if not any("prefect.server" in word for word in words):
            return False
        owner = process.environ().get(FLOW_PID, "")
    except (psutil.Error, OSError):  # ended meanwhile, or another user's
        return False
    return owner.isdigit() and not psutil.pid_exists(int(owner))
