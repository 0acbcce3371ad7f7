"""The git tag of a version: by it a clone of the repository gets the adapter from DVC, with no registry.

Tags are named as GTO, which DVC reads them by, has them: ``adapter@v3.0.0`` is version 3 of the artifact ``adapter`` of
dvc.yaml.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import PipelineError
from pipelines.project.lineage import UNKNOWN, git
from pipelines.project.locks import find_lock, lock_of
from pipelines.registry.listing import version_of
from pipelines.tracking.runs import Store

ARTIFACT = "adapter"  # in dvc.yaml


@dataclass(frozen=True)
class Tagged:
    """A tag, and the commit whose dvc.lock made the version."""

    name: str
    commit: str

    def words(self) -> str:
        """For a terminal: what to do with it."""
        return f"Tag {self.name} is at commit {self.commit[:12]}. Next: git push origin {self.name}"


def tag_of(store: Store, model: str, number: int, *, root: Path) -> Tagged:
    """The tag that a version has or is to have; nothing is written.

    Raises:
        PipelineError: if no commit has the dvc.lock that made it, or the tag stands at a commit that has another.
    """
    wanted = dict(version_of(store, model, number).tags).get("dvc.lock_sha256", UNKNOWN)
    name = f"{ARTIFACT}@v{number}.0.0"
    there = git(root, "rev-parse", "--verify", "--quiet", f"refs/tags/{name}^{{commit}}") or ""
    lock = lock_of(root, there) if there else find_lock(root, wanted, committed=True)
    if there and (lock is None or lock.sha256 != wanted):
        raise PipelineError(
            f"the tag {name} must stand at a commit whose dvc.lock made version {number}",
            got=f"commit {there[:12]}, perhaps of another registry", do=f"If that tag may go: git tag -d {name}",
        )  # fmt: skip
    if lock is None or lock.commit is None:
        raise PipelineError(
            f"a tag stands at the commit whose dvc.lock made version {number}", got="no such commit",
            do=f"git add dvc.lock metrics && git commit -m 'Version {number}', then: reft promote {number} --tag",
        )  # fmt: skip
    return Tagged(name, lock.commit)


def write_tag(root: Path, tagged: Tagged, message: str) -> None:
    """Make the tag, unless it is there.

    Raises:
        PipelineError: if git refuses.
    """
    if git(root, "rev-parse", "--verify", "--quiet", f"refs/tags/{tagged.name}") is not None:
        return
    if git(root, "tag", "--annotate", tagged.name, tagged.commit, "--message", message) is None:
        raise PipelineError(
            "git must be able to make an annotated tag", got=tagged.name,
            do=f"git tag -a {tagged.name} {tagged.commit} says why it cannot.",
        )  # fmt: skip
