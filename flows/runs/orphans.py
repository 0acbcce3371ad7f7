"""What a run that was killed with ``kill -9`` leaves at work: gone at the latest when the next run starts.

That is the server that Prefect starts for a run without one, and a ``dvc push`` or ``dvc pull``. A run that ends stops
them. Stages see for themselves that the flow is gone (:func:`pipelines.runtime.process.die_with_parents`), but Prefect
and DVC do not look.
"""

from __future__ import annotations

import os
from pathlib import Path

import psutil

from flows.runs.dvc import QUIET
from pipelines.runtime.process import FLOW_PID


def mark_children() -> None:
    """Give every process that this one starts its number, in the environment."""
    os.environ[FLOW_PID] = str(os.getpid())


def marks_children() -> bool:
    """Whether this process marks what it starts: ``reft run``, and no worker's run."""
    return os.environ.get(FLOW_PID) == str(os.getpid())


def end_orphans(root: Path) -> list[int]:
    """End the Prefect servers of flows that are gone, and their DVC in this project; return the process numbers."""
    orphans = [process for process in psutil.process_iter() if _is_orphan(process, root)]
    for process in orphans:
        process.kill()
    psutil.wait_procs(orphans, timeout=5)
    return [process.pid for process in orphans]


def _is_orphan(process: psutil.Process, root: Path) -> bool:
    try:
        if not (_is_prefect_server(process) or _is_dvc_in(process, root)):
            return False
        owner = process.environ().get(FLOW_PID, "")
        return owner.isdigit() and not _started_before(int(owner), process)
    except (psutil.Error, OSError):  # ended meanwhile, or another user's
        return False


def _is_prefect_server(process: psutil.Process) -> bool:
    return any("prefect.server" in word for word in process.cmdline())


def _is_dvc_in(process: psutil.Process, root: Path) -> bool:
    words = process.cmdline()[1:]
    is_dvc = words[:2] == ["-m", "dvc"] or words[: len(QUIET)] == [*QUIET]
    return is_dvc and Path(process.cwd()).resolve() == root.resolve()


def _started_before(owner: int, process: psutil.Process) -> bool:
    """Whether the flow still runs: a younger process has only its number."""
    try:
        return psutil.Process(owner).create_time() <= process.create_time()
    except psutil.NoSuchProcess:
        return False
