"""The adapter directory: ``adapter.safetensors`` and ``adapter_config.json``, and nothing that runs code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from reft.adapters.files import (
    CONFIG_NAME,
    PEER,
    STRANGE,
    TENSORS_NAME,
    not_ours,
    read_config,
    read_file,
    sha256_of,
)
from reft.edits.config import ReftConfig, count_parameters
from reft.edits.methods.table import DECLARED
from reft.edits.orthogonal import orthonormality_error
from reft.files import sha256, write_directory
from reft.models.adapted import AdaptedModel
from reft.models.decoder import ReftModel
from reft.models.encoder import ReftEncoder
from reft.models.seq2seq import ReftSeq2Seq

FORMAT = 2
READ = (1, 2)  # format 1 had LoReFT on decoders alone
HEAD = "head."
LOADERS = {ReftModel.KIND: "load_adapter", ReftEncoder.KIND: "load_encoder", ReftSeq2Seq.KIND: "load_seq2seq"}
_MAX_HEADER_BYTES = 10_000_000
_MAX_SIZE = 1 << 24  # layers or width of a base
_MAX_SEED = 1 << 63
_MAX_ORTHONORMALITY_ERROR = 1e-4  # fp32 QR stays below 1e-6; more is another kind of matrix


@dataclass(frozen=True)
class AdapterInfo:
    """Where an adapter comes from, and how its prompts are made; what nobody recorded is None or empty.

    Attributes:
        base_sha256: identity of the base it was trained on. Without one, loading can check the base's size alone, and
            whoever loads the adapter has to know which base it is for.
        base_name: that base's name for people.
        data_sha256: identity of the training data.
        prompt: plain JSON values of the prompt's form: template, chat, labels.
        seed: of the training.
    """

    base_sha256: str | None = None
    base_name: str = ""
    data_sha256: str | None = None
    prompt: dict[str, Any] = field(default_factory=dict)
    seed: int = 0


def save_adapter(model: AdaptedModel, path: Path, info: AdapterInfo) -> str:
    """Write the adapter directory whole and return its :func:`reft.adapters.files.adapter_sha256`.

    The files are a function of the model and ``info`` alone (no times, no paths), so the same training gives the
    same hash. R itself is stored, not what it was parametrised by. An encoder's head is stored beside the edits.

    Raises:
        FileExistsError: if there is anything at ``path``.
        ValueError: if a parameter is NaN or infinite, or ``info`` holds other than plain JSON values.
    """
    content = safetensors.torch.save(adapter_tensors(model))
    record = {
        "format": FORMAT,
        "kind": model.KIND,
        "head": model.head_record(),
        "reft": model.config.to_dict(),
        "base": {
            "sha256": info.base_sha256,
            "name": info.base_name,
            "hidden_size": model.hidden_size,
            "num_layers": model.num_layers,
        },
        "data_sha256": info.data_sha256,
        "prompt": info.prompt,
        "seed": info.seed,
        "tensors_sha256": sha256(content),
    }
    try:
        # Not sorted: the order of the labels is part of the prompt.
        text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    except TypeError as error:
        raise ValueError(f"an adapter's prompt holds plain JSON values; got {info.prompt}; {error}") from error
    write_directory(path, {TENSORS_NAME: content, CONFIG_NAME: text.encode()})
    return sha256_of({TENSORS_NAME: content, CONFIG_NAME: text.encode()})


def adapter_tensors(model: AdaptedModel) -> dict[str, Tensor]:
    """Return the checked tensors of an adapter file, on the CPU: each edit's, and those of a head."""
    tensors = {
        f"{slot}.{name}": tensor
        for slot, intervention in model.named_interventions()
        for name, tensor in intervention.export_tensors().items()
    }
    for name, value in model.head_tensors().items():
        tensors[f"{HEAD}{name}"] = value.detach().to("cpu", torch.float32, copy=True).contiguous()
    check_tensors(tensors)
    return tensors


def read_adapter(path: Path) -> tuple[ReftConfig, AdapterInfo]:
    """Read an adapter's description without its tensors.

    Raises:
        ValueError: for a directory that is no adapter, a symbolic link, or another format.
    """
    record = _read_record(path)
    return record.config, record.info


def read_kind(path: Path) -> str:
    """Read which kind of model an adapter is of, as :data:`LOADERS` names them; errors as :func:`read_adapter`."""
    return _read_record(path).kind


