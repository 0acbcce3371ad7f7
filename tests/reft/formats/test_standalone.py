"""A loader that stands alone computes what this project does: every edit that has an expression, every position."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reft import AdapterInfo, ReftConfig, ReftModel, save_adapter
from reft.adapters.directory import read_interventions
from reft.data import Collator, Encoded
from reft.edits.config import LayerOverride
from reft.edits.methods.table import DECLARED, METHOD_NAMES
from reft.files import write_directory
from reft.formats.standalone import LOADER, standalone_files
from reft.models.decoding import Decoding
from tests.reft.tiny import FAMILIES, HIDDEN, LAYERS
from tests.tiny import tiny_tokenizer

ROWS = ([5, 9, 11, 7, 8, 30, 12], [6, 40, 3], [8])
BEHIND = [21, 22, 23]
WITH_F = [name for name in METHOD_NAMES if "activation" in DECLARED[name].parts]


def of(method: str, **given: Any) -> ReftConfig:
    rank = 2 if "rank" in DECLARED[method].parts else None
    return ReftConfig(
        **{"layers": (0, 2), "positions": "f2+l2+g2", "rank": rank, "init": "paper", **given}, method=method
    )


CONFIGS = {
    **{name: of(name, tied=False) for name in METHOD_NAMES},
    **{
        f"{name} {f}": of(name, activation=f)
        for name, f in zip(WITH_F * 2, ("relu", "gelu", "silu", "tanh"), strict=False)
    },
    "leaky relu": of("direft", activation="leaky_relu"),
    "gelu by tanh": of("noreft", activation="gelu_pytorch_tanh", projection_bias=True),
    **{at: of("loreft", positions=at) for at in ("all", "l3", "f9", "f3+l3", "0:2,4:6", "1:3+g1", "g3")},
    "overrides": of("loreft", overrides=(LayerOverride(0, rank=3, positions="l1"), LayerOverride(2, positions="g2"))),
}


def write(folder: Path, config: ReftConfig, base: nn.Module) -> ReftModel:
    """An adapter of random numbers on a base, and its folder that stands alone."""
    model = ReftModel(base, config, seed=1)
    with torch.no_grad():
        for parameter in (each for _, edit in model.named_interventions() for each in edit.parameters()):
            parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
    save_adapter(model, folder / "adapter", AdapterInfo())
    interventions = read_interventions(folder / "adapter")
    made = standalone_files(config, interventions, hidden_size=HIDDEN, num_layers=LAYERS, dtype="float32")
    write_directory(folder / "out", made)
    return model.eval()


def import_loader(folder: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("load_reft", folder / LOADER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def family(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A base of a few kilobytes in a folder of its own, as a reader of an export has it."""
    torch.manual_seed(0)
    FAMILIES[getattr(request, "param", "llama")]().save_pretrained(tmp_path / "base")  # type: ignore[operator]
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def load(base: Path) -> nn.Module:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(base).eval()


@torch.no_grad()
def ours(model: ReftModel, side: Any, behind: list[int]) -> Tensor:
    rows = [Encoded((*row, *behind), len(row)) for row in ROWS]
    batch = Collator(0, side)(rows)
    return model(batch)[batch.attention_mask.bool()]


@torch.no_grad()
def theirs(model: Any, side: Any, behind: list[int]) -> Tensor:
    batch = Collator(0, side)([Encoded((*row, *behind), len(row)) for row in ROWS])
    model.prompt_lengths = batch.prompt_lengths if behind else None
    logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    model.prompt_lengths = None
    return logits[batch.attention_mask.bool()]


def compare(model: ReftModel, other: Any) -> None:
    frozen = ours(ReftModel(model.base, model.config, seed=1), "left", BEHIND)
    assert (ours(model, "left", BEHIND) - frozen).abs().max() > 1e-3, "the edit changes nothing that could differ"
    for side in ("left", "right"):
        for behind in ([], BEHIND):
            assert torch.allclose(theirs(other, side, behind), ours(model, side, behind), rtol=0, atol=1e-5)
    batch = Collator(0)([Encoded(tuple(row), len(row)) for row in ROWS])
    written = model.generate(batch.input_ids, batch.attention_mask, Decoding(max_new_tokens=5))
    given = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    assert torch.equal(other.generate(**given, max_new_tokens=5, do_sample=False), written)


@pytest.fixture
def nothing_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is imported from here on finds neither package."""
    for name in ("reft", "pipelines"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.parametrize("name", CONFIGS)
def test_it_computes_what_we_do(name: str, family: Path, tmp_path: Path, nothing_of_ours: None) -> None:
    model = write(tmp_path, CONFIGS[name], load(family))
    other, _ = import_loader(tmp_path / "out").load(family)
    compare(model, other)


@pytest.mark.parametrize("family", ["gpt2", "bloom", "opt", "gemma2"], indirect=True)
def test_families_name_their_layers_and_places_otherwise(family: Path, tmp_path: Path) -> None:
    compare(write(tmp_path, of("loreft"), load(family)), import_loader(tmp_path / "out").load(family)[0])


def test_every_method_has_an_expression() -> None:
    assert [name for name, method in DECLARED.items() if method.expression is None] == []


def test_what_the_loader_cannot_say_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    size = {"hidden_size": HIDDEN, "num_layers": LAYERS, "dtype": "float32"}
    with pytest.raises(ValueError, match="spans, which each row names itself; export as hub"):
        standalone_files(of("loreft", positions="spans"), {}, **size)
    bare = dataclasses.replace(DECLARED["red"], expression=None)
    monkeypatch.setattr("reft.formats.standalone.DECLARED", {**DECLARED, "red": bare})
    slots = {"layer_0": {}, "layer_2": {}}
    with pytest.raises(ValueError, match="got red, which declares none; export as hub"):
        standalone_files(of("red"), slots, **size)


def test_another_base_is_refused(family: Path, tmp_path: Path) -> None:
    write(tmp_path, of("loreft"), load(family))
    record = json.loads((tmp_path / "out" / "edits.json").read_text(encoding="utf-8"))
    (tmp_path / "out" / "edits.json").write_text(json.dumps(record | {"layers": 7}), encoding="utf-8")
    with pytest.raises(ValueError, match="the edits are of 7 layers of width 16"):
        import_loader(tmp_path / "out").load(family)


@pytest.mark.long
def test_a_process_without_this_project_gives_the_same(family: Path, tmp_path: Path) -> None:
    model = write(tmp_path, of("loreft"), load(family))
    code = (
        "import sys; sys.modules['reft'] = sys.modules['pipelines'] = None; sys.path.insert(0, sys.argv[1])\n"
        "import torch; from load_reft import load; model, _ = load(sys.argv[2])\n"
        "with torch.no_grad(): print(model(torch.tensor([[5, 9, 11, 7]])).logits.flatten().tolist())"
    )
    command = [sys.executable, "-I", "-c", code, str(tmp_path / "out"), str(family)]
    said = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path).stdout
    with torch.no_grad():
        expected = model(Collator(0)([Encoded((5, 9, 11, 7), 4)])).flatten()
    assert torch.allclose(torch.tensor(json.loads(said)), expected, rtol=0, atol=1e-5)
