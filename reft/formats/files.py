"""Other libraries' files, opened with suspicion: no links, no code in them is run, nothing beyond a size is read.

``torch.save`` writes pickles, which can hold any code. Here alone they are opened, by torch's own reader of plain
tensors (``weights_only``), after the archive around them has been checked.
"""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from pickle import UnpicklingError  # what the reader raises; nothing here unpickles by itself
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

MAX_JSON_BYTES = 5_000_000

_BROKEN = (
    UnpicklingError,
    RuntimeError,
    EOFError,
    OSError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
)
"""What torch's reader raises for files that are none, found by damaging one in many ways."""


def plain_file(folder: Path, name: str, limit: int) -> Path:
    """Return the path of a file in ``folder``.

    Raises:
        ValueError: if it is missing, a symbolic link or in one, or of more than ``limit`` bytes.
    """
    path = folder / name
    if folder.is_symlink() or path.is_symlink():
        raise ValueError(f"an adapter is a directory of plain files; got a symbolic link at {path}; copy its target")
    if not path.is_file():
        raise ValueError(f"the directory must hold {name}; got none in {folder}; give the directory that was saved")
    if (size := path.stat().st_size) > limit:
        raise ValueError(f"{name} must be of at most {limit} bytes; got {size}; give an adapter, not a whole model")
    return path


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        ValueError: as :func:`plain_file`, or if it holds no JSON object.
    """
    path = plain_file(folder, name, MAX_JSON_BYTES)
    try:
        raw = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} must be JSON; got {error!r} in {folder}; fetch it again") from error
    if not isinstance(raw, dict):
        raise ValueError(f"{name} must hold a JSON object; got {str(raw)[:80]}; fetch it again")
    return raw


def read_safetensors(folder: Path, name: str, limit: int) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, on the CPU.

    Raises:
        ValueError: as :func:`plain_file`, or if it is no such file.
    """
    path = plain_file(folder, name, limit)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    except SafetensorError as error:
        raise ValueError(f"{name} must be a safetensors file; got {error}; fetch it again") from error


def read_torch(folder: Path, name: str, limit: int) -> dict[str, Tensor]:
    """Return the tensors of a file that ``torch.save`` wrote from a state dict, on the CPU.

    The tensors are mapped from the file, so copy them before it may change.

    Raises:
        ValueError: as :func:`plain_file`; for code in the file, values other than plain tensors, the format from
            before torch 1.6, or compressed or overlapping members.
    """
    path = plain_file(folder, name, limit)
    size = path.stat().st_size
    _check_archive(path, size)
    try:
        # Mapped: a storage that claims more bytes than the file has is cut, not read past its end.
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except _BROKEN as error:
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        got = f"{code[1]}, which is code" if code else type(error).__name__
        raise ValueError(f"{name} must hold plain tensors; got {got}; do not use this file") from error
    if not isinstance(loaded, dict) or not all(isinstance(key, str) for key in loaded):
        raise ValueError(f"{name} must hold tensors by name; got {type(loaded).__name__}; give a saved state dict")
    return {key: _plain_tensor(f"{name}: {key}", value, size) for key, value in loaded.items()}


def _check_archive(path: Path, size: int) -> None:
    """Refuse an archive whose members could be larger than the file is."""
    rule = f"{path.name} must be a file of torch.save (torch 1.6 or later)"
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise ValueError(f"{rule}; got {error}; fetch it again, or save it with a newer torch") from error
    stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
    if not stored or sum(member.file_size for member in members) > size:
        raise ValueError(f"{rule}, which stores its members as they are; got packed ones; do not use this file")


def _plain_tensor(name: str, value: object, size: int) -> Tensor:
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.device.type != "cpu":
        raise ValueError(f"{name} must be a dense tensor; got {type(value).__name__}; give a saved state dict")
    # A view can claim any shape over a storage of one number.
    if value.numel() * value.element_size() > size:
        raise ValueError(f"{name} must not be larger than its file; got the shape {tuple(value.shape)}; do not use it")
    return value.detach()
