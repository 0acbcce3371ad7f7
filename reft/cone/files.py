"""Constants on disk, shared by processes: a safetensors file a row, found by its name and trusted by its content alone.

Files appear whole (renamed into place) and never change, so several processes may read, write and remove them at once.
What a file holds is compared with its sha256 each time that it is opened: one that was cut, changed or renamed is
removed, and what it held is computed again.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from reft.files import TEMPORARY_PREFIX, canonical_json

_SUFFIX = ".safetensors"
_RECORD = "sha256 and record"  # one key, because the order of several is not fixed
_FULL = (errno.ENOSPC, errno.EDQUOT)
_RESERVE = 1 << 30  # bytes of the disk that are left to others
_HEADER = 4096  # bytes of a file beside its tensors, at most
_TICK = 0.02  # seconds that a file's time may be behind the clock
_ABANDONED = 600.0  # seconds after which a half-written file is a killed process's
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _File:
    used: float  # seconds since the epoch
    size: int
    path: Path


class ConstantFiles:
    """A folder of constants with a budget; the oldest go first.

    A file's time of change is its last use. What was used since :meth:`begin` is never removed for something new: rows
    that are read in turns and do not all fit would each push out the next. The last GiB of a disk is left to others.

    Args:
        folder: made when the first file is written; its folders are one for each base.
        budget: bytes of all files in it, of all bases. Several processes that write at once may pass it by a
            sixteenth each.
    """

    def __init__(self, folder: Path, budget: int) -> None:
        self._folder = folder
        self._budget = budget
        self._free = 0  # what may be written before the folder is looked through again
        self._full = False
        self._begun = time.time() - _TICK

    def begin(self) -> None:
        """Start another use of the rows; what was used before it may be removed."""
        self._begun = time.time() - _TICK
        self._full = False

    def read(self, name: str, base: str) -> tuple[dict[str, Tensor], Any] | None:
        """Return the tensors of a file, memory-mapped, and its record; None if there is no sound one.

        Args:
            name: of the file; a hash of all that its content follows from.
            base: the base's folder.
        """
        path = self._path(name, base)
        try:
            with safe_open(path, framework="pt") as file:
                digest, _, record = (file.metadata() or {}).get(_RECORD, "").partition(" ")
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  it is no mapping
            os.utime(path)
        except FileNotFoundError:
            return None
        except SafetensorError as error:
            _remove_damaged(path, str(error))
            return None
        if digest != _digest(name, record, tensors):
            _remove_damaged(path, "its sha256 differs")
            return None
        return tensors, json.loads(record)

    def write(self, name: str, base: str, tensors: Mapping[str, Tensor], record: Any) -> None:
        """Write a file whole, unless there is no room for it.

        Args:
            name: as for :meth:`read`.
            base: as for :meth:`read`.
            tensors: on the CPU, contiguous.
            record: plain JSON values that go with them.
        """
        size = sum(tensor.nbytes for tensor in tensors.values()) + _HEADER
        if not self._make_room(size):
            return
        text = canonical_json(record).decode()
        path = self._path(name, base)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = safetensors.torch.save(dict(tensors), {_RECORD: f"{_digest(name, text, tensors)} {text}"})
        handle, temporary = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, suffix=_SUFFIX, dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)  # not forced to the disk: a torn file is found out
            Path(temporary).replace(path)
        except BaseException as error:
            Path(temporary).unlink(missing_ok=True)
            if not isinstance(error, OSError) or error.errno not in _FULL:
                raise
            log.warning("no space is left for constants in %s; they are computed again instead", self._folder)
            self._budget = self._free = 0

    def _path(self, name: str, base: str) -> Path:
        return self._folder / base / f"{name}{_SUFFIX}"

    def _make_room(self, size: int) -> bool:
        if size > self._free and not self._full:
            self._make_room_scan(size)
            self._full = size > self._free  # by what is in use, so it stays full until the next use
        fits = size <= self._free
        self._free -= size if fits else 0
        return fits

    def _make_room_scan(self, size: int) -> None:
        """Count the files, remove the oldest where needed, and allow a sixteenth of the budget until the next count."""
        self._folder.mkdir(parents=True, exist_ok=True)
        step = min(max(size, self._budget // 16), self._budget)
        files = sorted(self._files(), key=lambda file: (file.used, file.path))
        total = sum(file.size for file in files)
        for file in files:
            if total + step <= self._budget or file.used >= self._begun:
                break
            file.path.unlink(missing_ok=True)
            total -= file.size
        self._free = min(step, self._budget - total, shutil.disk_usage(self._folder).free - _RESERVE)

    def _files(self) -> list[_File]:
        found = []
        for path in self._folder.glob(f"*/*{_SUFFIX}"):
            try:
                status = path.stat()
            except FileNotFoundError:  # another process was faster
                continue
            if path.name.startswith(TEMPORARY_PREFIX) and status.st_mtime < time.time() - _ABANDONED:
                path.unlink(missing_ok=True)
                continue
            found.append(_File(status.st_mtime, status.st_size, path))
        return found


def _remove_damaged(path: Path, why: str) -> None:
    log.warning("kept constants in %s are damaged (%s); they are computed again", path, why)
    path.unlink(missing_ok=True)


def _digest(name: str, record: str, tensors: Mapping[str, Tensor]) -> str:
    """Return the sha256 of a file's name, record, and tensors with their shapes and types."""
    shapes = [[key, str(tensors[key].dtype), list(tensors[key].shape)] for key in sorted(tensors)]
    digest = hashlib.sha256(canonical_json([name, record, shapes]))
    for key in sorted(tensors):
        digest.update(memoryview(cast(Any, tensors[key].view(-1).view(torch.uint8).numpy())))
    return digest.hexdigest()
