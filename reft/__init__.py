"""Representation fine-tuning: small trained edits of a frozen language model's hidden states.

Names are imported on first use, so ``reft.layers`` and ``reft.positions`` can be used without loading torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reft.checkpoint import AdapterInfo, adapter_sha256, load_adapter, read_adapter, save_adapter
    from reft.config import ReftConfig, count_parameters
    from reft.data import Batch, Collator, Encoded, Example, encode
    from reft.interventions import METHODS, LoreftIntervention
    from reft.layers import check_layers, parse_layers
    from reft.model import ReftModel
    from reft.positions import PositionMasks, Positions, parse_positions, position_masks
    from reft.schedule import FitConfig
    from reft.scoring import score_choices
    from reft.training import NonFiniteLossError, StepMetrics, fit

__all__ = [
    "METHODS",
    "AdapterInfo",
    "Batch",
    "Collator",
    "Encoded",
    "Example",
    "FitConfig",
    "LoreftIntervention",
    "NonFiniteLossError",
    "PositionMasks",
    "Positions",
    "ReftConfig",
    "ReftModel",
    "StepMetrics",
    "adapter_sha256",
    "check_layers",
    "count_parameters",
    "encode",
    "fit",
    "load_adapter",
    "parse_layers",
    "parse_positions",
    "position_masks",
    "read_adapter",
    "save_adapter",
    "score_choices",
]

_NAMES = {
    "checkpoint": (
        "AdapterInfo",
        "adapter_sha256",
        "load_adapter",
        "read_adapter",
        "save_adapter",
    ),
    "config": (
        "ReftConfig",
        "count_parameters",
    ),
    "data": (
        "Batch",
        "Collator",
        "Encoded",
        "Example",
        "encode",
    ),
    "interventions": (
        "METHODS",
        "LoreftIntervention",
    ),
    "layers": (
        "check_layers",
        "parse_layers",
    ),
    "model": ("ReftModel",),
    "positions": (
        "PositionMasks",
        "Positions",
        "parse_positions",
        "position_masks",
    ),
    "schedule": ("FitConfig",),
    "scoring": ("score_choices",),
    "training": (
        "NonFiniteLossError",
        "StepMetrics",
        "fit",
    ),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
