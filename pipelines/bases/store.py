"""The ``base`` stage and the store of frozen base models.

A base lies in ``$REFT_HOME/bases/IDENTITY``, where IDENTITY is the SHA-256 of its files' hashes: written whole, never
changed. What DVC tracks is a small record of it, from which the same bits are made again on another machine.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from pipelines.errors import PipelineError
from pipelines.files import read_json, reft_home, sha256_file, sha256_json, temporary_directory, write_json
from pipelines.params.whole import Params
from pipelines.runtime.disk import check_base_space
from pipelines.sources.addresses import FileSource, own_path, parse_source

if TYPE_CHECKING:  # torch and transformers take seconds to load, and reading a record needs neither
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LOG = logging.getLogger(__name__)
FORMAT = 1
CONVERTER = 1  # raise it when the conversion writes other bits, so that no older conversion is taken for the new one
SIZES = ".sizes.json"  # in a store entry, written last: which files it has, and how many bytes each


@dataclass(frozen=True)
class BaseRecord:
    """What models/base.json says.

    Attributes:
        source: the address in params.yaml.
        source_sha256: of the fetched file, if params.yaml gives it.
        dtype: what the weights are stored and run in.
        sha256: the identity: SHA-256 of the canonical JSON of ``files``.
        files: SHA-256 of each file, by name.
        model_type: the architecture, in transformers' words.
        hidden_size: width d of the residual stream.
        num_layers: decoder layers.
        vocab_size: rows of the embedding.
        parameters: of the whole model, tied weights once.
    """

    source: str
    source_sha256: str | None
    dtype: str
    sha256: str
    files: dict[str, str]
    model_type: str
    hidden_size: int
    num_layers: int
    vocab_size: int
    parameters: int


@dataclass(frozen=True)
class LoadedBase:
    """A base in memory: the model in evaluation mode, its tokenizer, its record and its folder."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    record: BaseRecord
    path: Path


def run(params: Params, *, root: Path, out: Path) -> BaseRecord:
    """Stage: make sure that the base is in the store, and write its record.

    Args:
        params: all of params.yaml; the section ``base`` is used.
        root: the project's root.
        out: base.json.

    Raises:
        PipelineError: for a source that cannot be had, or that is not a causal language model.
    """
    section = params.base
    record = obtain(section.source, section.sha256, section.dtype, root=root)
    if not sound(record):
        LOG.warning("base %s in the store has other bytes than it was written with", record.sha256[:12])
        shutil.rmtree(store_path(record))
        record = obtain(section.source, section.sha256, section.dtype, root=root)
    write_record(out, record)
    return record


def write_record(path: Path, record: BaseRecord) -> None:
    """Write base.json."""
    write_json(path, {"format": FORMAT, **asdict(record)})


def read_base(path: Path) -> BaseRecord:
    """Read base.json.

    Raises:
        PipelineError: if it is missing, has another format, or its identity is not that of its files.
    """
    return record_from_dict(read_json(path), name=str(path))


def record_from_dict(raw: Any, *, name: str) -> BaseRecord:
    """Check and build a record from JSON; ``name`` stands in the message."""
    again = "Run the base stage again."
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise PipelineError(f"{name} must be a base record of format {FORMAT}", got=str(raw)[:80], do=again)
    try:
        record = BaseRecord(**{key: value for key, value in raw.items() if key != "format"})
    except TypeError as error:
        raise PipelineError(f"{name} must have the fields of a base record", got=error, do=again) from None
    if sha256_json(record.files) != record.sha256:
        raise PipelineError(f"{name}: sha256 must be that of files", got=record.sha256, do=again)
    return record


def in_store(params: Params, base: Path) -> bool:
    """Whether base.json is of the base that params.yaml names, and the store has it: nothing is to be fetched."""
    try:
        record = read_base(base)
    except PipelineError:
        return False
    wanted = params.base
    same = (record.source, record.source_sha256, record.dtype) == (wanted.source, wanted.sha256, wanted.dtype)
    return same and _intact(store_path(record), record)


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
    LOG.info("base %s is not in the store and is made from %s", record.sha256[:12], record.source)
    rebuilt = obtain(record.source, record.source_sha256, record.dtype, root=root)
    if rebuilt.sha256 != record.sha256:
        changed = sorted(set(record.files.items()) ^ set(rebuilt.files.items()))
        raise PipelineError(
            f"the source must give the recorded base {record.sha256}",
            got=f"{rebuilt.sha256}, which differs in {sorted({name for name, _ in changed})}",
            do="Restore the source, or the versions of torch and transformers that made the record.",
        )
    return path


