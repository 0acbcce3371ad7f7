"""The adapter directory of any method: what :mod:`reft.adapters.directory` writes for ReFT, and the rivals' like it.

A rival's directory holds our ``adapter_config.json``, with the base's identity and the sha256 of every other file, and
PEFT's own layout in the folder ``peft``, which PEFT itself loads. What PEFT has no layout for is in
``adapter.safetensors``: changed weights of full fine-tuning, LoRA that moves with a domain, and the edits of ReFT on
top of LoRA.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from reft.adapters.directory import (
    AdapterInfo,
    adapter_tensors,
    are_numbers,
    check_base,
    check_tensors,
    load_adapter,
    load_encoder,
    read_adapter,
    read_kind,
    save_adapter,
)
from reft.adapters.files import (
    CONFIG_NAME,
    MAX_CONFIG_BYTES,
    PEER,
    PEER_NAMES,
    PEFT_CONFIG_NAME,
    PEFT_TENSORS_NAME,
    STRANGE,
    TENSORS_NAME,
    not_ours,
    read_config,
    read_file,
    sha256_of,
)
from reft.edits.config import ReftConfig, count_parameters
from reft.files import sha256, write_directory
from reft.models.decoder import ReftModel
from reft.models.encoder import ReftEncoder
from reft.models.heads import head_modules, start_head
from reft.peers.methods import PeerConfig, config_from_dict
from reft.peers.model import PeerModel
from reft.peers.parts import PartConfig
from reft.peers.stacked import StackedConfig, StackedModel

FORMAT = 2
MethodModel = ReftModel | PeerModel | StackedModel | ReftEncoder
"""A frozen base with what some method trains: a decoder, or an encoder with edits and a head."""


def build_method(base: nn.Module, config: ReftConfig | PeerConfig, *, seed: int) -> MethodModel:
    """Return a new model of a method on a decoder.

    Raises:
        ValueError: if the base is not one that the config fits.
    """
    if isinstance(config, ReftConfig):
        return ReftModel(base, config, seed=seed)
    if isinstance(config, StackedConfig):
        return StackedModel(base, config, seed=seed)
    assert isinstance(config, PartConfig)
    return PeerModel(base, config, seed=seed)


def build_encoder(base: nn.Module, config: ReftConfig, *, seed: int) -> ReftEncoder:
    """Return new edits and a new head on an encoder, the head in place of what the base had of one.

    Args:
        base: a ``transformers`` model for sequence classification.
        config: what to edit.
        seed: of the initial values of edits and head.

    Raises:
        ValueError: if the base has no head, or is not one that the config fits.
    """
    names = head_modules(base)
    start_head(base, names, seed=seed)
    return ReftEncoder(base, config, seed=seed, head=names)


def save_method(model: MethodModel, path: Path, info: AdapterInfo) -> str:
    """Write the adapter directory whole and return its sha256; see :func:`reft.save_adapter`.

    Raises:
        FileExistsError: if there is anything at ``path``.
        ValueError: if a number is NaN or infinite, or ``info`` holds other than plain JSON values.
    """
    if isinstance(model, ReftModel | ReftEncoder):
        return save_adapter(model, path, info)
    files = _contents(model, info)
    record = {
        "format": FORMAT,
        "kind": PEER,
        "method": model.config.to_dict(),
        "base": {
            "sha256": info.base_sha256,
            "name": info.base_name,
            "hidden_size": model.hidden_size,
            "num_layers": model.num_layers,
        },
        "data_sha256": info.data_sha256,
        "prompt": info.prompt,
        "seed": info.seed,
        "files_sha256": {name: sha256(content) for name, content in files.items()},
    }
    try:
        # Not sorted: the order of the labels is part of the prompt.
        text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    except TypeError as error:
        raise ValueError(f"an adapter's prompt holds plain JSON values; got {info.prompt}; {error}") from error
    files[CONFIG_NAME] = text.encode()
    write_directory(path, files)
    return sha256_of(files)


def load_method(path: Path, base: nn.Module, *, base_sha256: str | None) -> MethodModel:
    """Put a saved adapter of any method on its base; without gradients, outputs are bit-equal to those before saving.

    Nothing is unpickled, no link is followed, and only files that are named in this module are opened.

    Args:
        path: the adapter directory.
        base: the model it was trained on: decoder-only, or one for sequence classification, with as many labels.
        base_sha256: that model's identity, from the caller's base store.

    Raises:
        ValueError: for another base (identity, width or depth), another format, wrong tensors, or links.
    """
    record = _read(path)
    if record is None:
        load = load_encoder if read_kind(path) == ReftEncoder.KIND else load_adapter
        return load(path, base, base_sha256=base_sha256)
    check_base(record.info, base_sha256)
    _check_count(path, base, record)
    if isinstance(record.config, PartConfig):
        model: MethodModel = PeerModel(base, record.config, seed=record.info.seed, as_saved=True)
    else:
        model = build_method(base, record.config, seed=record.info.seed)
    if (model.hidden_size, model.num_layers) != (record.hidden_size, record.num_layers):
        raise ValueError(
            f"the base must have {record.num_layers} layers of width {record.hidden_size}; "
            f"got {model.num_layers} of {model.hidden_size}; load the adapter's own base"
        )
    _fill(model, path, record)
    return model


def read_info(path: Path) -> AdapterInfo:
    """Read where an adapter of any method comes from, and how its prompts are made.

    Raises:
        ValueError: for a directory that is no adapter, a symbolic link, or another format.
    """
    record = _read(path)
    return read_adapter(path)[1] if record is None else record.info


def read_method(path: Path) -> ReftConfig | PeerConfig:
    """Read what an adapter of any method trained; errors as :func:`read_info`."""
    record = _read(path)
    return read_adapter(path)[0] if record is None else record.config


@dataclass(frozen=True)
class _Record:
    config: PeerConfig
    info: AdapterInfo
    hidden_size: int
    num_layers: int
    files_sha256: dict[str, str]


def _read(path: Path) -> _Record | None:
    """Return the record of a rival's adapter, or None for one that :mod:`reft.adapters.directory` reads."""
    raw = read_config(path)
    if raw.get("kind") != PEER:
        return None
    try:
        if raw["format"] != FORMAT:
            raise ValueError(
                f"the format of an adapter read here is {FORMAT}; got {raw['format']!r}; use the release that wrote it"
            )
        base = raw["base"]
        info = AdapterInfo(base["sha256"], base["name"], raw["data_sha256"], raw["prompt"], raw["seed"])
        record = _Record(
            config_from_dict(raw["method"]), info, base["hidden_size"], base["num_layers"], raw["files_sha256"]
        )
    except STRANGE as error:
        raise not_ours(path, error) from error
    texts = (info.base_sha256 or "", info.base_name, info.data_sha256 or "")
    right = all(isinstance(value, str) for value in texts) and are_numbers(info, record.hidden_size, record.num_layers)
    files = record.files_sha256
    named = isinstance(files, dict) and set(files) == set(_names(record.config))
    if not right or not named or not isinstance(info.prompt, dict):
        raise not_ours(path, record)
    return record


