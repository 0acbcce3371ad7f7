"""Where a version comes from: the git commit, dvc.lock, and the versions of the packages that made it."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pipelines.files import sha256_json
from pipelines.yaml_file import read_yaml

UNKNOWN = "unknown"
GIT_SECONDS = 30.0
PACKAGES = ("torch", "transformers", "accelerate", "safetensors", "mlflow", "reft-pipeline")
# What a run itself changes; a tree where nothing else differs is the commit's.
WRITTEN_BY_RUNS = (":(exclude)dvc.lock", ":(exclude)metrics", ":(exclude)code.json", ":(exclude)data/own/*.dvc")
EXPERIMENT = ("DVC_EXP_BASELINE_REV", "DVC_EXP_NAME")  # set by `dvc exp run` for the stages


@dataclass(frozen=True)
class GitState:
    """The commit, and whether a tracked file that no run writes differs from it; None: no repository or no git."""

    commit: str | None
    dirty: bool | None


def git_state(root: Path) -> GitState:
    """Ask git about the project folder."""
    commit = git(root, "rev-parse", "--verify", "HEAD")
    if commit is None:
        return GitState(None, None)
    changed = git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", *WRITTEN_BY_RUNS)
    return GitState(commit, None if changed is None else bool(changed))


def lineage_tags(root: Path) -> dict[str, str]:
    """The tags that say which code, which data versions and which packages made a version."""
    return {**code_tags(root), "dvc.lock_sha256": lock_sha256(root)}


def code_tags(root: Path) -> dict[str, str]:
    """Those of code and packages, which are true also while stages are still to come that change dvc.lock."""
    state = git_state(root)
    return {
        "git.commit": state.commit or UNKNOWN,
        "git.dirty": UNKNOWN if state.dirty is None else str(state.dirty).lower(),
        "python.version": platform.python_version(),
        **{f"package.{name}": package_version(name) for name in PACKAGES},
    }


def lock_sha256(root: Path) -> str:
    """The hash of dvc.lock but for the entry of register, which DVC writes when register has ended.

    So it can be worked out again from the dvc.lock of any commit.
    """
    path = root / "dvc.lock"
    return stages_sha256(read_yaml(path)) if path.is_file() else UNKNOWN


def stages_sha256(lock: Any) -> str:
    """The same of what a dvc.lock holds."""
    stages = dict(lock.get("stages", {}))
    stages.pop("register", None)
    return sha256_json(stages)


def package_version(name: str) -> str:
    """The installed version, or "unknown"."""
    try:
        return version(name)
    except PackageNotFoundError:
        return UNKNOWN


def in_experiment() -> bool:
    """Whether ``dvc exp run`` runs this stage: a try, which must not change what is live."""
    return any(os.environ.get(name) for name in EXPERIMENT)


def git(root: Path, *arguments: str) -> str | None:
    """What git says of a folder; None where it fails, or there is none."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=GIT_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
