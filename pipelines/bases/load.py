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


def load_base(
    record: BaseRecord, *, device: str | torch.device = "cpu", root: Path = Path(), outputs: int = 0
) -> LoadedBase:
    """Load a base from the store, in the record's dtype and in evaluation mode.

    Args:
        record: which base.
        device: where it goes.
        root: the project's root, for a ``file:`` source.
        outputs: of an encoder: how many numbers its head answers with; the head itself is none of the base's, and is
            started by whoever trains it, or filled from an adapter.

    Raises:
        PipelineError: as :func:`ensure_base`, or for an encoder whose head would answer with nothing.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from pipelines.bases.backbone import open_with_head

    path = ensure_base(record, root=root)
    dtype = getattr(torch, record.dtype)
    with quiet_loading():
        model: PreTrainedModel
        if record.kind == "encoder":
            model = open_with_head(path, dtype, outputs)
        else:
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
