"""Whether the files of a base in the store are those that were written: by every byte's hash, when they are used.

Hashing gigabytes takes seconds, so a file that nobody touched is hashed once: beside the files is kept which hash each
had, with its inode, size and times of change. Where that cannot be kept, as in a store that is read-only, each process
hashes for itself.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from pipelines.contracts.base import BaseRecord
from pipelines.errors import PipelineError
from pipelines.files import read_json, sha256_file, write_json

log = logging.getLogger(__name__)
HASHES = ".hashes.json"
Stamp = list[int]  # inode, size, and in nanoseconds when content and when anything of the file was changed
Hashed = dict[str, tuple[Stamp, str]]


def is_intact(folder: Path, record: BaseRecord) -> bool:
    """Whether each file of the record is in the folder, as it was written, and no other that a loader would take."""
    known = _read(folder)
    found = _hash(folder, record, known)
    return _is_record(folder, record, found, known)


def is_sound(folder: Path, record: BaseRecord) -> bool:
    """As :func:`is_intact`, reading every byte again: a disk may give others than were written without a change."""
    return _is_record(folder, record, _hash(folder, record, {}), {})


def _is_record(folder: Path, record: BaseRecord, found: Hashed | None, known: Hashed) -> bool:
    """Whether the hashes are the record's, which are kept where they were not known."""
    if found is None or _digests(found) != record.files:
        return False
    if found != known:
        with suppress(OSError):
            write_json(folder / HASHES, found)
    return True


def _hash(folder: Path, record: BaseRecord, known: Mapping[str, tuple[Stamp, str]]) -> Hashed | None:
    """The stamp and the hash of each file; None if one cannot be read, or the folder holds others."""
    found: Hashed = {}
    try:
        if not _names(folder) <= set(record.files):
            return None
        for name in record.files:
            stamp = _stamp(folder / name)  # before the hash: what is written meanwhile is seen the next time
            kept = known.get(name)
            found[name] = kept if kept is not None and kept[0] == stamp else (stamp, sha256_file(folder / name))
    except OSError as error:
        log.warning("base %s in the store cannot be read: %s", record.sha256[:12], error)
        return None
    return found


def _names(folder: Path) -> set[str]:
    """What lies there: a chat template, or the config of an adapter, is taken by whoever opens a folder as a model."""
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}  # ours, and the system's own


def _stamp(path: Path) -> Stamp:
    status = path.stat()
    return [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _digests(found: Hashed) -> dict[str, str]:
    return {name: digest for name, (_, digest) in found.items()}


def _read(folder: Path) -> Hashed:
    """What is kept of an earlier use; nothing, if that is not what was written here."""
    try:
        raw = read_json(folder / HASHES)
        return {name: (list(stamp), str(digest)) for name, (stamp, digest) in raw.items()}
    except (PipelineError, OSError, TypeError, ValueError, AttributeError):
        return {}
