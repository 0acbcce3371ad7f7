"""Representation fine-tuning: small trained edits of a frozen language model's hidden states.

Names are imported on first use, so ``reft.edits.layers`` and ``reft.edits.positions`` can be used without loading
torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reft.adapters.directory import (
        AdapterInfo,
        load_adapter,
        load_encoder,
        load_seq2seq,
        read_adapter,
        save_adapter,
    )
    from reft.adapters.files import adapter_sha256
    from reft.cone.keeper import ConeConfig, base_folder, set_cone
    from reft.data import Batch, Collator, Encoded, Example, encode, token_spans
    from reft.edits.config import LayerOverride, ReftConfig, count_parameters
    from reft.edits.formulas.table import METHODS
    from reft.edits.interventions import ACTIVATIONS, Intervention
    from reft.edits.layers import check_layers, parse_layers
    from reft.edits.methods.forms import EditForm
    from reft.edits.positions import PositionMasks, Positions, parse_positions, position_masks
    from reft.models.adapted import AdaptedModel
    from reft.models.classify import Prediction, classify
    from reft.models.decoder import CausalModel, ReftModel
    from reft.models.decoding import Decoding
    from reft.models.encoder import Labelled, LabelledBatch, ReftEncoder
    from reft.models.mixed import AdapterSet
    from reft.models.scoring import score_choices, score_options
    from reft.models.seq2seq import Paired, PairedBatch, ReftSeq2Seq
    from reft.training.contrast import Question
    from reft.training.fit import NonFiniteLossError, StepMetrics, fit
    from reft.training.schedule import FitConfig

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
    "Prediction",
    "Question",
    "ReftConfig",
    "ReftEncoder",
    "ReftModel",
    "ReftSeq2Seq",
    "StepMetrics",
    "adapter_sha256",
    "base_folder",
    "check_layers",
    "classify",
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
    "score_options",
    "set_cone",
    "token_spans",
]

_NAMES = {
    "models.adapted": ("AdaptedModel",),
    "adapters.files": ("adapter_sha256",),
    "adapters.directory": (
        "AdapterInfo",
        "load_adapter",
        "load_encoder",
        "load_seq2seq",
        "read_adapter",
        "save_adapter",
    ),
    "edits.config": ("LayerOverride", "ReftConfig", "count_parameters"),
    "data": ("Batch", "Collator", "Encoded", "Example", "encode", "token_spans"),
    "models.classify": ("Prediction", "classify"),
    "models.decoding": ("Decoding",),
    "models.encoder": ("Labelled", "LabelledBatch", "ReftEncoder"),
    "edits.methods.forms": ("EditForm",),
    "edits.formulas.table": ("METHODS",),
    "edits.interventions": ("ACTIVATIONS", "Intervention"),
    "cone.keeper": ("ConeConfig", "base_folder", "set_cone"),
    "edits.layers": ("check_layers", "parse_layers"),
    "models.mixed": ("AdapterSet",),
    "models.decoder": ("CausalModel", "ReftModel"),
    "edits.positions": ("PositionMasks", "Positions", "parse_positions", "position_masks"),
    "training.schedule": ("FitConfig",),
    "models.scoring": ("score_choices", "score_options"),
    "models.seq2seq": ("Paired", "PairedBatch", "ReftSeq2Seq"),
    "training.contrast": ("Question",),
    "training.fit": ("NonFiniteLossError", "StepMetrics", "fit"),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
