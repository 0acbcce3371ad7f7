"""models/base.json: what the stage base leaves."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any, get_args

from pipelines.errors import PipelineError, printable
from pipelines.files import read_json, sha256_json, write_json
from pipelines.params.base import Kind

FORMAT = 1
MOST = 1 << 48  # parameters, or anything else that is counted of a model


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
        num_layers: how many can be edited.
        vocab_size: rows of the embedding.
        parameters: of the whole model, tied weights once.
        kind: a language model that answers in tokens, or an encoder without a head; records of 0.1.0 name none.
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
    kind: Kind = "decoder"


_TYPES: dict[str, object] = {
    **dict.fromkeys(("source", "dtype", "sha256", "model_type"), str),
    **dict.fromkeys(("hidden_size", "num_layers", "vocab_size", "parameters"), int),
    "source_sha256": None,  # a text, or none
    "files": dict,
    "kind": get_args(Kind),
}


def _is(value: object, kind: object) -> bool:
    """Whether a value of base.json has its field's type: numbers from 1, texts, names of files, one of a few."""
    if kind is int:
        return type(value) is int and 0 < value < MOST
    if kind is dict:
        return isinstance(value, dict) and all(
            _is_text(digest) and _is_text(name) and PurePath(name).name == name for name, digest in value.items()
        )
    if isinstance(kind, tuple):
        return value in kind
    return _is_text(value) or (kind is None and value is None)


def _is_text(value: object) -> bool:
    """Whether it is a text that can be written and hashed: JSON may spell halves of surrogate pairs."""
    return isinstance(value, str) and printable(value) == value


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
    if not isinstance(raw, dict) or type(raw.get("format")) is not int or raw["format"] != FORMAT:
        raise PipelineError(f"{name} must be a base record of format {FORMAT}", got=str(raw)[:80], do=again)
    wrong = sorted(key for key, kind in _TYPES.items() if key in raw and not _is(raw[key], kind))
    if wrong:
        raise PipelineError(
            f"{name} must have fields of a base record's types", got=f"{wrong[0]}: {str(raw[wrong[0]])[:80]}", do=again
        )
    try:
        record = BaseRecord(**{key: value for key, value in raw.items() if key != "format"})
    except TypeError as error:
        raise PipelineError(f"{name} must have the fields of a base record", got=error, do=again) from None
    if sha256_json(record.files) != record.sha256:
        raise PipelineError(f"{name}: sha256 must be that of files", got=record.sha256, do=again)
    return record
