"""Writes an adapter as a steering configuration of EasySteer, a fork of vLLM: JSON that a request carries.

Its algorithm ``loreft`` is h + U(Wh + b - Uᵀh), and U may be any, so each edit of a subspace with a linear activation
is one of its vectors, with another W and b. An intervention is a vector for each window of its tokens. What to know:

- A vector's numbers are read in the dtype that its engine runs in.
- EasySteer lets ``f7+l7`` take seven tokens from each end of every prompt; here each end takes at most half of one.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from reft.edits.config import ReftConfig
from reft.edits.positions import Positions

SPEC = "steering.json"
_WIRE = 1  # the version of payloads that is written
_KIND = "reft"
_METHODS = ("loreft", "noreft", "direft", "direft_orthogonal", "consreft", "lobireft")

Clause = dict[str, Any]


def easysteer_files(config: ReftConfig, interventions: Mapping[str, Mapping[str, Tensor]]) -> dict[str, bytes]:
    """Return the configuration and a README.md, by their names.

    Args:
        config: of a decoder's adapter.
        interventions: slot -> tensors, as :func:`reft.adapters.directory.read_interventions` gives them.

    Raises:
        ValueError: for what EasySteer has no algorithm for: RED, an activation, and positions of spans.
    """
    if config.method not in _METHODS:
        raise ValueError(
            f"EasySteer's loreft edits a subspace, as {', '.join(_METHODS)} do; got {config.method}; export as vllm, "
            "or train one of those"
        )
    if config.activation != "linear":
        raise ValueError(
            f"EasySteer's loreft has no activation; got {config.activation!r}; export as vllm, or train with the "
            "linear activation"
        )
    if any(config.positions_at(layer).spans for layer in config.layers):
        raise ValueError(
            "EasySteer edits tokens that follow from the prompt's length; got positions of spans, which each row names "
            "itself; train with positions like f7+l7"
        )
    vectors = [vector for layer in config.layers for vector in _vectors(config, layer, interventions)]
    spec = {"conflict": "priority", "vectors": vectors}  # of two windows on one token the first one's vector edits it
    return {SPEC: (json.dumps(spec) + "\n").encode(), "README.md": _readme(config, len(vectors)).encode()}


def _vectors(
    config: ReftConfig, layer: int, interventions: Mapping[str, Mapping[str, Tensor]]
) -> Iterator[dict[str, Any]]:
    at = config.positions_at(layer)
    parts = [(part,) for part in at.parts] if config.untied_at(layer) else [at.parts]
    for slot, own in zip(config.slots(layer), parts, strict=True):
        data = _payload(_as_loreft(config.method, interventions[slot]), layer)
        for clause in _clauses(at, own):
            yield {"name": slot, "algorithm": "loreft", "scale": 1.0, "data": data, "apply": clause}


def _clauses(at: Positions, parts: tuple[str, ...]) -> list[Clause]:
    """Return the tokens of an intervention: one window of the prompt in each clause, and none where it is empty.

    EasySteer's lists of positions would do with fewer, but of a prompt that is shorter they mean its last token.
    """
    windows: list[Clause] = []
    if "first" in parts and at.everything:
        windows.append({"prompt": "all"})
    elif "first" in parts:
        simple = at.simplest()
        ranges = ((0, simple.first),) if simple.first else simple.ranges
        windows += [{"prompt_window": list(each)} for each in ranges]
    if "last" in parts:
        windows.append({"prompt_window": [-at.last, None]})
    if "generated" in parts:
        windows = windows or [{}]
        windows[0]["generation_window"] = [0, at.generated]
    return windows


def _as_loreft(method: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return U, W and b for which h + U(Wh + b - Uᵀh) is the edit."""
    up, bias = tensors["rotation" if "rotation" in tensors else "projection"], tensors["bias"]
    if method in ("direft", "direft_orthogonal"):  # h + U(Wh + b)
        weight = tensors["weight"] + up
    elif method == "consreft":  # h + U(b - Uᵀh)
        weight = torch.zeros_like(up)
    elif method == "lobireft":  # h + Ub
        weight = up
    else:
        weight = tensors["weight"]
    subtracted = tensors.get("projection_bias", torch.zeros_like(bias))
    return {
        "rotate_layer": up.mT, "learned_source_weight": weight, "learned_source_bias": bias - subtracted
    }  # fmt: skip


def _payload(tensors: Mapping[str, Tensor], layer: int) -> dict[str, Any]:
    """Return a vector's numbers as EasySteer reads them from JSON, under the hash that it tells vectors apart by."""
    digest = hashlib.sha256(f"{_KIND}:{_WIRE}".encode())
    written = {}
    for name in sorted(tensors):
        array = tensors[name].detach().float().contiguous().numpy().astype("<f4")
        digest.update(name.encode() + str(array.shape).encode() + array.tobytes())
        written[name] = {"shape": list(array.shape), "data": base64.b64encode(array.tobytes()).decode()}
    digest.update(f"layer={layer!r}".encode())
    return {
        "version": _WIRE, "kind": _KIND, "tensors": written, "extra": {"layer": layer}, "sha256": digest.hexdigest()
    }  # fmt: skip


def _readme(config: ReftConfig, vectors: int) -> str:
    ends = [at for layer in config.layers if (at := config.positions_at(layer)).two_sided]
    least = max((2 * max(at.first, at.last) for at in ends), default=0)
    short = (
        f"\nA prompt has at least {least} tokens. Of a shorter one EasySteer edits other tokens than training did, "
        "where each end took at most half of it.\n"
        if least
        else ""
    )
    many = " --steer-multi-vector" if vectors > 1 else ""
    return f"""# An adapter as a steering configuration of EasySteer

Method `{config.method}` at `{config.positions}`, as {vectors} vectors of EasySteer's algorithm `loreft`:

```sh
vllm serve path/to/base --enable-steer-vector --steer-algorithms loreft{many}
```

```python
import json
from openai import OpenAI

steering = json.load(open("{SPEC}"))
client = OpenAI(base_url="http://localhost:8000/v1", api_key="none")
client.completions.create(model="path/to/base", prompt="A prompt", extra_body={{"steering": steering}})
```

`--steering-config {SPEC}` in the place of these options gives it to every request. The numbers are float32 and are read
in the dtype that the engine runs in. Tokens that are scored behind a prompt count as its own.
{short}"""
