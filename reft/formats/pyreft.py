"""Reads what the authors' library saved: ``ReftModel.save``, or the folder ``intervenable_model`` of its Trainer.

Such a directory has a ``config.json`` (none in a Trainer's checkpoint) and a file ``intkey_KEY.bin`` for each
intervention, where KEY is, with pyvene 0.1.7 and later,

    layer_3_comp_block_output_unit_pos_nunit_1#0
    comp_roberta_encoder_layer[3]_output_unit_pos_nunit_1#0

and up to pyvene 0.1.6 the same with dots for underscores. ``#0`` is the only one at its place or the one for the first
tokens, ``#1`` the one for the last. ``pytorch_model.bin`` holds the parameters of the base that were trained too.

The files are the truth: a rank in ``config.json`` may be wrong. What they do not say is positions, activation and
dropout, so whoever reads them must. Three things to know about positions: pyreft edits at most the first half of a
short prompt where ours are one-sided, it edits nothing of a prompt of one token, and its own data sets count the last
positions from the token before the last.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import Tensor

from reft.edits.methods.forms import Activation
from reft.edits.methods.table import DECLARED
from reft.formats.files import read_json, read_torch
from reft.formats.foreign import ForeignAdapter, Usage, assemble, rebuild_rotation, transposed

CLASSES = MappingProxyType({method.pyreft: name for name, method in DECLARED.items() if method.pyreft is not None})
"""pyreft's classes, and what they are called here."""

CONFIG_NAME = "config.json"
HEAD_NAME = "pytorch_model.bin"
ORIGINAL = "rotate_layer.parametrizations.weight.original"
BASE = "rotate_layer.parametrizations.weight.0.base"

_MAX_FILE_BYTES = 2 << 30  # R's [hidden, hidden] buffer in fp32, up to a width of 23,000
_TAIL = r"unit[._]pos[._]nunit[._]1#(?P<which>\d)"
_KEYS = (
    re.compile(rf"intkey_layer[._](?P<layer>\d{{1,4}})[._]comp[._]block_output[._]{_TAIL}\.bin", re.ASCII),
    re.compile(rf"intkey_comp[._](?P<stack>.+?)[._]?[\[._](?P<layer>\d{{1,4}})\]?[._]output[._]{_TAIL}\.bin", re.ASCII),
)
_CLASS = re.compile(r"<class 'pyreft(?:\.\w+)*\.(?P<name>\w+)'>", re.ASCII)
_NAMES = MappingProxyType(
    {
        "weight": "weight",
        "bias": "bias",
        "learned_source": "bias",
        "learned_source.weight": "weight",
        "learned_source.bias": "bias",
        "proj_layer.weight": "projection",
        "proj_layer.bias": "projection_bias",
    }
)
_SCALARS = ("embed_dim", "interchange_dim")


def read_pyreft(
    path: Path, *, positions: str, activation: Activation, dropout: float, method: str | None = None
) -> ForeignAdapter:
    """Read a directory that pyreft saved; nothing in it is run.

    R is taken as it is, or rebuilt as pyreft computes it. For an R that was rounded to bf16 the nearest orthonormal
    one is taken, with a warning and a note. One further from orthonormal, which is what pyreft's training after a load
    leaves, is refused; it can be read as ``noreft`` (or ``direft``), the same edit without the constraint.

    Args:
        path: the directory.
        positions: that it was trained with, like ``f7+l7``.
        activation: that it was trained with.
        dropout: that it was trained with.
        method: what the interventions are; None: as config.json says.

    Raises:
        ValueError: for a directory that is none of pyreft's, a link, code in a file, an intervention elsewhere than at
            the outputs of one stack's layers, several methods, or tensors that are not the method's.
    """
    units = _read_units(path)
    if method is None:
        method = _stored_method(path, count=sum(map(len, units.values())))
    elif method not in CLASSES.values():
        raise ValueError(f"method must be one of {', '.join(CLASSES.values())}; got {method!r}; choose one of them")
    # A link, even one to nowhere, must be seen.
    has_head = (path / HEAD_NAME).exists() or (path / HEAD_NAME).is_symlink()
    head = read_torch(path, HEAD_NAME, _MAX_FILE_BYTES) if has_head else {}
    return assemble(method, units, Usage(positions, activation, dropout), head=head)


