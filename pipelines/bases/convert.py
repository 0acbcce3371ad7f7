"""From what a source holds (a GGUF file or a transformers folder) to a plain transformers folder of safetensors."""

from __future__ import annotations

import copy
import errno
import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from pipelines.bases import foreign
from pipelines.bases.backbone import read_backbone, reopened
from pipelines.errors import PipelineError
from pipelines.files import require_space, write_json
from pipelines.params.base import Kind
from pipelines.sources.addresses import (
    MODEL_LIMIT,
    FileSource,
    HubSource,
    check_sha256,
    fetch,
    own_path,
    parse_source,
    snapshot,
)
from pipelines.sources.archives import copy_members, open_member

log = logging.getLogger(__name__)
GGUF_MAGIC = b"GGUF"
KINDS: Mapping[Kind, str] = {
    "decoder": "a causal language model that transformers reads, with safetensors or as GGUF",
    "encoder": "an encoder that transformers reads, with safetensors",
}
PROBE = (1, 5, 9, 2, 7, 3)  # token ids for the check that the written model computes the same
# Written by save_pretrained, but facts of the machine or of the installed version, not of the model.
VOLATILE = ("transformers_version", "_name_or_path", "name_or_path", "is_local", "local_files_only")


@dataclass(frozen=True)
class ModelFacts:
    """What the record of a base says of the model; see :class:`pipelines.contracts.base.BaseRecord`."""

    model_type: str
    hidden_size: int
    num_layers: int
    vocab_size: int
    parameters: int


def convert(
    source: str, sha256: str | None, dtype: str, out: Path, *, kind: Kind, scratch: Path, root: Path
) -> ModelFacts:
    """Write the base of a source to the new folder ``out``: config, tokenizer, chat template, safetensors.

    Args:
        source: the address.
        sha256: of the fetched file, or None.
        dtype: of the stored weights: float32, bfloat16 or float16.
        out: a folder that does not exist.
        kind: of an encoder the layers and embeddings alone are kept: its head is trained, and no part of the base.
        scratch: an empty folder for what is fetched; the caller removes it.
        root: the project's root, for ``file:``.

    Raises:
        PipelineError: if the source is no model of the kind that transformers can read, or what was written computes
            something else than what was read.
    """
    foreign.begin()
    place = _materialise(source, sha256, scratch, root)
    size = place.stat().st_size if place.is_file() else sum(p.stat().st_size for p in place.rglob("*"))
    require_space(out.parent, 8 * size if place.is_file() else 3 * size)  # a 4-bit file grows eightfold in fp32
    log.info("reading %s", source)
    kept = out.with_name("tokenizer")
    problems = foreign.try_foreign(place, kept, kind)
    with _readable(kind):
        model = _read(place, getattr(torch, dtype), kind)
        model.save_pretrained(out)
        _write_tokenizer(place, kept, out)
        for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
            _strip(out / name)
        _verify(model, out, kind)
    for problem in problems:  # else the same is said above, with what to do
        log.warning("the base opens here, but did not where it was tried with limits on memory and time: %s", problem)
    text_config = model.config.get_text_config()
    return ModelFacts(
        model_type=model.config.model_type,
        hidden_size=text_config.hidden_size,
        num_layers=text_config.num_hidden_layers,
        vocab_size=text_config.vocab_size,
        parameters=model.num_parameters(),
    )


def _materialise(source: str, sha256: str | None, scratch: Path, root: Path) -> Path:
    """Return a file or folder on the disk with the source's model."""
    parsed = parse_source(source)
    if isinstance(parsed, HubSource):
        return snapshot(parsed, scratch)
    if isinstance(parsed, FileSource):
        path = own_path(parsed, root)
        if path.is_file():
            check_sha256(path, sha256)
        return path
    archive = fetch(parsed, sha256)
    if parsed.member.endswith("/"):
        copy_members(archive, parsed.member, scratch, limit=MODEL_LIMIT)
        return scratch
    path = scratch / "model.gguf"
    with open_member(archive, parsed.member, parsed.inner, limit=MODEL_LIMIT) as stream, path.open("xb") as file:
        shutil.copyfileobj(stream, file, 1 << 20)
    return path


