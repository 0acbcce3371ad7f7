"""What makes a stage safe to kill and safe to repeat: a lock on its work folder, death with its parent, a marker."""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import psutil
from filelock import FileLock, Timeout

from pipelines.errors import PipelineError
from pipelines.files import read_kept, write_json

SHELLS = {"sh", "bash", "dash", "zsh", "fish", "ksh", "cmd.exe", "powershell.exe"}
FLOW_PID = "REFT_FLOW_PID"  # set by the flow: a stage must not outlive it, even when dvc does
POLL_SECONDS = 0.3
NOISY = ("httpx", "httpx2", "alembic", "mlflow.store", "mlflow.utils", "matplotlib", "datasets")
STOPPING_SECONDS = 2.0  # how long a process whose parent is gone may take to note that it was stopped
_STOPPED = threading.Event()  # this process was told to stop: its watcher need not tell it again, while it notes that
DYING_SECONDS = 5.0  # how long an orphan may take to see that its parent is gone, and to end


def begin_process() -> None:
    """Log to stderr, without what libraries say of themselves, and end when a process that this one works for does.

    SIGTERM is from now on as Ctrl-C is: a KeyboardInterrupt, so that what is in progress is noted as stopped.
    """
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    for noisy in NOISY:
        logging.getLogger(noisy).setLevel(logging.WARNING)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    end_quickly()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    die_with_parents()


def _stop(_number: int, _frame: object) -> NoReturn:
    _STOPPED.set()
    raise KeyboardInterrupt


def end_quickly() -> None:
    """At its end, let this process go without a last look for garbage, which takes a second after torch."""
    atexit.register(gc.freeze)


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """While a process imports its heavy tools, keep the garbage collector out, and afterwards out of what they made.

    These are a million objects that live as long as the process. The collector would look at all of them again and
    again while they come, which is a quarter of the time that torch and transformers take to import. For the start of
    a process alone: garbage that is there already is never collected.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


class BusyError(PipelineError):
    """Another process holds the lock; its name is in the message."""


@dataclass(frozen=True)
class Marker:
    """That a stage ran: a new ``run`` for each time."""

    run: str
    seconds: float


def work_folder(root: Path) -> Path:
    """The git-ignored folder of everything that is in progress."""
    return root / ".reft"


def marker_path(root: Path, stage: str) -> Path:
    """Where the marker of a stage lies."""
    return work_folder(root) / "stages" / f"{stage}.json"


def read_marker(root: Path, stage: str) -> Marker | None:
    """The marker that the last finished run of the stage left, if any."""
    return read_kept(marker_path(root, stage), lambda raw: Marker(str(raw["run"]), float(raw["seconds"])))


def write_marker(root: Path, stage: str, seconds: float) -> None:
    """Note that the stage ran to its end."""
    write_json(marker_path(root, stage), {"run": uuid.uuid4().hex, "seconds": seconds})


def error_path(root: Path, stage: str) -> Path:
    """Where a stage leaves the message of a user's mistake, for whoever started it; a retry would not mend that."""
    return work_folder(root) / "stages" / f"{stage}.error.txt"


@contextlib.contextmanager
def locked(root: Path, name: str, *, wait_seconds: float) -> Iterator[None]:
    """Hold the operating system's lock ``name`` on the work folder; it is gone when the process is, however it ends.

    Raises:
        BusyError: if another process holds it for longer than ``wait_seconds``; the message names that process.
    """
    folder = work_folder(root) / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    holder = folder / f"{name}.json"
    lock = FileLock(str(folder / f"{name}.lock"))
    try:
        lock.acquire(timeout=wait_seconds)
    except Timeout:
        raise BusyError(
            "only one run at a time may work in a project folder",
            got=_describe(holder),
            do="Wait for it, stop it, or set run.wait_seconds in params.yaml.",
        ) from None
    try:
        what = " ".join(" ".join(psutil.Process().cmdline()[-4:]).split())[:100]
        write_json(holder, {"pid": os.getpid(), "started": time.time(), "what": what})
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _describe(holder: Path) -> str:
    try:
        raw = json.loads(holder.read_text(encoding="utf-8"))
        since = time.strftime("%H:%M:%S", time.localtime(raw["started"]))
        return f"process {raw['pid']} ({raw['what']}), running since {since}"
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return "a process that did not leave its name"


def this_process() -> str:
    """A name for this very process: machine, number and start (numbers are used again)."""
    return f"{_machine()}:{os.getpid()}:{psutil.Process().create_time():.0f}"


def is_gone(name: str) -> bool | None:
    """Whether the process of that name has ended; None for one of another machine, where it cannot be asked for."""
    machine, pid, created = name.rsplit(":", 2)
    if machine != _machine():
        return None
    try:
        process = psutil.Process(int(pid))
        return abs(process.create_time() - float(created)) > 1 or not _alive(process)
    except psutil.NoSuchProcess:
        return True


def _machine() -> str:
    """The machine, as far as it has process numbers of its own: containers, and machines, may share a name."""
    name, boot, namespace = socket.gethostname(), Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    if not (boot.exists() and namespace.exists()):
        return name
    return f"{name}/{boot.read_text('ascii').strip()}/{namespace.stat().st_ino}"


def die_with_parents() -> None:
    """End this process as soon as one that it works for is gone: by SIGTERM, and two seconds later as kill -9 does.

    That is the parent, the grandparent when the parent is the shell of ``dvc repro``, and the flow. It watches and does
    not use the kernel's parent-death signal, which fires for the thread that started the child and is Linux's alone.
    """
    watched = _ancestors()
    if not watched:
        return

    def watch() -> None:
        while all(_alive(process) for process in watched):
            time.sleep(POLL_SECONDS)
        if not _STOPPED.is_set():  # a terminal tells parent and child
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(STOPPING_SECONDS)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="die-with-parents", daemon=True).start()


def _ancestors() -> list[psutil.Process]:
    found: list[psutil.Process] = []
    parent = psutil.Process().parent()
    if parent is not None and parent.pid > 1:
        found.append(parent)
        above = parent.parent()
        # A shell started by dvc lives on when dvc is killed; a user's own shell is not worked for.
        if parent.name() in SHELLS and above is not None and above.pid > 1 and _is_dvc(above):
            found.append(above)
    flow = os.environ.get(FLOW_PID)
    if flow is not None:
        try:
            found.append(psutil.Process(int(flow)))
        except psutil.NoSuchProcess:
            os.kill(os.getpid(), signal.SIGKILL)
    return found


def _is_dvc(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return any(Path(word).name in {"dvc", "dvc.exe"} for word in process.cmdline()[:3])
    return False


def _alive(process: psutil.Process) -> bool:
    """Whether the very process (not a later one of the same number) still runs."""
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