def _check_count(path: Path, base: nn.Module, record: _Record) -> None:
    """Refuse a config of more numbers than its files hold, before there is memory taken for them."""
    held = sum((path / name).stat().st_size for name in _names(record.config) if (path / name).is_file()) // 4
    try:
        described = _count(base, record)
    except STRANGE as error:
        raise not_ours(path, error) from error
    if described > held:
        raise ValueError(
            f"an adapter's files must hold the numbers of its config; got {described} in {CONFIG_NAME} and room for "
            f"{held} in the files of {path}; save the adapter again"
        )


def _count(base: nn.Module, record: _Record) -> int:
    config = record.config
    if isinstance(config, StackedConfig):
        return config.lora.count(base) + count_parameters(config.reft, record.hidden_size)
    assert isinstance(config, PartConfig)
    return config.saved().count(base)


def _names(config: PeerConfig) -> tuple[str, ...]:
    """Return the names of the files that a rival's adapter has beside our config."""
    if isinstance(config, PartConfig) and not config.IN_PEFT:
        return (TENSORS_NAME,)
    return PEER_NAMES if isinstance(config, StackedConfig) else (PEFT_TENSORS_NAME, PEFT_CONFIG_NAME)


def _contents(model: PeerModel | StackedModel, info: AdapterInfo) -> dict[str, bytes]:
    peer = model.lora if isinstance(model, StackedModel) else model
    tensors = peer.part.export_tensors()
    check_tensors(tensors)
    if isinstance(model, PeerModel) and not model.config.IN_PEFT:
        return {TENSORS_NAME: safetensors.torch.save(tensors)}
    files = {
        PEFT_TENSORS_NAME: safetensors.torch.save(tensors, metadata={"format": "pt"}),
        PEFT_CONFIG_NAME: _peft_json(peer, info),
    }
    if isinstance(model, StackedModel):
        files[TENSORS_NAME] = safetensors.torch.save(adapter_tensors(model.reft))
    return files


def _peft_json(model: PeerModel, info: AdapterInfo) -> bytes:
    """Return PEFT's ``adapter_config.json``: a function of model and base alone."""
    settings = model.config.peft_settings(model.base)
    plain = {name: sorted(value) if isinstance(value, set) else value for name, value in settings.to_dict().items()}
    plain |= {"base_model_name_or_path": info.base_name, "inference_mode": True}
    return (json.dumps(plain, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def _fill(model: MethodModel, path: Path, record: _Record) -> None:
    found = {}
    for name in _names(record.config):
        limit = MAX_CONFIG_BYTES if name == PEFT_CONFIG_NAME else None
        found[name] = read_file(path, name, limit)
        if sha256(found[name]) != record.files_sha256[name]:
            raise ValueError(f"{name} must have the sha256 in {CONFIG_NAME}; it differs in {path}; fetch it again")
    if isinstance(model, StackedModel):
        model.lora.part.import_tensors(_tensors(found, PEFT_TENSORS_NAME, model.lora.part.tensor_shapes()))
        slots = dict(model.reft.named_interventions())
        shapes = {
            f"{slot}.{name}": shape
            for slot, intervention in slots.items()
            for name, shape in intervention.tensor_shapes(model.hidden_size, intervention.form).items()
        }
        edits = _tensors(found, TENSORS_NAME, shapes)
        for slot, intervention in slots.items():
            own = {name.removeprefix(f"{slot}."): v for name, v in edits.items() if name.startswith(f"{slot}.")}
            intervention.import_tensors(own)
    elif isinstance(model, PeerModel):
        name = PEFT_TENSORS_NAME if model.config.IN_PEFT else TENSORS_NAME
        model.part.import_tensors(_tensors(found, name, model.part.tensor_shapes()))


def _tensors(files: Mapping[str, bytes], name: str, expected: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    try:
        tensors = safetensors.torch.load(files[name])
    except SafetensorError as error:
        raise ValueError(f"{name} must be a safetensors file; got {error}; fetch it again") from error
    got: dict[str, Any] = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    if got != expected:
        raise ValueError(f"{name} must hold {dict(expected)}; got {got}; save the adapter again")
    check_tensors(tensors)
    return tensors
