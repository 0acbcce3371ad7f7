"""AdapterHub's directories. Their library does not run beside this transformers, so the directories are made here from
its names and its modules' structure, and the expected outputs by its formula on those modules."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from reft.edits.config import ReftConfig
from reft.formats.adapterhub import read_adapterhub
from reft.formats.foreign import ForeignAdapter
from reft.models.decoder import ReftModel
from tests.reft.tiny import HIDDEN, build_base

NAME = "movies"
CONFIG = {
    "architecture": "reft",
    "dropout": 0.05,
    "dtype": None,
    "init_weights_seed": None,
    "layers": [0, 2],
    "non_linearity": None,
    "orthogonality": True,
    "output_reft": True,
    "prefix_positions": 2,
    "r": 2,
    "suffix_positions": 3,
    "tied_weights": False,
}


class Unit(nn.Module):
    """The names and the parametrisation of one of their units, trained a little."""

    def __init__(self, rank: int, orthogonal: bool) -> None:
        super().__init__()
        self.learned_source = nn.Linear(HIDDEN, rank)
        projection = nn.Linear(HIDDEN, rank, bias=False)
        self.projection = parametrizations.orthogonal(projection) if orthogonal else projection
        steps = torch.optim.SGD(self.parameters(), lr=0.1)
        for _ in range(3):
            self(torch.randn(8, HIDDEN), torch.relu, subtract=True).pow(2).mean().backward()
            steps.step()
            steps.zero_grad()

    def forward(self, h: Tensor, activation: Callable[[Tensor], Tensor], *, subtract: bool) -> Tensor:
        """Their formula, with the projection as a parametrised Linear gives it."""
        source = activation(self.learned_source(h))
        return h + (source - self.projection(h) if subtract else source) @ self.projection.weight


def make(path: Path, *, packed: bool = False, **changes: Any) -> dict[tuple[int, int], Unit]:
    """Write a directory; return its units by layer and number."""
    config = CONFIG | changes
    torch.manual_seed(4)
    layers = range(3) if config["layers"] == "all" else config["layers"]
    numbers = range(1 if config["tied_weights"] else 2)
    units = {(layer, n): Unit(config["r"], config["orthogonality"]) for layer in layers for n in numbers}
    tensors = {
        f"model.layers.{layer}.reft_layer.refts.{NAME}.units.{number}.{key}": value.contiguous()
        for (layer, number), unit in units.items()
        for key, value in unit.state_dict().items()
    }
    path.mkdir(exist_ok=True)
    if packed:
        torch.save(tensors, path / "pytorch_adapter.bin")
    else:
        safetensors.torch.save_file(tensors, path / "adapter.safetensors")
    record = {"config": config, "hidden_size": HIDDEN, "model_type": "llama", "name": NAME, "version": "adapters.1.2.0"}
    (path / "adapter_config.json").write_text(json.dumps(record))
    return units


def edited(adapter: ForeignAdapter, slot: str, h: Tensor) -> Tensor:
    model = ReftModel(build_base(), adapter.config, seed=0)
    adapter.fill(model)
    return model.eval().interventions[slot](h)


@pytest.mark.parametrize(
    ("orthogonality", "method", "subtract"),
    [(True, "loreft", True), (True, "direft_orthogonal", False), (False, "noreft", True), (False, "direft", False)],
)
@pytest.mark.parametrize("packed", [False, True])
def test_the_edits_are_theirs(tmp_path: Path, orthogonality: bool, method: str, subtract: bool, packed: bool) -> None:
    units = make(tmp_path, packed=packed, orthogonality=orthogonality, non_linearity="ReLU")
    adapter = read_adapterhub(tmp_path, method=method)
    h = torch.randn(5, HIDDEN, generator=torch.Generator().manual_seed(1))
    for (layer, number), unit in units.items():
        expected = unit(h, functional.relu, subtract=subtract)
        got = edited(adapter, f"layer_{layer}_{('first', 'last')[number]}", h)
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)
        assert (expected - h).abs().max() > 0.01


def test_the_config_is_theirs(tmp_path: Path) -> None:
    make(tmp_path, tied_weights=True, layers="all", non_linearity="gelu_new")
    adapter = read_adapterhub(tmp_path)
    assert adapter.config == ReftConfig(
        (0, 1, 2),
        "f2+l3",
        2,
        init="paper",
        activation="gelu_pytorch_tanh",
        dropout=0.05,
        dropout_on="output",
    )
    assert any("whole sequence" in note for note in adapter.notes)


@pytest.mark.parametrize(("prefix", "suffix", "positions", "used"), [(2, 0, "f2", 0), (0, 3, "l3", 1)])
def test_the_unit_of_an_end_that_is_not_edited_is_left_out(
    tmp_path: Path, prefix: int, suffix: int, positions: str, used: int
) -> None:
    units = make(tmp_path, prefix_positions=prefix, suffix_positions=suffix, layers=[1])
    adapter = read_adapterhub(tmp_path)
    assert (adapter.config.positions, adapter.config.slots(1)) == (positions, ("layer_1",))
    assert torch.equal(adapter.interventions["layer_1"]["bias"], units[1, used].learned_source.bias)


@pytest.mark.parametrize(
    ("orthogonality", "method"),
    [(False, None), (False, "loreft"), (True, "noreft"), (True, "consreft")],
)
def test_the_method_that_the_format_leaves_open_must_be_named(
    tmp_path: Path, orthogonality: bool, method: str | None
) -> None:
    make(tmp_path, orthogonality=orthogonality)
    with pytest.raises(ValueError, match="does not tell apart"):
        read_adapterhub(tmp_path, method=method)


def test_a_head_is_read_with_the_edits(tmp_path: Path) -> None:
    make(tmp_path)
    head = {"classifier.weight": torch.randn(3, HIDDEN), "classifier.bias": torch.randn(3)}
    safetensors.torch.save_file(head, tmp_path / "model_head.safetensors")
    adapter = read_adapterhub(tmp_path)
    assert all(torch.equal(adapter.head[name], value) for name, value in head.items())


def test_the_output_layer_of_a_decoder_is_no_head_but_may_be_there(tmp_path: Path) -> None:
    """Theirs saves a causal model's output layer too, where it is the base's own."""
    make(tmp_path)
    weight = build_base().lm_head.weight.detach()
    for values, refused in ((weight, False), (weight + 1, True)):
        safetensors.torch.save_file({"lm_head.weight": values}, tmp_path / "model_head.safetensors")
        adapter = read_adapterhub(tmp_path)
        model = ReftModel(build_base(), adapter.config, seed=0)
        if refused:
            with pytest.raises(ValueError, match=r"must be a head of the model; got lm_head\.weight"):
                adapter.fill(model)
        else:
            adapter.fill(model)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architecture": "lora"}, "architecture reft; got"),
        ({"architecture": "union"}, "architecture reft; got"),
        ({"novelty": 1}, r"unknown meaning"),
        ({"prefix_positions": True}, "prefix_positions"),
        ({"prefix_positions": 0, "suffix_positions": 0}, "some positions"),
        ({"prefix_positions": -1}, "some positions"),
        ({"dropout": "0.1"}, "dropout"),
        ({"non_linearity": "sigmoid"}, "sigmoid"),
        ({"output_reft": False}, "output_reft"),
        ({"tied_weights": True}, "as tied_weights says"),
    ],
)
def test_a_config_that_cannot_be_followed_is_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    make(tmp_path)
    path = tmp_path / "adapter_config.json"
    record = json.loads(path.read_text())
    record["config"] |= changes
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=words):
        read_adapterhub(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("refts.movies.", "refts.other.", "must be those of the ReFT adapter movies"),
        ("model.layers.0.", "decoder.layers.0.", "one stack"),
        ("units.0", "units.1", "numbered from 0"),
        ("learned_source.bias", "learned_source.other", "no counterpart"),
    ],
)
def test_tensors_of_something_else_are_refused(tmp_path: Path, old: str, new: str, words: str) -> None:
    make(tmp_path, tied_weights=True)
    path = tmp_path / "adapter.safetensors"
    tensors = {key.replace(old, new): value for key, value in safetensors.torch.load_file(path).items()}
    safetensors.torch.save_file(tensors, path)
    with pytest.raises(ValueError, match=words):
        read_adapterhub(tmp_path)


def test_r_that_weight_decay_destroyed_is_refused(tmp_path: Path) -> None:
    """One step of AdamW with weight decay on torch's parametrisation makes R the zero matrix."""
    make(tmp_path)
    path = tmp_path / "adapter.safetensors"
    tensors = safetensors.torch.load_file(path)
    safetensors.torch.save_file({k: v * 0.999 if k.endswith("original") else v for k, v in tensors.items()}, path)
    with pytest.raises(ValueError, match=r"must be orthonormal; got an error of 1\.0e\+00"):
        read_adapterhub(tmp_path)


def test_a_directory_without_tensors_is_refused(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "adapter.safetensors").unlink()
    with pytest.raises(ValueError, match=r"adapter\.safetensors or pytorch_adapter\.bin"):
        read_adapterhub(tmp_path)
