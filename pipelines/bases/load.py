"""A base from the store as a model and its tokenizer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch and transformers take seconds to load, and reading a record needs neither
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
from pipelines.bases.store import ensure_base
from pipelines.contracts.base import BaseRecord


@dataclass(frozen=True)
class LoadedBase:
    """A base in memory: the model in evaluation mode, its tokenizer, its record and its folder."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    record: BaseRecord
    path: Path


def load_base(record: BaseRecord, *, device: str | torch.device = "cpu", root: Path = Path()) -> LoadedBase:
    """Load a base from the store, in the record's dtype and in evaluation mode.

    Raises:
        PipelineError: as :func:`ensure_base`.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = ensure_base(record, root=root)
    dtype = getattr(torch, record.dtype)
    with quiet_loading():
        model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, local_files_only=True, use_safetensors=True)
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    return LoadedBase(model.to(device).eval(), tokenizer, record, path)


def load_tokenizer(record: BaseRecord, *, root: Path = Path()) -> PreTrainedTokenizerBase:
    """Load a base's tokenizer alone."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(ensure_base(record, root=root), local_files_only=True)


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Hide transformers' bars over parameters, which flash by in hundreds of places and say nothing to a user."""
    from transformers.utils import logging as transformers_logging

    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
