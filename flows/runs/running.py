"""How a flow run ends that is stopped: at once; and the note in the project by which one that was killed is known."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelled, Crashed

from pipelines.files import read_kept, write_json
from pipelines.runtime.process import work_folder

_begun: Path | None = None  # the project of the run that works in this process


def stop_at_once() -> None:
    """From now on Ctrl-C and SIGTERM end this process at once."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)


def _stop(number: int, _frame: object) -> NoReturn:
    """End at once, as a kill does: stages see it, and the next run goes on. The exit code is the shell's: 130 or 143.

    The same signal ends the server that Prefect started for this run, and Prefect would ask it for a minute to note the
    end, or try the stage that the signal ended again. DVC must be let end by itself: Python would kill it while it
    writes. A run that a person stopped is cancelled, not crashed: its note says so to the next one, and a Prefect
    server that runs by itself is told at once, by a process of its own.
    """
    if number == signal.SIGINT and _begun is not None:
        with suppress(OSError):
            _note_stopped(_begun)
    os.write(2, b"\nstopped; the next run goes on from here\n")
    os._exit(128 + number)


def begin(root: Path) -> None:
    """Take over from the run that held the project's lock before this one.

    One that was killed stays "Running" in Prefect's database for ever, since nobody was left to say otherwise. Its note
    is still here, and the lock says that it is dead, so it is marked as crashed; or as cancelled, after Ctrl-C.
    """
    global _begun
    note = _read(root)
    former = note.get("flow_run")
    if former is not None and former != flow_run.id:
        if note.get("stopped") is None:
            _mark(UUID(former), Crashed(message="Its process was killed."))
        else:
            mark_stopped(UUID(former))
    _begun = root
    at_stage(root, None)


def at_stage(root: Path, stage: str | None) -> None:
    """Note which stage this run is at."""
    write_json(_path(root), {"flow_run": flow_run.id, "stage": stage})


def finish(root: Path) -> None:
    """This run came to its end."""
    global _begun
    _begun = None
    _path(root).unlink(missing_ok=True)


def was_killed(root: Path) -> bool:
    """Whether the run before this one left its note: Prefect still takes it for a running one, and is to be told."""
    return bool(_read(root))


def stage_of(root: Path, run_id: str) -> str | None:
    """The stage that a run had come to when it failed or was killed, if it left a note."""
    note = _read(root)
    stage = note.get("stage")
    return stage if note.get("flow_run") == run_id else None


def mark_stopped(run_id: UUID) -> None:
    """Say of a run that a person stopped it."""
    _mark(run_id, Cancelled(message="It was stopped with Ctrl-C; the next run goes on from there."))


def _note_stopped(root: Path) -> None:
    note = _read(root)
    write_json(_path(root), {**note, "stopped": "Ctrl-C"})
    if PREFECT_API_URL.value() is not None and note.get("flow_run") is not None:
        command = [sys.executable, "-P", "-m", "flows.runs.stopped", str(note["flow_run"])]
        nowhere = subprocess.DEVNULL
        subprocess.Popen(command, stdin=nowhere, stdout=nowhere, stderr=nowhere, start_new_session=True)


def _mark(run_id: UUID, state: State[Any]) -> None:
    with get_client(sync_client=True) as client, suppress(ObjectNotFound):  # another server's run
        found = client.read_flow_run(run_id).state
        if found is not None and not found.is_final():
            client.set_flow_run_state(run_id, state, force=True)


def _path(root: Path) -> Path:
    return work_folder(root) / "flow-run.json"


def _read(root: Path) -> dict[str, str | None]:
    return read_kept(_path(root), _note) or {}


def _note(raw: Any) -> dict[str, str | None]:
    note = {name: None if value is None else str(value) for name, value in raw.items()}
    if (run := note.get("flow_run")) is not None:
        UUID(run)  # ValueError for what is none
    return note
