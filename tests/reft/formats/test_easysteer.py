"""A steering configuration of EasySteer edits the tokens that reft edits, to the same states.

Here its reader's rules are written down again, from its sources: what a payload's bytes are, the formula of ``loreft``,
which tokens a clause means, and that of several vectors on a token the first one edits it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from reft import AdapterInfo, ReftConfig, ReftModel, save_adapter
from reft.adapters.directory import read_interventions
from reft.edits.config import LayerOverride
from reft.formats.easysteer import SPEC, easysteer_files
from tests.reft.formats.test_standalone import of
from tests.reft.tiny import HIDDEN, LAYERS, build_base

BEHIND = 4
LENGTHS = (6, 7, 40)  # at least twice as long as an end is, where both ends are edited
METHODS = ("loreft", "noreft", "direft", "direft_orthogonal", "consreft", "lobireft")
CONFIGS = {
    **{name: of(name, tied=False) for name in METHODS},
    **{f"{name} tied": of(name) for name in METHODS},
    **{at: of("loreft", positions=at) for at in ("all", "l3", "f9", "f3+l3", "0:2,4:6", "3:9,5:11", "g3", "all+g1")},
    "bias": of("noreft", projection_bias=True),
    "overrides": of("loreft", overrides=(LayerOverride(0, rank=3, positions="l1"), LayerOverride(2, positions="g2"))),
}


def read(data: dict[str, Any]) -> dict[str, Tensor]:
    """A payload's tensors; its sha256 is of names, shapes, bytes and layer."""
    digest, made = hashlib.sha256(b"reft:1"), {}
    for name, each in sorted(data["tensors"].items()):
        content = base64.b64decode(each["data"])
        digest.update(name.encode() + str(tuple(each["shape"])).encode() + content)
        made[name] = torch.from_numpy(np.frombuffer(content, dtype=np.float32).reshape(each["shape"]).copy())
    digest.update(f"layer={data['extra']['layer']}".encode())
    assert digest.hexdigest() == data["sha256"]
    assert (data["version"], data["kind"]) == (1, "reft")
    return made


def matched(clause: dict[str, Any], length: int) -> set[int]:
    """The absolute positions that a clause means, of a prompt of this length."""
    found = set(range(length)) if clause.get("prompt") == "all" else set()
    if "prompt_window" in clause:
        start, stop = clause["prompt_window"]
        low = length + start if start < 0 else start
        high = length if stop is None else stop
        found |= {place for place in range(length) if low <= place < high}
    if "generation_window" in clause:
        start, stop = clause["generation_window"]
        found |= set(range(length + start, length + min(stop, BEHIND)))
    return found


def steered(spec: dict[str, Any], layer: int, state: Tensor, length: int) -> Tensor:
    assert spec["conflict"] == "priority"
    state, claimed = state.clone(), set()
    for vector in spec["vectors"]:
        assert (vector["algorithm"], vector["scale"]) == ("loreft", 1.0)
        if vector["data"]["extra"]["layer"] != layer:
            continue
        own = sorted(matched(vector["apply"], length) - claimed)
        claimed |= set(own)
        tensors = read(vector["data"])
        h = state[own]
        source = h @ tensors["learned_source_weight"].T + tensors["learned_source_bias"]
        state[own] = h + (source - h @ tensors["rotate_layer"]) @ tensors["rotate_layer"].T
    return state


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_a_configuration_edits_as_reft_does(name: str, tmp_path: Path) -> None:
    """In fp32; 2e-5 is what a sum in another order leaves."""
    model = ReftModel(build_base(), CONFIGS[name], seed=1)
    generator = torch.Generator().manual_seed(3)
    for parameter in (each for _, edit in model.named_interventions() for each in edit.parameters()):
        parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    save_adapter(model, tmp_path / "adapter", AdapterInfo())
    made = easysteer_files(CONFIGS[name], read_interventions(tmp_path / "adapter"))
    spec = json.loads(made[SPEC])
    edited = 0
    for length in LENGTHS:
        for layer in range(LAYERS):
            state = torch.randn(length + BEHIND, HIDDEN, generator=generator)
            wanted = state.clone()
            mask = torch.ones(1, len(state), dtype=torch.long)
            for each in model.placed(mask, torch.tensor([length]), None).get(layer, []):
                places = each.mask[0].nonzero()[:, 0]
                wanted[places] = each.intervention(state[places])
                edited += len(places)
            torch.testing.assert_close(steered(spec, layer, state, length), wanted, rtol=0, atol=2e-5)
    assert edited


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (ReftConfig((0,), "l1", None, "red"), "edits a subspace"),
        (of("direft", activation="gelu"), "no activation"),
        (of("loreft", positions="spans"), "spans"),
    ],
)
def test_what_it_has_no_algorithm_for_is_refused(config: ReftConfig, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        easysteer_files(config, {})


def test_the_readme_says_how_short_a_prompt_may_be(tmp_path: Path) -> None:
    config = of("loreft", positions="f3+l2")
    save_adapter(ReftModel(build_base(), config, seed=1), tmp_path / "adapter", AdapterInfo())
    assert b"at least 6 tokens" in easysteer_files(config, read_interventions(tmp_path / "adapter"))["README.md"]
