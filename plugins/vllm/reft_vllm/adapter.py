"""An adapter directory, checked and read: ``adapter_config.json`` and ``adapter.safetensors``, and nothing else.

Nothing is unpickled and no link is followed. The directory's format is the one of reft-pipeline, formats 1 and 2.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from reft_vllm.forms import ACTIVATIONS, Form, form_of, shapes
from reft_vllm.positions import Range, Tokens, parse_tokens

CONFIG = "adapter_config.json"
TENSORS = "adapter.safetensors"
_FORMATS = (1, 2)
_KIND = "causal_lm"
_CONFIG_BYTES = 1_000_000
_TENSOR_BYTES = 1 << 33
_ORTHONORMALITY = 1e-4  # as whoever wrote the directory held it to
_FIRST_FORMAT: dict[str, Any] = {  # what format 1, which had LoReFT alone, left unsaid
    "method": "loreft", "init": "identity", "tied": True, "activation": "linear", "dropout": 0.0,
    "dropout_on": "edit", "projection_bias": False, "overrides": [],
}  # fmt: skip


@dataclass(frozen=True)
class Group:
    """The edits of an adapter that are at the same tokens.

    Attributes:
        tokens: of the layers.
        parts: which parts of them.
        forms: layer -> edit.
    """

    tokens: Tokens
    parts: tuple[str, ...]
    forms: Mapping[int, Form]


@dataclass(frozen=True)
class Adapter:
    """An adapter as an engine needs it.

    Attributes:
        key: the sha256 of its files, as the registry has it.
        method: its name.
        positions: as its config has them.
        hidden_size: of its base.
        num_layers: of its base.
        base_sha256: identity of its base; None if it records none.
        base_name: the base's name for people.
        groups: its edits, by their tokens.
    """

    key: str
    method: str
    positions: str
    hidden_size: int
    num_layers: int
    base_sha256: str | None
    base_name: str
    groups: tuple[Group, ...]

    def edited(self, length: int) -> tuple[tuple[Range, ...], ...]:
        """Return the edited positions of each group, for a prompt of ``length`` tokens."""
        return tuple(group.tokens.of(length, group.parts) for group in self.groups)

    @property
    def values(self) -> int:
        """How many numbers an engine keeps of it."""
        return sum(
            tensor.numel()
            for group in self.groups
            for form in group.forms.values()
            for tensor in vars(form).values()
            if isinstance(tensor, Tensor)
        )


def read_adapter(path: Path) -> Adapter:
    """Read and check an adapter directory.

    Raises:
        ValueError: for links, missing files, another format or kind, wrong hashes, names, shapes, dtypes or values.
    """
    contents = {name: _content(path, name) for name in (CONFIG, TENSORS)}
    try:
        raw = json.loads(contents[CONFIG])
        record = _Record.of(raw)
        _check(record.tensors_sha256 == _sha256(contents[TENSORS]), TENSORS, "the sha256 in its config", path)
        tensors = _tensors(contents[TENSORS], record)
        groups = tuple(record.groups(tensors))
    except (KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{CONFIG} must be what reft-pipeline writes; got {error!r:.300} in {path}") from error
    except ValueError as error:
        raise ValueError(f"{error}; it is in {path}") from error
    digests = {name: _sha256(content) for name, content in contents.items()}
    return Adapter(
        key=_sha256(canonical_json(digests)),
        method=record.method,
        positions=record.positions,
        hidden_size=record.hidden_size,
        num_layers=record.num_layers,
        base_sha256=record.base_sha256,
        base_name=record.base_name,
        groups=groups,
    )


def canonical_json(value: object) -> bytes:
    """Return the one JSON text of plain values, which is hashed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