def _read_units(path: Path) -> dict[int, list[dict[str, Tensor]]]:
    """Return layer -> the tensors of its interventions, in the order of their numbers."""
    names = sorted(file.name for file in path.glob("intkey_*.bin")) if path.is_dir() else []
    if not names:
        raise ValueError(
            f"a directory that pyreft saved holds files intkey_*.bin; got none in {path}; of a Trainer's checkpoint, "
            "give its folder intervenable_model"
        )
    places = [_place(name) for name in names]
    if len({stack for stack, _, _ in places}) != 1:
        raise ValueError(
            f"the interventions must be on one stack of layers; got {sorted({stack for stack, _, _ in places})}; "
            "keep the files of one"
        )
    files = {(layer, which): name for name, (_, layer, which) in zip(names, places, strict=True)}
    counts = {layer: sum(1 for at, _ in files if at == layer) for layer, _ in files}
    if len(files) < len(names) or any(which >= counts[layer] for layer, which in files):
        raise ValueError(f"the interventions of a layer are numbered from 0, each once; got {names}; fetch it again")
    return {layer: [_read_unit(path, files[layer, which]) for which in range(count)] for layer, count in counts.items()}


def _place(name: str) -> tuple[str, int, int]:
    """Return stack, layer and number of an intervention from its file's name."""
    match = next((found for key in _KEYS if (found := key.fullmatch(name))), None)
    if match is None:
        raise ValueError(
            "an intervention must be at a layer's output, on positions (block_output, or a module like "
            f"model.layers[3].output); got {name}; other places have no counterpart here"
        )
    return match.groupdict().get("stack") or "", int(match["layer"]), int(match["which"])


def _read_unit(path: Path, name: str) -> dict[str, Tensor]:
    """Return an intervention's tensors under our names; whether they are the method's is checked later."""
    saved = read_torch(path, name, _MAX_FILE_BYTES)
    rest = {key: value for key, value in saved.items() if key not in _SCALARS}
    ours: dict[str, Tensor] = {}
    if "rotate_layer" in rest:
        ours["rotation"] = transposed(rest.pop("rotate_layer"))
    if ORIGINAL in rest and BASE in rest:
        ours["rotation"] = rebuild_rotation(rest.pop(BASE), rest.pop(ORIGINAL))
    if unknown := [key for key in rest if key not in _NAMES]:
        raise ValueError(f"{name} must hold what pyreft saves; got {unknown}; these have no counterpart here")
    return ours | {_NAMES[key]: value for key, value in rest.items()}


def _stored_method(path: Path, *, count: int) -> str:
    """Return the one method that config.json names by pyreft's classes."""
    if not (path / CONFIG_NAME).exists():
        raise ValueError(
            f"without a {CONFIG_NAME}, as in a Trainer's checkpoint, the method must be given; got none; "
            f"choose from {', '.join(CLASSES.values())}"
        )
    stored: Any = read_json(path, CONFIG_NAME).get("intervention_types")
    if not isinstance(stored, list) or len(stored) != count:
        raise ValueError(f"{CONFIG_NAME} must name a class for each of {count} files; got {stored}; fetch it again")
    return _method(stored)


def _method(stored: Sequence[object]) -> str:
    matches = {str(text): _CLASS.fullmatch(str(text)) for text in stored}
    methods = {CLASSES.get(match["name"]) if match else None for match in matches.values()}
    if None in methods or len(methods) != 1:
        raise ValueError(
            f"the interventions must be of one class of pyreft: {', '.join(CLASSES)}; got {sorted(matches)}; "
            "name the method if another class has one of these formulas"
        )
    return str(methods.pop())
