"""Files and directories that appear whole or not at all, and hashes of what they hold."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TEMPORARY_PREFIX = ".writing-"


def sha256(content: bytes) -> str:
    """Return the sha256 of ``content`` in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def canonical_json(value: Any) -> bytes:
    """Return the one JSON text of plain values: sorted keys, no blanks; what is hashed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def write_directory(path: Path, files: Mapping[str, bytes]) -> None:
    """Write a directory of files under a temporary name beside ``path``, and rename it at the end.

    A file's name may begin with those of folders in it. What stands at ``path`` is on the disk.

    Raises:
        FileExistsError: if there is anything at ``path``; nothing is written over.
    """
    if path.exists() or path.is_symlink():
        raise FileExistsError(f"what is there is not written over; got {path}; remove it or choose another path")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=path.parent))
    try:
        temporary.chmod(0o777 & ~_umask())  # mkdtemp's 0700 would keep others from reading the result
        for name, content in files.items():
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            with (temporary / name).open("xb") as handle:
                handle.write(content)
        put_in_place(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def put_in_place(new: Path, target: Path) -> None:
    """Rename a finished file or directory to ``target``, so that not even a power cut leaves less under that name.

    A file system may write a rename before what the file holds: after a cut an empty file would have the name. So
    content goes to the disk first, then the name, then the folder that has the name.
    """
    if new.is_dir():
        for folder, _, names in os.walk(new):
            for name in names:
                _force(Path(folder) / name)
            _force(Path(folder))
    else:
        _force(new)
    new.replace(target)
    _force(target.parent)


def _force(path: Path) -> None:
    """Wait until the disk has a file, or the names in a folder."""
    if path.is_dir() and not hasattr(os, "O_DIRECTORY"):
        return  # this system opens no folders
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise  # some network file systems cannot be asked for a folder, and write its names at once
    finally:
        os.close(handle)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
