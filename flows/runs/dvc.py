"""The calls of DVC that the flow makes: each is its own process, and its errors and progress bars are shown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from pipelines.errors import PipelineError
from pipelines.files import write_text
from pipelines.runtime.process import FLOW_PID, work_folder
from pipelines.sources.addresses import OWN_FOLDERS
from pipelines.yaml_file import read_yaml

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore[assignment]

# How DVC is started where its errors are shown; -P: of this package, also in a folder that has a `flows` of its own.
QUIET = ("-P", "-m", "flows.runs.quiet_dvc")
LOCK_SECONDS = 60.0  # how long another process of DVC may hold the project
LOCK_POLL_SECONDS = 0.2
WRITING_SECONDS = 0.5  # more than a DVC that lives needs to write its note


class StageFailedError(Exception):
    """A stage ended without its outputs; another try may help."""


def call(root: Path, arguments: Sequence[str]) -> int:
    """Run ``dvc ARGUMENTS`` in the project folder and return its exit code.

    What DVC tells of its progress (stdout) is dropped, since the flow tells of that itself. Its errors (stderr) are
    shown, with what the stages say; --quiet would drop them, and with them the name of a process that is in the way.
    """
    await_lock(root)
    command = [sys.executable, *QUIET, *arguments]
    done = subprocess.run(command, cwd=root, env=_environment(), check=False, stdout=subprocess.DEVNULL)
    repair_lock(root)
    return done.returncode


def read(root: Path, arguments: Sequence[str]) -> str:
    """Run ``dvc ARGUMENTS`` and return what it printed.

    Raises:
        PipelineError: if it failed, with the last line that it said; or as :func:`await_lock`.
    """
    await_lock(root)
    done = subprocess.run(
        _command(arguments), cwd=root, env=_environment(), check=False, capture_output=True, text=True
    )
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise PipelineError(
            f"dvc {arguments[0]} must succeed",
            got=said[-1] if said else done.returncode,
            do=f"Mend what DVC names; `dvc {' '.join(arguments)}` says it in full.",
        )
    return done.stdout


def cache_folder(root: Path) -> Path:
    """The folder of DVC's cache, which `cache.dir` may have outside the project, shared with others.

    Raises:
        PipelineError: as :func:`read`.
    """
    return root / read(root, ["cache", "dir"]).strip()


def await_lock(root: Path, seconds: float | None = None) -> None:
    """Wait while another process of DVC holds the project, as `dvc pull` does to its end; DVC itself waits 3 seconds.

    Args:
        root: the project.
        seconds: to wait at most; None for LOCK_SECONDS.

    Raises:
        PipelineError: if it is held for longer, with the process.
    """
    path, until = root / ".dvc" / "tmp" / "lock", time.monotonic() + (LOCK_SECONDS if seconds is None else seconds)
    while _held(path):
        if time.monotonic() > until:
            raise PipelineError(
                "DVC lets one process at a time work in a project",
                got=_holder(path),
                do="Wait for it, or stop it, then run again.",
            )
        time.sleep(LOCK_POLL_SECONDS)


def _held(path: Path) -> bool:
    """Whether another process holds DVC's lock, which is the operating system's on this file."""
    if fcntl is None:
        return False  # there DVC itself says that it is held, without the name
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _holder(path: Path) -> str:
    """The process that DVC's lock names, with its command."""
    said = path.read_text(encoding="utf-8", errors="replace").strip()
    try:
        return f"process {said} ({' '.join(psutil.Process(int(said)).cmdline()[-4:])[:100]})"
    except (ValueError, psutil.Error):
        return f"a process that left no name in {path}"


def repair_lock(root: Path) -> None:
    """Put right what a DVC left that was killed while it wrote: any later one would fail over it.

    DVC empties dvc.lock, and its note of who works with which path, and then fills them. The note is of use to the
    living alone, so a half one goes. Of a whole dvc.lock a copy is kept, which takes the place of a half one; it may be
    a stage behind, which DVC sees for itself. A dvc.lock that was merged badly stays as it is, for the user.
    """
    lock, kept = root / "dvc.lock", work_folder(root) / "dvc.lock"
    if half_written(root) or not _is_whole(lock):
        time.sleep(WRITING_SECONDS)
    if half_written(root):
        _note(root).unlink(missing_ok=True)
    data = lock.read_bytes() if lock.is_file() else b""
    if _is_whole(lock):
        if not kept.is_file() or kept.read_bytes() != data:
            write_text(kept, data.decode())
    elif kept.is_file() and (_is_whole(kept) or not kept.stat().st_size) and b"<<<<<<<" not in data:
        former = kept.read_text(encoding="utf-8")
        write_text(lock, former) if former else lock.unlink()


