"""The two files of an adapter directory, read and hashed without loading torch."""

from __future__ import annotations

from pathlib import Path

from reft.files import canonical_json, sha256

TENSORS_NAME = "adapter.safetensors"
CONFIG_NAME = "adapter_config.json"
MAX_CONFIG_BYTES = 1_000_000


def adapter_sha256(path: Path) -> str:
    """Return the hash of an adapter: of its two files, whatever else stands beside them.

    Raises:
        ValueError: as :func:`read_file`.
    """
    return sha256_of(read_file(path, TENSORS_NAME, None), read_file(path, CONFIG_NAME, MAX_CONFIG_BYTES))


def sha256_of(tensors: bytes, config: bytes) -> str:
    """Return the hash of an adapter with this content."""
    return sha256(canonical_json({TENSORS_NAME: sha256(tensors), CONFIG_NAME: sha256(config)}))


def read_file(path: Path, name: str, limit: int | None) -> bytes:
    """Return the bytes of the file ``name`` in an adapter directory.

    Raises:
        ValueError: if it is missing, a symbolic link, or of more than ``limit`` bytes.
    """
    file = path / name
    if path.is_symlink() or file.is_symlink():
        raise ValueError(f"an adapter is a directory of plain files; got a symbolic link at {file}; copy its target")
    if not file.is_file():
        raise ValueError(
            f"an adapter directory holds {TENSORS_NAME} and {CONFIG_NAME}; got none at {file}; give another"
        )
    if limit is not None and file.stat().st_size > limit:
        raise ValueError(f"{name} must be of at most {limit} bytes; got {file.stat().st_size}; fetch it again")
    return file.read_bytes()