def read_outputs(path: Path) -> int:
    """Read how many numbers an adapter's head answers with, 0 without a head; errors as :func:`read_adapter`."""
    return int(_read_record(path).head.get("num_labels", 0))


def read_interventions(path: Path) -> dict[str, dict[str, Tensor]]:
    """Read the checked tensors of a decoder's adapter without its base: slot -> name -> tensor.

    Raises:
        ValueError: as :func:`load_adapter`, but for the base.
    """
    record = _read_record(path)
    if record.kind != ReftModel.KIND:
        raise ValueError(f"only an adapter of kind {ReftModel.KIND} is read without its base; got {record.kind}")
    found: dict[str, dict[str, Tensor]] = {slot: {} for slot in record.config.forms()}
    for name, tensor in _read_tensors(path, record, head={}).items():
        slot, _, part = name.partition(".")
        found[slot][part] = tensor
    return found


def load_adapter(path: Path, base: nn.Module, *, base_sha256: str | None) -> ReftModel:
    """Put a saved adapter on its base; without gradients, outputs are bit-equal to those before saving.

    Nothing is unpickled, no link is followed, and only the two named files are opened.

    Args:
        path: the adapter directory.
        base: the model it was trained on, decoder-only.
        base_sha256: that model's identity, from the caller's base store; None for an adapter that records none.

    Raises:
        ValueError: for another base (identity, width or depth), another kind of model, another format, wrong tensors
            (names, shapes, dtype, values, R not orthonormal), or links.
    """
    record = _checked_record(path, base_sha256, ReftModel.KIND)
    model = ReftModel(base, record.config, seed=record.info.seed)
    _fill(model, path, record)
    return model


def load_encoder(path: Path, base: nn.Module, *, base_sha256: str | None) -> ReftEncoder:
    """Put a saved adapter and its head on an encoder; as :func:`load_adapter`.

    Args:
        path: the adapter directory.
        base: a model for sequence classification over the backbone it was trained on, with as many labels; whatever
            its head holds is replaced.
        base_sha256: the backbone's identity, from the caller's base store.
    """
    record = _checked_record(path, base_sha256, ReftEncoder.KIND)
    model = ReftEncoder(base, record.config, seed=record.info.seed, head=record.head["modules"])
    if model.num_labels != record.head["num_labels"]:
        raise ValueError(
            f"the head must have the adapter's {record.head['num_labels']} labels; got {model.num_labels}; "
            "build the base with num_labels set to that"
        )
    _fill(model, path, record)
    return model


def load_seq2seq(path: Path, base: nn.Module, *, base_sha256: str | None) -> ReftSeq2Seq:
    """Put a saved adapter on an encoder-decoder; as :func:`load_adapter`."""
    record = _checked_record(path, base_sha256, ReftSeq2Seq.KIND)
    model = ReftSeq2Seq(base, record.config, seed=record.info.seed)
    _fill(model, path, record)
    return model


def _checked_record(path: Path, base_sha256: str | None, kind: str) -> _Record:
    record = _read_record(path)
    check_base(record.info, base_sha256)
    if record.kind != kind:
        raise ValueError(
            f"the adapter must be for a model of kind {kind}; got {record.kind}; use {LOADERS[record.kind]}"
        )
    return record


def check_base(info: AdapterInfo, base_sha256: str | None) -> None:
    """Raise ValueError unless an adapter is for the base that has this identity, or both have none."""
    if info.base_sha256 != base_sha256:
        advice = "load that base" if info.base_sha256 is not None else "give None, if it is the right base"
        raise ValueError(
            f"an adapter loads on the base it was trained on, {info.base_name or 'without a name'} "
            f"({info.base_sha256}); got {base_sha256}; {advice}"
        )


def _fill(model: AdaptedModel, path: Path, record: _Record) -> None:
    """Read an adapter's tensors into a model that was built from its record."""
    if (model.hidden_size, model.num_layers) != (record.hidden_size, record.num_layers):
        raise ValueError(
            f"the base must have {record.num_layers} layers of width {record.hidden_size}; "
            f"got {model.num_layers} of {model.hidden_size}; load the adapter's own base"
        )
    tensors = _read_tensors(path, record, head=model.head_tensors())
    for slot, intervention in model.named_interventions():
        names = intervention.tensor_shapes(model.hidden_size, intervention.form)
        intervention.import_tensors({name: tensors[f"{slot}.{name}"] for name in names})
    with torch.no_grad():
        for name, value in model.head_tensors().items():
            value.copy_(tensors[f"{HEAD}{name}"])


