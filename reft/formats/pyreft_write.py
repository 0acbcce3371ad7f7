"""Writes an adapter as a directory that pyreft 0.1 with pyvene 0.1.7 or later loads: ``ReftModel.load(path, base)``.

pyreft loads four of its classes again, on decoders that pyvene's tables name (Llama, Mistral, Qwen2, Gemma, GPT-2,
GPT-NeoX, ...): LoReFT, DiReFT with an orthogonal R, ConsReFT and LobiReFT. What to know of the result:

- pyreft makes W and b bf16 when it loads, whatever the file holds. The file holds fp32, so
  ``intervention.learned_source.float()`` after a load makes it run on a fp32 base, with numbers rounded to bf16.
- Positions and dropout are not part of the format. A README.md beside the files says what they were.
- For all but LoReFT, pyreft stores a [hidden, hidden] matrix for each R; so does this.
"""

from __future__ import annotations

import io
import json
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from reft.edits.config import ReftConfig
from reft.edits.methods.table import DECLARED
from reft.files import write_directory
from reft.formats.pyreft import BASE, CLASSES, CONFIG_NAME, ORIGINAL

_CLASS = {method: name for name, method in CLASSES.items()}
_RELOADED = tuple(name for name, method in DECLARED.items() if method.pyreft_loads)


def write_pyreft(path: Path, config: ReftConfig, interventions: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Write the directory, whole or not at all.

    Args:
        path: a directory that is not there.
        config: of a decoder's adapter.
        interventions: slot -> tensors, as :func:`reft.adapters.directory.read_interventions` gives them.

    Raises:
        FileExistsError: if there is anything at ``path``.
        ValueError: for what pyreft would not load, or would load as another edit: noreft and direft (it wants an
            ``add_bias`` that it does not save), an activation (it does not save it and takes none), positions behind
            the prompt.
    """
    if config.method not in _CLASS:
        raise ValueError(
            f"pyreft has a class for {', '.join(CLASSES.values())}; got {config.method}, for which it has none; "
            "keep our own directory, or train one of those"
        )
    if config.method not in _RELOADED:
        raise ValueError(
            f"pyreft loads {', '.join(_RELOADED)} again; got {config.method}, whose class it saves but cannot load; "
            "train one of those"
        )
    if config.activation != "linear":
        raise ValueError(
            f"pyreft does not save the activation and would load a linear one; got {config.activation!r}; "
            "train with the linear activation"
        )
    if any(config.positions_at(layer).generated for layer in config.layers):
        raise ValueError(
            "pyreft edits prompts alone: it generates with edits in the first pass, so those of tokens that follow "
            f"would be lost; got the positions {config.positions!r}; keep our own directory, or train without gN"
        )
    slots = _ordered_slots(config)
    files = {
        f"intkey_{key}.bin": _state_file(config.method, interventions[slot])
        for key, slot in zip(_keys(slots), slots, strict=True)
    }
    files[CONFIG_NAME] = _config_file(config, slots, interventions)
    files["README.md"] = _readme(config, slots).encode()
    write_directory(path, files)


def _ordered_slots(config: ReftConfig) -> dict[str, int]:
    """Return slot -> layer: pyreft's helper for positions wants all for the first tokens before all for the last."""
    pairs = [(which, layer, slot) for layer in config.layers for which, slot in enumerate(config.slots(layer))]
    return {slot: layer for _, layer, slot in sorted(pairs)}


def _keys(slots: Mapping[str, int]) -> list[str]:
    layers = list(slots.values())
    numbers = [layers[:place].count(layer) for place, layer in enumerate(layers)]
    return [
        f"layer_{layer}_comp_block_output_unit_pos_nunit_1#{number}"
        for layer, number in zip(layers, numbers, strict=True)
    ]


def _state_file(method: str, tensors: Mapping[str, Tensor]) -> bytes:
    rotation = tensors["rotation"].mT.contiguous()
    if method == "loreft":
        state = {"weight": tensors["weight"], "bias": tensors["bias"], "rotate_layer": rotation}
    else:
        width = rotation.shape[0]
        scalars = {name: torch.tensor(width) for name in ("embed_dim", "interchange_dim")}
        # At -1 on its diagonal, pyreft's parametrisation gives the first columns of the base.
        state = {**scalars, ORIGINAL: -torch.eye(*rotation.shape), BASE: _completed(rotation)}
        if method == "direft_orthogonal":
            state |= {"learned_source.weight": tensors["weight"], "learned_source.bias": tensors["bias"]}
        else:
            state["learned_source"] = tensors["bias"]
    buffer = io.BytesIO()
    torch.save(OrderedDict(state), buffer)
    return buffer.getvalue()


def _completed(rotation: Tensor) -> Tensor:
    """Return an orthogonal [hidden, hidden] whose first columns are ``rotation`` [hidden, rank], bit for bit."""
    rank = rotation.shape[1]
    rest = torch.linalg.qr(rotation.double(), mode="complete").Q[:, rank:].float()
    return torch.cat([rotation, rest], dim=1).contiguous()


def _config_file(
    config: ReftConfig, slots: Mapping[str, int], interventions: Mapping[str, Mapping[str, Tensor]]
) -> bytes:
    ranks, widths = zip(*(interventions[slot]["rotation"].shape for slot in slots), strict=True)
    record = {
        "intervention_constant_sources": [True] * len(slots),
        "intervention_dimensions": list(widths),
        "intervention_types": [f"<class 'pyreft.interventions.{_CLASS[config.method]}'>"] * len(slots),
        "mode": "parallel",
        # pyvene's fields in their order: layer, component, unit, number of units, rank, and nine that are not set.
        "representations": [
            [layer, "block_output", "pos", 1, rank, *[None] * 9]
            for layer, rank in zip(slots.values(), ranks, strict=True)
        ],
        "sorted_keys": _keys(slots),
    }
    return (json.dumps(record, indent=2) + "\n").encode()


def _readme(config: ReftConfig, slots: Mapping[str, int]) -> str:
    rows = zip(_keys(slots), slots.items(), strict=True)
    lines = "\n".join(f"| `{key}` | {_tokens(config, layer, slot)} |" for key, (slot, layer) in rows)
    return f"""# An adapter in pyreft's format

Method `{config.method}` (pyreft's `{_CLASS[config.method]}`), written for pyreft 0.1 with pyvene 0.1.7 or later:

```python
import transformers  # before pyreft
from pyreft import ReftModel

model = ReftModel.load("THIS_FOLDER", base)
```

pyreft does not store which tokens of the prompt are edited: give `unit_locations` these, one list for each
intervention, in this order.

| intervention | edited prompt tokens |
|---|---|
{lines}

Dropout in training was {config.dropout} of the {config.dropout_on}; pyreft loads 0. It makes W and b bf16: on a base in
fp32, call `learned_source.float()` on each intervention that has one.
"""


def _tokens(config: ReftConfig, layer: int, slot: str) -> str:
    at = config.positions_at(layer)
    if at.everything or at.spans:
        return "all" if at.everything else "the spans that each row names"
    if at.ranges:
        return ", ".join(f"{start} to {stop - 1}" for start, stop in at.ranges) + ", counted from 0"
    ends = {"_first": f"the first {at.first}" if at.first else "", "_last": f"the last {at.last}" if at.last else ""}
    chosen = [text for end, text in ends.items() if text and (not config.untied_at(layer) or slot.endswith(end))]
    return " and ".join(chosen)
