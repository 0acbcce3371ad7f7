"""Reads a ReFT adapter that AdapterHub's library ``adapters`` saved with ``save_adapter``.

Such a directory has ``adapter_config.json`` and ``adapter.safetensors`` or ``pytorch_adapter.bin``, with keys like

    model.layers.3.reft_layer.refts.NAME.units.0.learned_source.weight
    model.layers.3.reft_layer.refts.NAME.units.0.projection.weight
    model.layers.3.reft_layer.refts.NAME.units.0.projection.parametrizations.weight.0.base      (an orthogonal one)
    model.layers.3.reft_layer.refts.NAME.units.0.projection.parametrizations.weight.original

and, saved ``with_head``, ``model_head.safetensors`` or ``pytorch_model_head.bin``. These are the facts of version
1.2.0, which does not run beside this project's transformers. Directories that it made were read once by hand: on GPT-2
and RoBERTa, its logits and those here were at most 6e-8 apart.

Two things to know. The format does not say whether a projection is subtracted, so an adapter without orthogonality may
be NoReFT or DiReFT and the caller must know (loaded by ``adapters`` itself, a saved DiReFT becomes a NoReFT). And its
positions are of the whole sequence and may overlap in a short one; ours are of the prompt and never do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import Tensor

from reft.edits.methods.forms import Activation
from reft.formats.files import read_json, read_safetensors, read_torch
from reft.formats.foreign import ForeignAdapter, Usage, assemble, rebuild_rotation, transposed

CONFIG_NAME = "adapter_config.json"
TENSORS_NAMES = ("adapter.safetensors", "pytorch_adapter.bin")
HEAD_NAMES = ("model_head.safetensors", "pytorch_model_head.bin")

_MAX_FILE_BYTES = 16 << 30  # one file holds a [hidden, hidden] matrix for each unit
_TYPES: Mapping[str, tuple[type, ...]] = MappingProxyType(
    {
        "prefix_positions": (int,),
        "suffix_positions": (int,),
        "orthogonality": (bool,),
        "tied_weights": (bool,),
        "dropout": (int, float),
        "non_linearity": (str, type(None)),
    }
)
_NEEDLESS = ("architecture", "layers", "r", "dtype", "init_weights_seed", "output_reft", "subtract_projection")
_ACTIVATIONS: Mapping[str | None, Activation] = MappingProxyType(
    {
        None: "linear",
        "linear": "linear",
        "relu": "relu",
        "leakyrelu": "leaky_relu",
        "leaky_relu": "leaky_relu",
        "gelu": "gelu",
        "gelu_new": "gelu_pytorch_tanh",  # the same formula
        "gelu_pytorch_tanh": "gelu_pytorch_tanh",
        "silu": "silu",
        "swish": "silu",
        "tanh": "tanh",
    }
)
_KEY = re.compile(
    r"(?P<stack>[\w.]+)\.(?P<layer>\d{1,4})\.reft_layer\.refts\.(?P<name>.+)\.units\.(?P<unit>[01])\.(?P<part>[\w.]+)",
    re.ASCII,
)
_PARTS = MappingProxyType(
    {"learned_source.weight": "weight", "learned_source.bias": "bias", "projection.weight": "projection"}
)
_BASE, _ORIGINAL = "projection.parametrizations.weight.0.base", "projection.parametrizations.weight.original"


def read_adapterhub(path: Path, *, method: str | None = None) -> ForeignAdapter:
    """Read a directory that ``adapters`` saved; nothing in it is run.

    Args:
        path: the directory.
        method: ``loreft`` or ``direft_orthogonal`` for an adapter with orthogonality (None: ``loreft``), ``noreft`` or
            ``direft`` for one without (None is an error then).

    Raises:
        ValueError: for a directory that is none of theirs, a link, code in a file, a method that does not go with the
            orthogonality, an activation that is not known here, or edits on several stacks of layers.
    """
    record = read_json(path, CONFIG_NAME)
    config = _checked(record.get("config"))
    tensors = _read(path, TENSORS_NAMES)
    if tensors is None:
        raise ValueError(f"the directory must hold {' or '.join(TENSORS_NAMES)}; got none in {path}; give another")
    chosen = _method(config, method)
    prefix, suffix = config["prefix_positions"], config["suffix_positions"]
    ends = [f"{end}{count}" for end, count in (("f", prefix), ("l", suffix)) if count]
    usage = Usage("+".join(ends), _ACTIVATIONS[_lower(config["non_linearity"])], float(config["dropout"]))
    units = _units(tensors, str(record.get("name")))
    for layer, found in units.items():
        if config["tied_weights"] != (len(found) == 1):
            raise ValueError(
                f"a layer must have {1 if config['tied_weights'] else 2} units, as tied_weights says; "
                f"got {len(found)} at layer {layer}; fetch the adapter again"
            )
        if len(ends) == 1 and len(found) == 2:  # the unit of the end that is not edited is saved all the same
            units[layer] = [found[0 if prefix else 1]]
    notes = ["positions were those of the whole sequence and are now those of the prompt"] if suffix else []
    return assemble(chosen, units, usage, head=_read(path, HEAD_NAMES) or {}, notes=notes)


def _checked(config: Any) -> dict[str, Any]:
    if not isinstance(config, dict) or config.get("architecture") != "reft":
        raise ValueError(
            f"{CONFIG_NAME} must be of the architecture reft; got {str(config)[:200]}; give a ReFT adapter"
        )
    if unknown := sorted(set(config) - set(_TYPES) - set(_NEEDLESS)):
        raise ValueError(f"{CONFIG_NAME} must have the keys of adapters 1.2; got {unknown} too, of unknown meaning")
    for key, types in _TYPES.items():
        # type() and not isinstance: true is no number
        if key not in config or type(config[key]) not in types:
            raise ValueError(f"{key} in {CONFIG_NAME} must be {types[0].__name__}; got {config.get(key)!r}; correct it")
    if not config.get("output_reft", True):
        raise ValueError("the edits must be at the layers' outputs; got output_reft false; no layer has an edit then")
    if min(config["prefix_positions"], config["suffix_positions"]) < 0 or not (
        config["prefix_positions"] or config["suffix_positions"]
    ):
        raise ValueError(f"an adapter must edit some positions; got {config}; correct prefix_ or suffix_positions")
    if _lower(config["non_linearity"]) not in _ACTIVATIONS:
        raise ValueError(
            f"non_linearity must be one of {', '.join(map(str, _ACTIVATIONS))}; got {config['non_linearity']!r}; "
            "train with one of these"
        )
    return config


def _lower(name: str | None) -> str | None:
    return None if name is None else name.lower()


def _method(config: Mapping[str, Any], method: str | None) -> str:
    choices = ("loreft", "direft_orthogonal") if config["orthogonality"] else ("noreft", "direft")
    stored = config.get("subtract_projection")
    if method is None and isinstance(stored, bool):
        return choices[0 if stored else 1]
    if method is None and config["orthogonality"]:
        return "loreft"
    if method not in choices:
        raise ValueError(
            f"the adapter has orthogonality {config['orthogonality']}, so its method is {' or '.join(choices)}, which "
            f"the format does not tell apart; got {method}; name the one that was trained"
        )
    return str(method)


def _read(path: Path, names: tuple[str, str]) -> dict[str, Tensor] | None:
    for name, read in zip(names, (read_safetensors, read_torch), strict=True):
        if (path / name).exists() or (path / name).is_symlink():
            return read(path, name, _MAX_FILE_BYTES)
    return None


def _units(tensors: Mapping[str, Tensor], name: str) -> dict[int, list[dict[str, Tensor]]]:
    """Return layer -> the tensors of its units under our names, in the order of their numbers."""
    found: dict[tuple[int, int], dict[str, Tensor]] = {}
    stacks = set()
    for key, tensor in tensors.items():
        match = _KEY.fullmatch(key)
        if match is None or match["name"] != name:
            raise ValueError(
                f"the tensors must be those of the ReFT adapter {name}; got {key}; give a ReFT adapter alone"
            )
        stacks.add(match["stack"])
        found.setdefault((int(match["layer"]), int(match["unit"])), {})[match["part"]] = tensor
    if len(stacks) != 1:
        raise ValueError(
            f"the edits must be on one stack of layers; got {sorted(stacks)}; train on the layers of the encoder alone"
        )
    units: dict[int, list[dict[str, Tensor]]] = {}
    for (layer, number), parts in sorted(found.items()):
        if number != len(units.setdefault(layer, [])):
            raise ValueError(f"units are numbered from 0; got {number} alone at layer {layer}; fetch the adapter again")
        units[layer].append(_translate(f"unit {number} of layer {layer}", parts))
    return units


def _translate(name: str, parts: dict[str, Tensor]) -> dict[str, Tensor]:
    rest = dict(parts)
    ours: dict[str, Tensor] = {}
    if _BASE in rest and _ORIGINAL in rest:
        # torch parametrises the transpose of a wide matrix.
        ours["rotation"] = rebuild_rotation(rest.pop(_BASE), transposed(rest.pop(_ORIGINAL)))
    if unknown := [part for part in rest if part not in _PARTS]:
        raise ValueError(f"{name} must hold what adapters saves; got {unknown}; these have no counterpart here")
    return ours | {_PARTS[part]: tensor for part, tensor in rest.items()}