def _write_tokenizer(place: Path, kept: Path, out: Path) -> None:
    """Put beside the model the tokenizer that was written when it was tried, or say why it could not be read."""
    if kept.is_dir():
        shutil.copytree(kept, out, dirs_exist_ok=True)
        return
    folder, gguf = (place.parent, place.name) if place.is_file() else (place, None)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=gguf, local_files_only=True, trust_remote_code=False)
    tokenizer.save_pretrained(out)


def _read(place: Path, dtype: torch.dtype, kind: Kind) -> PreTrainedModel:
    """Read a transformers folder or a GGUF file: safetensors only, no code from the folder, every weight there."""
    gguf = place.name if place.is_file() else None
    folder = place.parent if gguf else place
    if gguf:
        with place.open("rb") as file:
            if file.read(4) != GGUF_MAGIC:
                raise PipelineError("a model file is a GGUF file", got=gguf, do="Name one, or a transformers folder.")
    if kind == "encoder":
        model, absent = read_backbone(place, dtype)
        _check_whole(absent)
        return model
    model, info = AutoModelForCausalLM.from_pretrained(
        folder,
        gguf_file=gguf,
        dtype=dtype,
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    _check_whole(sorted(info["missing_keys"]) + sorted(str(key) for key in info["mismatched_keys"]))
    return (_plain(model) if gguf else model).eval()


def _check_whole(absent: Sequence[str]) -> None:
    """Refuse a source that lacks weights: transformers would go on with random numbers in their place."""
    if absent:
        raise PipelineError(
            "the source must hold every weight of the model",
            got=f"{len(absent)} missing: {list(absent[:3])}",
            do="Get a whole copy of it.",
        )


@contextmanager
def _readable(kind: Kind) -> Iterator[None]:
    """Turn what transformers, tokenizers, gguf and safetensors raise for files that are no model into ours."""
    try:
        yield
    except PipelineError:
        raise
    except Exception as error:  # tokenizers raises Exception itself; the others nearly everything
        if isinstance(error, OSError) and error.errno not in (None, errno.ENOENT):
            raise  # the disk's fault, not the model's
        raise PipelineError(
            f"the source must be {KINDS[kind]}",
            got=f"{type(error).__qualname__}: {error}",
            do="Get a whole copy of it, or name another model or base.kind.",
        ) from error


def _plain(model: PreTrainedModel) -> PreTrainedModel:
    """Return the same weights in a model that may be saved.

    A model read from GGUF holds plain tensors but still calls itself quantised, and save_pretrained refuses it.
    """
    config: Any = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = AutoModelForCausalLM.from_config(config, dtype=model.dtype)
    plain.load_state_dict(model.state_dict(), strict=True)
    plain.generation_config = copy.deepcopy(model.generation_config)
    plain.tie_weights()
    return plain


def _strip(path: Path) -> None:
    if path.is_file():
        raw = json.loads(path.read_text(encoding="utf-8"))
        write_json(path, {key: value for key, value in raw.items() if key not in VOLATILE})


def _verify(model: PreTrainedModel, folder: Path, kind: Kind) -> None:
    """Check that the written model opens and computes what the one that was read does: logits, or hidden states."""
    again = reopened(folder, model.dtype, kind).eval()
    ids = torch.tensor([PROBE]) % model.config.get_text_config().vocab_size
    with torch.inference_mode():
        expected, actual = model(input_ids=ids)[0], again(input_ids=ids)[0]
    if not torch.equal(expected, actual):
        difference = (expected - actual).abs().max().item()
        raise PipelineError("the stored base must compute what its source does", got=f"outputs {difference:g} apart")
