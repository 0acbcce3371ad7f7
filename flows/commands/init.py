"""A new project folder: parameters, graph and places for the user's own files, under git and DVC; no code."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from flows.runs import dvc
from flows.runs.project import SetupResult, set_up
from pipelines.errors import PipelineError
from pipelines.files import write_text
from pipelines.project.code import project_graph, shipped

COPIED = ("params.yaml", ".gitignore", ".dvcignore", "data/own/README.md", "models/own/README.md")
IF_THERE = ("prefect.yaml",)


def make_project(folder: Path) -> SetupResult:
    """Fill an empty or new folder, put it under git and DVC where it is not yet, and set it up.

    Raises:
        PipelineError: for a folder that holds something, a missing git, or a package without its files.
    """
    if shutil.which("git") is None:
        raise PipelineError("git must be installed", do="Install git and try again.")
    folder = folder.resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise PipelineError("a new project needs a folder that is empty or not there", got=folder, do="Name another.")
    files = {name: shipped(name).read_text(encoding="utf-8") for name in COPIED}
    files |= {name: shipped(name).read_text(encoding="utf-8") for name in IF_THERE if shipped_has(name)}
    files["dvc.yaml"] = project_graph()
    folder.mkdir(parents=True, exist_ok=True)
    top = _git_top(folder)
    if top is None:
        _git(folder, "init", "--quiet")
    dvc.read(folder, ["init", *([] if top in (None, folder) else ["--subdir"])])
    for option in ("core.analytics", "core.check_update"):
        dvc.read(folder, ["config", option, "false"])
    for name, text in files.items():
        write_text(folder / name, text)
    return set_up(folder)


def shipped_has(name: str) -> bool:
    """Whether the package came with a file that a project can do without."""
    return (shipped("dvc.yaml").parent / name).is_file()


def _git_top(folder: Path) -> Path | None:
    """The top folder of the git repository that the folder lies in."""
    done = _git(folder, "rev-parse", "--show-toplevel", check=False)
    return Path(done.stdout.strip()).resolve() if done.returncode == 0 else None


def _git(folder: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        raise PipelineError(f"git {arguments[0]} must succeed", got=done.stderr.strip(), do="Mend that and try again.")
    return done
