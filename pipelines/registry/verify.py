"""A version's hashes worked out again: from the registry's files, the base's store, git and dvc.lock."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipelines.bases.intact import is_sound
from pipelines.bases.store import store_path
from pipelines.contracts.base import read_base
from pipelines.errors import PipelineError
from pipelines.params.whole import Params
from pipelines.project.lineage import UNKNOWN, git
from pipelines.project.locks import find_lock
from pipelines.registry.download import VersionFiles, fetch_version
from pipelines.registry.listing import version_of
from pipelines.registry.package import CARD
from pipelines.registry.stored import ADAPTER, BASE
from pipelines.tracking.runs import open_store
from reft.adapters.files import adapter_sha256

State = Literal["right", "wrong", "unknown"]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at, how it stands, and what was found."""

    what: str
    state: State
    found: str


def verify(number: int, *, params: Params, root: Path, paths: dict[str, str]) -> list[Check]:
    """Look whether a version is still what its tags say.

    Args:
        number: of the version, of the model of params.yaml.
        params: all of params.yaml.
        root: the project's root.
        paths: of dvc.yaml, by their names.

    Raises:
        PipelineError: if there is no such version, or the store does not answer.
    """
    model = params.register_.model
    tags = dict(version_of(open_store(params.tracking, root), model, number).tags)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            files = fetch_version(f"models:/{model}/{number}", Path(scratch), params=params, root=root)
        except PipelineError as error:
            return [Check("adapter in the registry", "wrong", str(error))]
        checks = [_adapter(files, tags), _base(files, tags), _stored_base(files), _commit(tags, root)]
        return [*checks, *_lock(files, tags, root, paths)]


def _adapter(files: VersionFiles, tags: dict[str, str]) -> Check:
    return _same("adapter in the registry", adapter_sha256(files.adapter), tags.get(ADAPTER))


def _base(files: VersionFiles, tags: dict[str, str]) -> Check:
    return _same("base that the version names", read_base(files.base).sha256, tags.get(BASE))


def _stored_base(files: VersionFiles) -> Check:
    record = read_base(files.base)
    folder = store_path(record)
    if not folder.is_dir():
        return Check("base in the store", "unknown", f"not on this machine; it is fetched again from {record.source}")
    sound = is_sound(folder, record)
    return Check("base in the store", "right" if sound else "wrong", f"every byte of {len(record.files)} files")


def _commit(tags: dict[str, str], root: Path) -> Check:
    commit = tags.get("git.commit", UNKNOWN)
    if commit == UNKNOWN:
        return Check("commit in git", "unknown", "the version was made where there was no git")
    there = git(root, "cat-file", "-e", f"{commit}^{{commit}}") is not None
    dirty = ", with changes that were not committed" if tags.get("git.dirty") == "true" else ""
    return Check("commit in git", "right" if there else "wrong", f"{commit}{dirty}")


def _lock(files: VersionFiles, tags: dict[str, str], root: Path, paths: dict[str, str]) -> Iterator[Check]:
    """Which dvc.lock the version was made by, and whether DVC has the same adapter and base there."""
    wanted = tags.get("dvc.lock_sha256", UNKNOWN)
    found = find_lock(root, wanted)
    if found is None:
        said = "in no commit, nor here: the state of that run was not kept (git add dvc.lock && git commit)"
        yield Check("dvc.lock", "unknown", said)
        return
    yield Check("dvc.lock", "right", found.where)
    outs = {out["path"]: out.get("md5") for stage in found.stages.values() for out in stage.get("outs", [])}
    yield _same("adapter in dvc.lock", folder_md5(files.adapter), outs.get(paths["adapter"]))
    base = hashlib.md5(files.base.read_bytes(), usedforsecurity=False).hexdigest()
    yield _same("base in dvc.lock", base, outs.get(paths["base"]))


def folder_md5(folder: Path) -> str:
    """What DVC calls an adapter directory by: the MD5 of the list of its files with theirs.

    The model card, which a version has and the directory that stage train left has not, is none of them.
    """
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    files.pop(CARD, None)
    listed = [
        {"md5": hashlib.md5(files[name].read_bytes(), usedforsecurity=False).hexdigest(), "relpath": name}
        for name in sorted(files, key=lambda name: tuple(name.split("/")))
    ]
    return f"{hashlib.md5(json.dumps(listed, sort_keys=True).encode(), usedforsecurity=False).hexdigest()}.dir"


def _same(what: str, found: str, wanted: str | None) -> Check:
    if wanted is None:
        return Check(what, "unknown", f"nothing says what it was; it is {found}")
    return Check(what, "right", found) if found == wanted else Check(what, "wrong", f"{found}, and not {wanted}")
