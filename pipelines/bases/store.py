"""The ``base`` stage and the store of frozen base models.

A base lies in ``$REFT_HOME/bases/IDENTITY``, where IDENTITY is the SHA-256 of its files' hashes: written whole, never
changed. What DVC tracks is a small record of it, from which the same bits are made again on another machine.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock

from pipelines.bases.intact import is_intact, is_sound
from pipelines.bases.space import check_base_space
from pipelines.contracts.base import BaseRecord, read_base, record_from_dict, write_record
from pipelines.errors import PipelineError
from pipelines.files import read_json, reft_home, sha256_file, sha256_json, temporary_directory, write_json
from pipelines.params.base import Kind
from pipelines.params.whole import Params
from pipelines.sources.addresses import FileSource, own_path, parse_source
from reft.files import put_in_place

log = logging.getLogger(__name__)
CONVERTER = 1  # raise it when the conversion writes other bits, so that no older conversion is taken for the new one
SIZES = ".sizes.json"  # in a store entry, written last, so that what has it is whole: how many bytes each file has


def in_store(params: Params, base: Path) -> bool:
    """Whether base.json is of the base that params.yaml names, and the store has it: nothing is to be fetched."""
    try:
        record = read_base(base)
    except PipelineError:
        return False
    wanted = params.base
    asked = (wanted.source, wanted.sha256, wanted.dtype, wanted.kind)
    same = (record.source, record.source_sha256, record.dtype, record.kind) == asked
    return same and is_stored(record)


def is_stored(record: BaseRecord) -> bool:
    """Whether the store has a base, so that using it fetches nothing."""
    return _intact(store_path(record), record)


def store_path(record: BaseRecord) -> Path:
    """Return where the base lies, or would."""
    return reft_home() / "bases" / record.sha256


def ensure_base(record: BaseRecord, *, root: Path = Path()) -> Path:
    """Return the base's folder in the store, made again from its source if it is missing or damaged.

    Args:
        record: which base.
        root: the project's root, for a ``file:`` source.

    Raises:
        PipelineError: if the source is out of reach, or no longer gives the recorded bits.
    """
    path = store_path(record)
    if _intact(path, record):
        return path
    log.info("base %s is not in the store and is made from %s", record.sha256[:12], record.source)
    rebuilt = obtain(record.source, record.source_sha256, record.dtype, record.kind, root=root)
    if rebuilt.sha256 != record.sha256:
        changed = sorted(set(record.files.items()) ^ set(rebuilt.files.items()))
        raise PipelineError(
            f"the source must give the recorded base {record.sha256}",
            got=f"{rebuilt.sha256}, which differs in {sorted({name for name, _ in changed})}",
            do="Restore the source, or the versions of torch and transformers that made the record.",
        )
    return path


def obtain(source: str, sha256: str | None, dtype: str, kind: Kind = "decoder", *, root: Path) -> BaseRecord:
    """Return the record of a source's base, which is then in the store; converts it on first use only.

    The index ``bases/by-source`` remembers which base a source gave. Its key holds all that the bits depend on.
    """
    encoder = [kind] if kind == "encoder" else []  # so that the keys of decoders are those of earlier releases
    key = sha256_json([source, sha256, dtype, CONVERTER, _own_digest(source, root), *encoder])
    bases = reft_home() / "bases"
    index = bases / "by-source" / f"{key}.json"
    index.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(index.with_suffix(".lock")):
        record = _remembered(index)
        if record is not None:
            return record
        check_base_space(source, sha256, root=root)
        with temporary_directory(bases / key[:16]) as folder:
            record = _build(source, sha256, dtype, kind, folder, root)
            _put(folder / "base", record)
        write_record(index, record)
    return record


def _build(source: str, sha256: str | None, dtype: str, kind: Kind, folder: Path, root: Path) -> BaseRecord:
    """Make ``folder``/base and return its record."""
    from pipelines.bases.convert import convert  # loads torch and transformers

    out, scratch = folder / "base", folder / "scratch"
    scratch.mkdir()
    facts = convert(source, sha256, dtype, out, kind=kind, scratch=scratch, root=root)
    files = {path.name: sha256_file(path) for path in sorted(out.iterdir())}
    return BaseRecord(
        source=source,
        source_sha256=sha256,
        dtype=dtype,
        kind=kind,
        sha256=sha256_json(files),
        files=files,
        **asdict(facts),
    )


def _put(folder: Path, record: BaseRecord) -> None:
    """Move a finished base to its place; an intact one that is there already stays, since it is the same."""
    target = store_path(record)
    with FileLock(target.with_name(f"{record.sha256}.lock")):
        if _intact(target, record):
            return
        if target.exists():
            log.warning("base %s in the store is damaged and is replaced", record.sha256[:12])
            shutil.rmtree(target)
        write_json(folder / SIZES, {path.name: path.stat().st_size for path in sorted(folder.iterdir())})
        put_in_place(folder, target)


def _remembered(index: Path) -> BaseRecord | None:
    if not index.is_file():
        return None
    try:
        record = record_from_dict(read_json(index), name=str(index))
    except PipelineError as error:
        log.warning("an unreadable entry of the store is made again: %s", error)
        return None
    return record if _intact(store_path(record), record) else None


def _intact(path: Path, record: BaseRecord) -> bool:
    """Whether the entry is whole, and each file has the bytes that it was written with."""
    if not (path / SIZES).is_file():
        return False
    if not is_intact(path, record):
        log.warning("base %s in the store has other files than it was written with", record.sha256[:12])
        return False
    return True


def sound(record: BaseRecord) -> bool:
    """Whether the store has the base as it was written, by every byte, whoever read it before."""
    return is_sound(store_path(record), record)


def _own_digest(source: str, root: Path) -> object:
    """Return what identifies the content of a source whose address does not."""
    parsed = parse_source(source)
    if not isinstance(parsed, FileSource):
        return None
    path = own_path(parsed, root)
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return {p.relative_to(path.parent).as_posix(): sha256_file(p) for p in files}
