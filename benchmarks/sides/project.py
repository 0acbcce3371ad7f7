"""The base and the text that a project's params.yaml names, as what is measured."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.sides.ours import Subject
from benchmarks.sides.real_text import real_text
from pipelines.bases.load import load_base
from pipelines.bases.store import obtain
from pipelines.params.whole import Params, load_params
from pipelines.runtime.device import resolve_device


def load_subject(root: Path, *, threads: int | None = None) -> Subject:
    """Load the base and the text that params.yaml names.

    The base is fetched on first use and then kept under ``$REFT_HOME``.

    Args:
        root: the project's root.
        threads: of torch on the CPU; None for what params.yaml says.

    Raises:
        PipelineError: if params.yaml breaks a rule, or the base or the text cannot be had.
    """
    params: Params = load_params(root / "params.yaml")
    torch.set_num_threads(threads or params.run.threads)
    section = params.base
    record = obtain(section.source, section.sha256, section.dtype, root=root)
    loaded = load_base(record, device=resolve_device(params.run.device), root=root)
    tokenizer = loaded.tokenizer
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    name = f"{record.model_type}, {record.parameters / 1e6:.0f}M parameters, {record.num_layers} layers, {record.dtype}"
    return Subject(loaded.model, tokenizer, real_text(params.one_task("a benchmark"), root=root), name)