def half_written(root: Path) -> bool:
    """Whether DVC's note of who works with which path is there but not whole."""
    try:
        json.loads(_note(root).read_bytes())
    except FileNotFoundError:
        return False
    except ValueError:
        return True
    return False


def _note(root: Path) -> Path:
    return root / ".dvc" / "tmp" / "rwlock"


def _is_whole(lock: Path) -> bool:
    """Whether dvc.lock is not there, or whole: DVC ends it with a line's end."""
    if not lock.is_file():
        return True
    try:
        return lock.read_bytes().endswith(b"\n") and isinstance(read_yaml(lock), dict)
    except PipelineError:
        return False


def lock_entry(root: Path, stage: str) -> object:
    """What dvc.lock says of a stage: None before its first run.

    Raises:
        PipelineError: as :func:`stages_run`.
    """
    return stages_run(root).get(stage)


def is_stale(root: Path, stage: str) -> bool:
    """Whether ``dvc repro`` would have anything to do for the stage itself."""
    return lock_entry(root, stage) is None or bool(json.loads(read(root, ["status", "--json", stage])))


def unchanged(root: Path) -> frozenset[str]:
    """The stages that ``dvc repro`` would skip as things are: they have run, and DVC's status tells nothing of them.

    One process of DVC says so of all stages. Where it cannot, none is named: what DVC does for a stage by itself tells
    the mistake better.
    """
    run = stages_run(root)
    try:
        changed = json.loads(read(root, ["status", "--json"])) if run else {}
    except PipelineError:
        return frozenset()
    return frozenset(name for name in run if name not in changed)


def has_remote(root: Path) -> bool:
    """Whether DVC knows a remote to pull from and to push to."""
    return bool(read(root, ["remote", "list"]).strip())


def stages_run(root: Path) -> dict[str, object]:
    """What dvc.lock says of each stage that has run.

    Raises:
        PipelineError: if dvc.lock is not readable YAML, as after a merge that left its marks.
    """
    path = root / "dvc.lock"
    if not path.is_file():
        return {}
    try:
        raw: Any = read_yaml(path) or {}
        return dict(raw.get("stages", {}))
    except (PipelineError, AttributeError, TypeError, ValueError) as error:
        raise PipelineError(
            "dvc.lock must be readable",
            got=error.got if isinstance(error, PipelineError) else error,
            do="Take the last good one: git checkout HEAD dvc.lock. What has run since comes back from DVC's cache.",
        ) from None


def recorded(root: Path) -> list[str]:
    """What DVC knows the content of: the user's own files under it, and the stages that have run.

    `dvc pull` is given them one by one, since without targets it fails over a stage that has never run.
    """
    own = [path.relative_to(root).as_posix() for folder in OWN_FOLDERS for path in (root / folder).glob("*.dvc")]
    return [*sorted(own), *stages_run(root)]


def check_project(root: Path) -> None:
    """Refuse a folder that is not a project under DVC.

    Raises:
        PipelineError: with what to do.
    """
    for name, do in (
        ("params.yaml", "Run the command in the project's folder."),
        ("dvc.yaml", "Run the command in the project's folder."),
        (".dvc", "Run: dvc init"),
    ):
        if not (root / name).exists():
            raise PipelineError(f"a project folder must hold {name}", got=root, do=do)
    if not any((folder / ".git").exists() for folder in (root, *root.parents)):
        raise PipelineError("a project folder must be in a git repository", got=root, do="Run: git init")


def _command(arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "dvc", *arguments]


def _environment() -> dict[str, str]:
    # dvc.yaml says `python`: it must be this interpreter, also where the environment was never activated.
    folder = str(Path(sys.executable).parent)
    return os.environ | {"PATH": f"{folder}{os.pathsep}{os.environ.get('PATH', '')}", FLOW_PID: str(os.getpid())}
