"""Whether the model that an engine runs is the base of an adapter: by the sha256 of its files, as its record has it."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from reft_vllm.adapter import Adapter

RECORD = "base.json"
"""Beside an exported adapter: the files of its base with their sha256."""
_RECORD_BYTES = 1_000_000


def check_base(adapter: Adapter, path: Path, *, model: Path, known: str | None, hidden: int, layers: int) -> None:
    """Refuse an adapter of another base than the one that runs.

    Args:
        adapter: what is to be loaded.
        path: where it was read, beside which the record of its base may be.
        model: the folder of the model that runs.
        known: the model's identity, where whoever started the engine gave it.
        hidden: width of the model that runs.
        layers: its depth.

    Raises:
        ValueError: for another width, depth or identity.
    """
    if (adapter.hidden_size, adapter.num_layers) != (hidden, layers):
        raise ValueError(
            f"the adapter is for {adapter.num_layers} layers of width {adapter.hidden_size}; the model that runs has "
            f"{layers} of {hidden}; serve the adapter's own base, {adapter.base_name}"
        )
    if adapter.base_sha256 is None:
        return  # nobody recorded it, so the sizes are all that there is to compare
    found = known or _identity(path, adapter.base_sha256, model)
    if found != adapter.base_sha256:
        raise ValueError(
            f"the adapter is for the base {adapter.base_name or 'without a name'} ({adapter.base_sha256}); the files "
            f"of the model that runs, in {model}, are {found}; serve that base, or put its {RECORD} beside the adapter"
        )


def _identity(path: Path, wanted: str, model: Path) -> str:
    """Return the model's identity: of the files that the base's record names, or of all that there are."""
    names = _recorded(path / RECORD, wanted)
    if names is None:
        names = {file.name for file in model.iterdir() if file.is_file()}
    digests = {name: _digest(str(model / name)) for name in sorted(names)}
    return _sha256_json(digests)


def _recorded(path: Path, wanted: str) -> set[str] | None:
    """Return the names in the record of the wanted base; None where there is none."""
    if path.is_symlink() or not path.is_file() or path.stat().st_size > _RECORD_BYTES:
        return None
    try:
        files: Any = json.loads(path.read_bytes())["files"]
        sound = isinstance(files, dict) and _sha256_json(files) == wanted
    except (ValueError, KeyError, TypeError):
        return None
    plain = sound and all(name == Path(name).name for name in files)
    return set(files) if plain else None


def _sha256_json(value: Any) -> str:
    """As whoever wrote the record hashes it."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _digest(path: str) -> str:
    file = Path(path)
    if not file.is_file():
        return "missing"
    stat = file.stat()
    return _digest_of(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _digest_of(path: str, _size: int, _changed: int) -> str:
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