@dataclass(frozen=True)
class _Record:
    kind: str
    head: dict[str, Any]
    config: ReftConfig
    info: AdapterInfo
    hidden_size: int
    num_layers: int
    tensors_sha256: str


def _read_record(path: Path) -> _Record:
    raw = read_config(path)
    try:
        if raw.get("kind") == PEER:
            raise ValueError(f"an adapter of ReFT is read here; got one of {raw['method']['method']}; use load_method")
        if raw["format"] not in READ:
            raise ValueError(
                f"the adapter formats read here are {READ}; got {raw['format']!r}; use the release that wrote it"
            )
        if raw["format"] == 1:
            raw |= {"kind": ReftModel.KIND, "head": {}, "reft": ReftConfig.defaults() | raw["reft"]}
        base = raw["base"]
        info = AdapterInfo(base["sha256"], base["name"], raw["data_sha256"], raw["prompt"], raw["seed"])
        record = _Record(
            raw["kind"],
            raw["head"],
            ReftConfig.from_dict(raw["reft"]),
            info,
            base["hidden_size"],
            base["num_layers"],
            raw["tensors_sha256"],
        )
    except STRANGE as error:
        raise not_ours(path, error) from error
    _check_types(record, path)
    return record


def _check_types(record: _Record, path: Path) -> None:
    info = record.info
    hashes = (info.base_sha256 or "", info.data_sha256 or "")
    texts = (*hashes, info.base_name, record.tensors_sha256)
    right = all(isinstance(value, str) for value in texts) and are_numbers(info, record.hidden_size, record.num_layers)
    head = record.head if isinstance(record.head, dict) else None
    right = right and head is not None
    if record.kind == ReftEncoder.KIND and head is not None:
        names, outputs = head.get("modules"), head.get("num_labels")
        right = right and isinstance(names, list) and all(isinstance(name, str) for name in names)
        tensors = path / TENSORS_NAME
        held = tensors.stat().st_size // 4 if tensors.is_file() else 0  # each output has a bias in it
        right = right and type(outputs) is int and 0 < outputs <= held
    if not right or not isinstance(info.prompt, dict) or not isinstance(record.kind, str) or record.kind not in LOADERS:
        raise not_ours(path, record)


def are_numbers(info: AdapterInfo, *sizes: object) -> bool:
    """Whether the numbers of an adapter's config are: a seed that torch takes, and sizes of a base."""
    sound = all(type(size) is int and 0 < size < _MAX_SIZE for size in sizes)
    return sound and type(info.seed) is int and abs(info.seed) < _MAX_SEED


def _read_tensors(path: Path, record: _Record, head: Mapping[str, Tensor]) -> dict[str, Tensor]:
    numbers = count_parameters(record.config, record.hidden_size) + sum(value.numel() for value in head.values())
    limit = 4 * numbers + _MAX_HEADER_BYTES
    content = read_file(path, TENSORS_NAME, limit)
    if sha256(content) != record.tensors_sha256:
        raise ValueError(f"{TENSORS_NAME} must have the sha256 in {CONFIG_NAME}; it differs in {path}; fetch it again")
    try:
        tensors = safetensors.torch.load(content)
    except SafetensorError as error:
        raise ValueError(f"{TENSORS_NAME} must be a safetensors file; got {error}; fetch it again") from error
    method = DECLARED[record.config.method]
    expected = {
        f"{slot}.{name}": shape
        for slot, form in record.config.forms().items()
        for name, shape in method.tensors(record.hidden_size, form).items()
    }
    expected |= {f"{HEAD}{name}": tuple(value.shape) for name, value in head.items()}
    got = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if got != expected:
        raise ValueError(f"{TENSORS_NAME} must hold {expected}; got {got}; save the adapter again")
    check_tensors(tensors)
    return tensors


def check_tensors(tensors: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless every tensor of an adapter is finite float32, and every rotation has orthonormal rows."""
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32 or not torch.isfinite(tensor).all():
            raise ValueError(
                f"an adapter's tensors must be finite float32; got {tensor.dtype} {name}, "
                "or a NaN or infinity in it; train again"
            )
        if name.endswith(".rotation") and (error := orthonormality_error(tensor)) > _MAX_ORTHONORMALITY_ERROR:
            raise ValueError(f"the rows of {name} must be orthonormal; got an error of {error:.1e}; train again")
