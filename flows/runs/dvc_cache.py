"""DVC's cache of the project: that what it gives back is what was put into it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from flows.runs import dvc
from pipelines.errors import PipelineError
from pipelines.files import read_json, write_json
from pipelines.runtime.process import work_folder

CACHE = Path(".dvc") / "cache" / "files" / "md5"  # one elsewhere, which projects share, is not looked at
FOLDER = ".dir"  # at the end of a folder's hash, whose file lists those of what is in it
Stamp = list[int]  # inode, size, and in nanoseconds when the content was changed


def drop_damaged(root: Path) -> list[str]:
    """Remove what other bytes stand for than its name says; DVC then fetches it again, or runs the stage again.

    DVC takes a file of its cache that is read-only for the one that it wrote, and would restore an output from it
    without a word. Each file is hashed once, and again when it has changed.

    Returns:
        The outputs that they were of, by their paths.
    """
    known = _known(root)
    whole: dict[str, Stamp] = {}
    damaged = {}
    for path, name in _objects(root):
        file = root / CACHE / name[:2] / name[2:]
        try:
            status = file.stat()
            stamp = [status.st_ino, status.st_size, status.st_mtime_ns]
            if known.get(name) == stamp or _md5(file) == name.removesuffix(FOLDER):
                whole[name] = stamp
                continue
            file.unlink()
        except FileNotFoundError:  # it is not in this cache
            continue
        damaged[path] = True
    if whole != known:
        write_json(_kept(root), whole)
    return list(damaged)


def _objects(root: Path) -> Iterator[tuple[str, str]]:
    """The path of each output that dvc.lock has, with the name of each of its files in the cache."""
    for stage in dvc.stages_run(root).values():
        outs: Any = stage.get("outs", []) if isinstance(stage, dict) else []
        for out in outs:
            if out.get("hash") != "md5" or "md5" not in out:
                continue
            path, name = str(out["path"]), str(out["md5"])
            yield path, name
            if name.endswith(FOLDER):  # which is looked at before what it lists, and gone if it is damaged
                with suppress(OSError, ValueError, KeyError, TypeError):
                    listed = json.loads((root / CACHE / name[:2] / name[2:]).read_bytes())
                    yield from [(path, str(entry["md5"])) for entry in listed]


def _md5(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _kept(root: Path) -> Path:
    return work_folder(root) / "dvc-cache.json"


def _known(root: Path) -> dict[str, Stamp]:
    """The stamps of what was whole; nothing, where that is not what was written here."""
    try:
        return {str(name): list(stamp) for name, stamp in read_json(_kept(root)).items()}
    except (PipelineError, OSError, TypeError, ValueError, AttributeError):
        return {}