@dataclass(frozen=True)
class _Record:
    """What a config says, checked as far as edits need it."""

    method: str
    layers: tuple[int, ...]
    positions: str
    rank: int | None
    tied: bool
    activation: str
    projection_bias: bool
    overrides: Mapping[int, Mapping[str, Any]]
    hidden_size: int
    num_layers: int
    base_sha256: str | None
    base_name: str
    tensors_sha256: str

    @classmethod
    def of(cls, raw: Any) -> _Record:
        if raw.get("kind", _KIND) != _KIND:
            raise ValueError(f"an adapter that is served is one of ReFT on a decoder; got kind {raw['kind']!r}")
        if raw["format"] not in _FORMATS:
            raise ValueError(f"the formats read here are {_FORMATS}; got {raw['format']!r}; update reft-vllm")
        reft = raw["reft"] if raw["format"] > 1 else {**_FIRST_FORMAT, **raw["reft"]}
        unknown = set(reft) - {*_FIRST_FORMAT, "layers", "positions", "rank"}
        if unknown:
            raise ValueError(f"a config with keys that are not known may edit otherwise; got {sorted(unknown)}")
        base = raw["base"]
        record = cls(
            method=reft["method"],
            layers=tuple(reft["layers"]),
            positions=reft["positions"],
            rank=reft["rank"],
            tied=reft["tied"],
            activation=reft["activation"],
            projection_bias=reft["projection_bias"],
            overrides={each["layer"]: each for each in reft["overrides"]},
            hidden_size=base["hidden_size"],
            num_layers=base["num_layers"],
            base_sha256=base["sha256"],
            base_name=base["name"],
            tensors_sha256=raw["tensors_sha256"],
        )
        record._check_values()
        return record

    def _check_values(self) -> None:
        numbers = (self.hidden_size, self.num_layers, *self.layers, 1 if self.rank is None else self.rank)
        if not all(type(number) is int and number >= 0 for number in numbers) or not self.layers:
            raise ValueError(f"layers, rank and sizes are whole numbers; got {numbers}")
        if list(self.layers) != sorted(set(self.layers)) or self.layers[-1] >= self.num_layers:
            raise ValueError(f"layers ascend below {self.num_layers}; got {self.layers}")
        if type(self.tied) is not bool or type(self.projection_bias) is not bool or self.activation not in ACTIVATIONS:
            raise ValueError(f"tied, projection_bias or activation is strange; got {self.tied}, {self.activation}")
        texts = (self.method, self.positions, self.base_name, self.tensors_sha256, self.base_sha256 or "")
        if not all(isinstance(text, str) for text in texts) or not set(self.overrides) <= set(self.layers):
            raise ValueError("the texts and overrides of a config are strange")

    def slots(self) -> list[tuple[str, int, Tokens, tuple[str, ...]]]:
        """Return the name, layer, tokens and parts of every edit."""
        made = []
        for layer in self.layers:
            tokens = parse_tokens(self.overrides.get(layer, {}).get("positions") or self.positions)
            if self.tied or len(tokens.parts) == 1:
                made.append((f"layer_{layer}", layer, tokens, tokens.parts))
            else:
                made += [(f"layer_{layer}_{part}", layer, tokens, (part,)) for part in tokens.parts]
        return made

    def shapes(self, layer: int) -> dict[str, tuple[int, ...]]:
        rank = self.overrides.get(layer, {}).get("rank") or self.rank
        return shapes(self.method, self.hidden_size, rank, projection_bias=self.projection_bias)

    def groups(self, tensors: Mapping[str, Tensor]) -> list[Group]:
        gathered: dict[tuple[Tokens, tuple[str, ...]], dict[int, Form]] = {}
        for slot, layer, tokens, parts in self.slots():
            own = {name: tensors[f"{slot}.{name}"] for name in self.shapes(layer)}
            gathered.setdefault((tokens, parts), {})[layer] = form_of(self.method, own, self.activation)
        return [Group(tokens, parts, forms) for (tokens, parts), forms in gathered.items()]


def _content(path: Path, name: str) -> bytes:
    file = path / name
    if path.is_symlink() or file.is_symlink():
        raise ValueError(f"an adapter is a directory of plain files; got a symbolic link at {file}; copy its target")
    if not file.is_file():
        raise ValueError(f"an adapter directory holds {CONFIG} and {TENSORS}; got none at {file}; name another")
    limit = _CONFIG_BYTES if name == CONFIG else _TENSOR_BYTES
    if file.stat().st_size > limit:
        raise ValueError(f"{name} is of at most {limit} bytes; got {file.stat().st_size} in {path}")
    return file.read_bytes()


def _tensors(content: bytes, record: _Record) -> dict[str, Tensor]:
    try:
        tensors = safetensors.torch.load(content)
    except SafetensorError as error:
        raise ValueError(f"{TENSORS} must be a safetensors file; got {error}") from error
    expected = {
        f"{slot}.{name}": shape for slot, layer, _, _ in record.slots() for name, shape in record.shapes(layer).items()
    }
    got = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if got != expected:
        wrong = sorted(set(got.items()) ^ set(expected.items()))[:4]
        raise ValueError(f"{TENSORS} must hold the tensors that its config describes; they differ in {wrong}")
    for name, tensor in tensors.items():
        _check_tensor(name, tensor)
    return tensors


def _check_tensor(name: str, tensor: Tensor) -> None:
    if tensor.dtype != torch.float32 or not torch.isfinite(tensor).all():
        raise ValueError(f"an adapter's tensors are finite float32; got {tensor.dtype} {name}, or what is not finite")
    if name.endswith(".rotation"):
        gram = tensor.double() @ tensor.double().mT
        error = (gram - torch.eye(len(gram), dtype=gram.dtype)).abs().max().item()
        if error > _ORTHONORMALITY:
            raise ValueError(f"the rows of {name} are orthonormal; got an error of {error:.1e}")


def _check(right: bool, name: str, what: str, path: Path) -> None:
    if not right:
        raise ValueError(f"{name} must have {what}; it differs in {path}; fetch it again")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def folders_in(root: Path) -> Sequence[Path]:
    """Return the folders under ``root`` that hold an adapter's config, in the order of their names."""
    return [path for path in sorted(root.iterdir()) if not path.is_symlink() and (path / CONFIG).is_file()]
