"""The dvc.lock of the folder and of its commits: which of them made something that is known by its hash."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.project.lineage import git, stages_sha256
from pipelines.yaml_file import parse_yaml

MOST_COMMITS = 1000  # that changed dvc.lock, and are looked through


@dataclass(frozen=True)
class Lock:
    """A dvc.lock: the commit that it stands in, None for the folder's own, and what it says of each stage."""

    commit: str | None
    stages: dict[str, Any]

    @property
    def where(self) -> str:
        """The place, in words."""
        return "the project's, as it is now" if self.commit is None else f"of commit {self.commit}"

    @property
    def sha256(self) -> str:
        """As :func:`pipelines.project.lineage.lock_sha256` works it out."""
        return stages_sha256({"stages": self.stages})


def find_lock(root: Path, sha256: str, *, committed: bool = False) -> Lock | None:
    """The first dvc.lock with this hash: the folder's own, then those of commits, the newest first.

    Args:
        root: the project's root.
        sha256: of the lock.
        committed: whether it must stand in a commit.
    """
    return next((lock for lock in _locks(root, committed=committed) if lock.sha256 == sha256), None)


def lock_of(root: Path, commit: str) -> Lock | None:
    """The dvc.lock of a commit; None where it has none that can be read."""
    return _parsed(commit, git(root, "show", f"{commit}:./dvc.lock"))


def _locks(root: Path, *, committed: bool) -> Iterator[Lock]:
    path = root / "dvc.lock"
    own = None if committed or not path.is_file() else _parsed(None, path.read_text(encoding="utf-8"))
    if own is not None:
        yield own
    listed = git(root, "log", f"--max-count={MOST_COMMITS}", "--format=%H", "--all", "--", "dvc.lock") or ""
    for commit in listed.split():
        found = lock_of(root, commit)
        if found is not None:
            yield found


def _parsed(commit: str | None, text: str | None) -> Lock | None:
    read = None if text is None else parse_yaml(text, "dvc.lock" if commit is None else f"dvc.lock of {commit}")
    return Lock(commit, dict(read.get("stages", {}))) if isinstance(read, dict) else None
