"""An encoder without its head, as the store keeps it, and with a head to train."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES
from transformers.utils import logging as transformers_logging

from pipelines.errors import PipelineError
from pipelines.params.base import Kind


def read_backbone(folder: Path, dtype: torch.dtype) -> tuple[PreTrainedModel, list[str]]:
    """Read the embeddings and layers of an encoder, safetensors only and no code from the folder.

    A pooler is left out, whether the folder has one or not: it lies behind the last layer, and is trained as a part of
    the head.

    Returns:
        The model in evaluation mode, and the names of the weights that the folder lacks.

    Raises:
        PipelineError: for a model that is no encoder.
    """
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if config.model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES or config.is_encoder_decoder:
        raise PipelineError(
            "base.kind: encoder needs a model that reads both ways, as BERT and RoBERTa do",
            got=f"a {config.model_type}",
            do="Set base.kind: decoder, or name another model.",
        )
    with _no_word_of_a_head():
        model, info = AutoModel.from_pretrained(
            folder,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    absent = sorted({*info["missing_keys"], *(str(key) for key in info["mismatched_keys"])})
    return model.eval(), [name for name in absent if not name.startswith("pooler.")]


def reopened(folder: Path, dtype: torch.dtype, kind: Kind) -> PreTrainedModel:
    """Open what was written to the store."""
    opened: type[AutoModel] | type[AutoModelForCausalLM] = AutoModel if kind == "encoder" else AutoModelForCausalLM
    with _no_word_of_a_head():
        model: PreTrainedModel = opened.from_pretrained(folder, dtype=dtype, local_files_only=True)
    return model


def open_with_head(folder: Path, dtype: torch.dtype, outputs: int) -> PreTrainedModel:
    """Open an encoder of the store with a head of so many outputs, whose numbers are yet to be set.

    Raises:
        PipelineError: if there is no output.
    """
    if outputs < 1:
        raise PipelineError(
            "an encoder answers with one of a few labels, or with a number",
            got="a task that asks for something else",
            do="Set prepare.task: classification or regression, or take a base of kind decoder.",
        )
    with _no_word_of_a_head():
        model: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(
            folder, num_labels=outputs, dtype=dtype, local_files_only=True, use_safetensors=True
        )
    return model


@contextmanager
def _no_word_of_a_head() -> Iterator[None]:
    """Keep transformers from telling of the head's weights, which no store has."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
