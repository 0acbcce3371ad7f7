"""The files of an adapter directory, read and hashed without loading torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reft.files import canonical_json, sha256

TENSORS_NAME = "adapter.safetensors"
CONFIG_NAME = "adapter_config.json"
MAX_CONFIG_BYTES = 1_000_000
LONGEST = 500  # characters of a value in a message
STRANGE = (KeyError, TypeError, AttributeError, OverflowError, RecursionError)
"""What Python raises for values of other types and sizes than were written."""
PEER = "peer"
"""The kind of an adapter of a rival of ReFT, whose config says the sha256 of each other file that it has."""
PEFT_TENSORS_NAME = "peft/adapter_model.safetensors"
PEFT_CONFIG_NAME = "peft/adapter_config.json"
PEER_NAMES = (TENSORS_NAME, PEFT_TENSORS_NAME, PEFT_CONFIG_NAME)


def adapter_sha256(path: Path) -> str:
    """Return the hash of an adapter: of its files, whatever else stands beside them.

    Raises:
        ValueError: as :func:`read_file`.
    """
    return sha256_of({name: read_file(path, name, None) for name in adapter_names(path)})


def sha256_of(files: Mapping[str, bytes]) -> str:
    """Return the hash of an adapter with this content."""
    return sha256(canonical_json({name: sha256(content) for name, content in files.items()}))


def adapter_names(path: Path) -> tuple[str, ...]:
    """Return the names of the files that an adapter directory holds: its config, and what that says there is.

    Raises:
        ValueError: as :func:`read_file`.
    """
    content = read_file(path, CONFIG_NAME, MAX_CONFIG_BYTES)
    try:
        record = json.loads(content)
        if record["kind"] == PEER:
            return (*(name for name in PEER_NAMES if name in record["files_sha256"]), CONFIG_NAME)
    except (ValueError, *STRANGE):
        pass  # whoever loads the adapter says what is wrong with its config
    return TENSORS_NAME, CONFIG_NAME


def read_config(path: Path) -> dict[str, Any]:
    """Return what an adapter's config holds, of whatever method.

    Raises:
        ValueError: as :func:`read_file`, and for what is no JSON object.
    """
    content = read_file(path, CONFIG_NAME, MAX_CONFIG_BYTES)
    try:
        raw = json.loads(content)
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, too deep, or a number of thousands of digits
        raise not_ours(path, error) from error
    if not isinstance(raw, dict):
        raise not_ours(path, f"a JSON {type(raw).__name__}")
    return raw


def not_ours(path: Path, what: object) -> ValueError:
    """The error for an adapter's config that no release wrote."""
    said = repr(what) if isinstance(what, Exception) else str(what)
    return ValueError(
        f"{CONFIG_NAME} must be what save_adapter writes, or save_method; got {said[:LONGEST]} in {path}; "
        "save the adapter again"
    )


def read_file(path: Path, name: str, limit: int | None) -> bytes:
    """Return the bytes of the file ``name`` in an adapter directory.

    Raises:
        ValueError: if it is missing, a symbolic link, or of more than ``limit`` bytes.
    """
    file = path / name
    if any(each.is_symlink() for each in (path, file.parent, file)):
        raise ValueError(f"an adapter is a directory of plain files; got a symbolic link at {file}; copy its target")
    if not file.is_file():
        raise ValueError(
            f"an adapter directory holds {TENSORS_NAME} and {CONFIG_NAME}; got none at {file}; give another"
        )
    if limit is not None and file.stat().st_size > limit:
        raise ValueError(f"{name} must be of at most {limit} bytes; got {file.stat().st_size}; fetch it again")
    return file.read_bytes()
