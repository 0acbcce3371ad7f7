"""An adapter for people without this project: plain tensors, and a loader that needs torch and transformers alone.

The loader is a short text with the one formula of the adapter's method in it, to be read before it is run. It edits as
:class:`reft.ReftModel` does: the same tokens alone and in a batch, read at once or generated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from string import Template
from typing import Any

import safetensors.torch
from torch import Tensor

from reft.edits.config import ReftConfig
from reft.edits.methods.table import DECLARED

LOADER = "load_reft.py"
TENSORS = "edits.safetensors"
RECORD = "edits.json"
_TEMPLATE = "load_reft.template"
_END = 1 << 30  # behind every prompt
_ACTIVATIONS = {
    "linear": "x",
    "relu": "torch.relu(x)",
    "leaky_relu": "torch.nn.functional.leaky_relu(x)",
    "gelu": "torch.nn.functional.gelu(x)",
    "gelu_pytorch_tanh": 'torch.nn.functional.gelu(x, approximate="tanh")',
    "silu": "torch.nn.functional.silu(x)",
    "tanh": "torch.tanh(x)",
}  # as the loader has them


def standalone_files(
    config: ReftConfig,
    interventions: Mapping[str, Mapping[str, Tensor]],
    *,
    hidden_size: int,
    num_layers: int,
    dtype: str,
) -> dict[str, bytes]:
    """Return the loader and what it reads, by their names.

    Args:
        config: of a decoder's adapter.
        interventions: slot -> tensors, as :func:`reft.adapters.directory.read_interventions` gives them.
        hidden_size: of its base.
        num_layers: of its base.
        dtype: that the base runs in.

    Raises:
        ValueError: for a method that declares no expression, or for positions that the rows name themselves.
    """
    if any(config.positions_at(layer).spans for layer in config.layers):
        raise ValueError(
            "a loader that stands alone edits tokens that follow from the prompt's length; got positions of spans, "
            "which each row names itself; export as hub, or train with positions like f7+l7"
        )
    tensors = {f"{slot}.{name}": tensor for slot, own in interventions.items() for name, tensor in own.items()}
    edits = [edit for layer in config.layers for edit in _edits(config, layer, interventions)]
    record = {"dtype": dtype, "hidden_size": hidden_size, "layers": num_layers, "edits": edits}
    return {
        LOADER: _loader(config, hidden_size).encode(),
        TENSORS: safetensors.torch.save(tensors),
        RECORD: (json.dumps(record, indent=2) + "\n").encode(),
    }


def _edits(config: ReftConfig, layer: int, interventions: Mapping[str, Mapping[str, Tensor]]) -> list[dict[str, Any]]:
    """Return the names of the tensors and the tokens of each intervention at a layer, as plain values."""
    at = config.positions_at(layer)
    parts = [[part] for part in at.parts] if config.untied_at(layer) else [list(at.parts)]
    tokens = {
        "first": at.first,
        "last": at.last,
        "ranges": [[0, _END]] if at.everything else [list(each) for each in at.ranges],
        "generated": at.generated,
    }
    return [
        {"layer": layer, "tensors": slot, "names": list(interventions[slot]), "parts": own, **tokens}
        for slot, own in zip(config.slots(layer), parts, strict=True)
    ]


def _loader(config: ReftConfig, hidden_size: int) -> str:
    """Return the loader's text: the template with this method's formula, activation and tensors."""
    method, form = DECLARED[config.method], config.form(config.layers[0])
    if method.expression is None:
        able = ", ".join(name for name, one in DECLARED.items() if one.expression is not None)
        raise ValueError(
            f"a loader that stands alone has an expression of {able}; got {config.method}, which declares none; "
            "export as hub, or declare one"
        )
    absent = ["projection_bias=None"] if "projection_bias" in method.parts and not form.projection_bias else []
    template = files("reft.formats").joinpath(_TEMPLATE).read_text(encoding="utf-8")
    return Template(template).substitute(
        activation=_ACTIVATIONS[config.activation],
        names=", ".join([*method.tensors(hidden_size, form), *absent]),
        formula=method.formula,
        expression=method.expression,
    )
