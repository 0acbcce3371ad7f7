"""Representation fine-tuning: small trained edits of a frozen language model's hidden states.

Names are imported on first use, so ``reft.layers`` and ``reft.positions`` can be used without loading torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reft.adapted import AdaptedModel
    from reft.adapter_files import adapter_sha256
    from reft.checkpoint import (
        AdapterInfo,
        load_adapter,
        load_encoder,
        load_seq2seq,
        read_adapter,
        save_adapter,
    )
    from reft.config import LayerOverride, ReftConfig, count_parameters
    from reft.data import Batch, Collator, Encoded, Example, encode, token_spans
    from reft.decoding import Decoding
    from reft.encoder import Labelled, LabelledBatch, ReftEncoder
    from reft.forms import EditForm
    from reft.interventions import ACTIVATIONS, METHODS, Intervention
    from reft.keeper import ConeConfig, base_folder, set_cone
    from reft.layers import check_layers, parse_layers
    from reft.mixed import AdapterSet
    from reft.model import CausalModel, ReftModel
    from reft.positions import PositionMasks, Positions, parse_positions, position_masks
    from reft.schedule import FitConfig
    from reft.scoring import score_choices
    from reft.seq2seq import Paired, PairedBatch, ReftSeq2Seq
    from reft.training import NonFiniteLossError, StepMetrics, fit

__all__ = [
    "ACTIVATIONS",
    "METHODS",
    "AdaptedModel",
    "AdapterInfo",
    "AdapterSet",
    "Batch",
    "CausalModel",
    "Collator",
    "ConeConfig",
    "Decoding",
    "EditForm",
    "Encoded",
    "Example",
    "FitConfig",
    "Intervention",
    "Labelled",
    "LabelledBatch",
    "LayerOverride",
    "NonFiniteLossError",
    "Paired",
    "PairedBatch",
    "PositionMasks",
    "Positions",
    "ReftConfig",
    "ReftEncoder",
    "ReftModel",
    "ReftSeq2Seq",
    "StepMetrics",
    "adapter_sha256",
    "base_folder",
    "check_layers",
    "count_parameters",
    "encode",
    "fit",
    "load_adapter",
    "load_encoder",
    "load_seq2seq",
    "parse_layers",
    "parse_positions",
    "position_masks",
    "read_adapter",
    "save_adapter",
    "score_choices",
    "set_cone",
    "token_spans",
]

_NAMES = {
    "adapted": ("AdaptedModel",),
    "adapter_files": ("adapter_sha256",),
    "checkpoint": (
        "AdapterInfo",
        "load_adapter",
        "load_encoder",
        "load_seq2seq",
        "read_adapter",
        "save_adapter",
    ),
    "config": ("LayerOverride", "ReftConfig", "count_parameters"),
    "data": ("Batch", "Collator", "Encoded", "Example", "encode", "token_spans"),
    "decoding": ("Decoding",),
    "encoder": ("Labelled", "LabelledBatch", "ReftEncoder"),
    "forms": ("EditForm",),
    "interventions": ("ACTIVATIONS", "METHODS", "Intervention"),
    "keeper": ("ConeConfig", "base_folder", "set_cone"),
    "layers": ("check_layers", "parse_layers"),
    "mixed": ("AdapterSet",),
    "model": ("CausalModel", "ReftModel"),
    "positions": ("PositionMasks", "Positions", "parse_positions", "position_masks"),
    "schedule": ("FitConfig",),
    "scoring": ("score_choices",),
    "seq2seq": ("Paired", "PairedBatch", "ReftSeq2Seq"),
    "training": ("NonFiniteLossError", "StepMetrics", "fit"),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
