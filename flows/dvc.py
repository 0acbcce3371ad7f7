"""The calls of DVC that the flow makes: each is its own process, and its errors and progress bars are shown."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from pipelines.errors import PipelineError
from pipelines.process import FLOW_PID
from pipelines.sources import OWN_FOLDERS


class StageFailedError(Exception):
    """A stage ended without its outputs; another try may help."""


def call(root: Path, arguments: Sequence[str]) -> int:
    """Run ``dvc ARGUMENTS`` in the project folder and return its exit code.

    What DVC tells of its progress (stdout) is dropped, since the flow tells of that itself. Its errors (stderr) are
    shown, with what the stages say; --quiet would drop them, and with them the name of a process that is in the way.
    """
    command = _command(arguments)
    return subprocess.run(command, cwd=root, env=_environment(), check=False, stdout=subprocess.DEVNULL).returncode


def read(root: Path, arguments: Sequence[str]) -> str:
    """Run ``dvc ARGUMENTS`` and return what it printed.

    Raises:
        PipelineError: if it failed, with the last line that it said.
    """
    done = subprocess.run(
        _command(arguments), cwd=root, env=_environment(), check=False, capture_output=True, text=True
    )
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise PipelineError(f"dvc {arguments[0]} must succeed", got=said[-1] if said else done.returncode)
    return done.stdout


def lock_entry(root: Path, stage: str) -> object:
    """What dvc.lock says of a stage: None before its first run."""
    return _lock(root).get(stage)


def _lock(root: Path) -> dict[str, object]:
    path = root / "dvc.lock"
    if not path.is_file():
        return {}
    return (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("stages", {})


def recorded(root: Path) -> list[str]:
    """What DVC knows the content of: the user's own files under it, and the stages that have run.

    `dvc pull` is given them one by one, since without targets it fails over a stage that has never run.
    """
    own = [path.relative_to(root).as_posix() for folder in OWN_FOLDERS for path in (root / folder).glob("*.dvc")]
    return [*sorted(own), *_lock(root)]


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