def load_base(record: BaseRecord, *, device: str | torch.device = "cpu", root: Path = Path()) -> LoadedBase:
    """Load a base from the store, in the record's dtype and in evaluation mode.

    Raises:
        PipelineError: as :func:`ensure_base`.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = ensure_base(record, root=root)
    dtype = getattr(torch, record.dtype)
    with quiet_loading():
        model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, local_files_only=True, use_safetensors=True)
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    return LoadedBase(model.to(device).eval(), tokenizer, record, path)


def load_tokenizer(record: BaseRecord, *, root: Path = Path()) -> PreTrainedTokenizerBase:
    """Load a base's tokenizer alone."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(ensure_base(record, root=root), local_files_only=True)


def obtain(source: str, sha256: str | None, dtype: str, *, root: Path) -> BaseRecord:
    """Return the record of a source's base, which is then in the store; converts it on first use only.

    The index ``bases/by-source`` remembers which base a source gave. Its key holds all that the bits depend on.
    """
    key = sha256_json([source, sha256, dtype, CONVERTER, _own_digest(source, root)])
    bases = reft_home() / "bases"
    index = bases / "by-source" / f"{key}.json"
    index.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(index.with_suffix(".lock")):
        record = _remembered(index)
        if record is not None:
            return record
        check_base_space(source, sha256, root=root)
        with temporary_directory(bases / key[:16]) as folder:
            record = _build(source, sha256, dtype, folder, root)
            _put(folder / "base", record)
        write_record(index, record)
    return record


def _build(source: str, sha256: str | None, dtype: str, folder: Path, root: Path) -> BaseRecord:
    """Make ``folder``/base and return its record."""
    from pipelines.bases.convert import convert  # loads torch and transformers

    out, scratch = folder / "base", folder / "scratch"
    scratch.mkdir()
    facts = convert(source, sha256, dtype, out, scratch=scratch, root=root)
    files = {path.name: sha256_file(path) for path in sorted(out.iterdir())}
    return BaseRecord(
        source=source, source_sha256=sha256, dtype=dtype, sha256=sha256_json(files), files=files, **asdict(facts)
    )


def _put(folder: Path, record: BaseRecord) -> None:
    """Move a finished base to its place; an intact one that is there already stays, since it is the same."""
    target = store_path(record)
    with FileLock(target.with_name(f"{record.sha256}.lock")):
        if _intact(target, record):
            return
        if target.exists():
            LOG.warning("base %s in the store is damaged and is replaced", record.sha256[:12])
            shutil.rmtree(target)
        write_json(folder / SIZES, {path.name: path.stat().st_size for path in sorted(folder.iterdir())})
        folder.rename(target)


def _remembered(index: Path) -> BaseRecord | None:
    if not index.is_file():
        return None
    try:
        record = record_from_dict(read_json(index), name=str(index))
    except PipelineError as error:
        LOG.warning("an unreadable entry of the store is made again: %s", error)
        return None
    return record if _intact(store_path(record), record) else None


def _intact(path: Path, record: BaseRecord) -> bool:
    """Whether the entry has the files that it was written with, by name and size: cheap enough for each open."""
    try:
        sizes = read_json(path / SIZES)
        found = {name: (path / name).stat().st_size for name in record.files}
    except (PipelineError, OSError):
        return False
    if found != sizes:
        LOG.warning("base %s in the store has files of other sizes", record.sha256[:12])
        return False
    return True


def sound(record: BaseRecord) -> bool:
    """Whether the store has the base as it was written, by every byte's hash."""
    path = store_path(record)
    return {name: sha256_file(path / name) for name in record.files} == record.files


def _own_digest(source: str, root: Path) -> object:
    """Return what identifies the content of a source whose address does not."""
    parsed = parse_source(source)
    if not isinstance(parsed, FileSource):
        return None
    path = own_path(parsed, root)
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return {p.relative_to(path.parent).as_posix(): sha256_file(p) for p in files}


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Hide transformers' bars over parameters, which flash by in hundreds of places and say nothing to a user."""
    from transformers.utils import logging as transformers_logging

    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
