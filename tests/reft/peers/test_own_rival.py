"""A rival of one's own is a module and a line in the table: nothing else names the rivals that there are."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import reft.peers.methods as methods
from reft import AdapterInfo, FitConfig, fit
from reft.adapters.any_method import build_method, load_method, read_method, save_method
from reft.peers.methods import config_from_dict
from reft.peers.parts import Part, PartConfig
from reft.peers.table import TRAINED_IN
from tests.arrows import ROOT, imported, modules
from tests.reft.tiny import build_base, build_rows

INFO = AdapterInfo("b" * 64, "hub:tiny", "d" * 64, {"template": "{text}"}, 0)


class ShiftPart(Part):
    """One trained vector, which is added to every token's embedding; it starts at 0."""

    def __init__(self, base: Any) -> None:
        self._embedding = base.get_input_embeddings()
        self._shift = nn.Parameter(torch.zeros(base.config.hidden_size))

    def parameters(self) -> dict[str, nn.Parameter]:
        return {"shift": self._shift}

    def decaying(self) -> frozenset[str]:
        return frozenset()

    @contextmanager
    def on(self, _starts: Tensor | None = None, _domains: Tensor | None = None) -> Iterator[None]:
        hook = self._embedding.register_forward_hook(lambda _module, _given, output: output + self._shift)
        try:
            yield
        finally:
            hook.remove()

    def export_tensors(self) -> dict[str, Tensor]:
        return {"shift": self._shift.detach().clone()}

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"shift": tuple(self._shift.shape)}

    @torch.no_grad()
    def import_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        self._shift.copy_(tensors["shift"])


@dataclass(frozen=True)
class ShiftConfig(PartConfig):
    METHODS: ClassVar = ("shift",)
    IN_PEFT: ClassVar = False

    def build(self, base: nn.Module, *, seed: int) -> ShiftPart:
        return ShiftPart(base)

    def count(self, base: nn.Module) -> int:
        return int(base.config.hidden_size)  # type: ignore[union-attr, arg-type]


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("reft.peers.shift")
    module.CONFIGS = (ShiftConfig,)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "reft.peers.shift", module)
    monkeypatch.setattr(methods, "TRAINED_IN", {**TRAINED_IN, "shift": "shift"})


@pytest.mark.usefixtures("added")
def test_it_trains_and_comes_back_from_its_directory(tmp_path: Path) -> None:
    config, rows = config_from_dict({"method": "shift"}), build_rows(4)
    model = build_method(build_base(), config, seed=0)
    before = model.row_losses(rows, 0).mean().item()
    numbers = FitConfig(
        epochs=4, batch_size=4, accumulation=1, learning_rate=1e-2, warmup_ratio=0.0, weight_decay=0.0,
        max_grad_norm=1.0, seed=0, checkpoint_every=10,
    )  # fmt: skip
    assert len(list(fit(model, rows, numbers, pad_id=0))) == 4
    with torch.no_grad():
        after = model.row_losses(rows, 0)
        assert after.mean().item() < before
        save_method(model, tmp_path / "adapter", INFO)
        again = load_method(tmp_path / "adapter", build_base(), base_sha256="b" * 64)
        assert torch.equal(again.row_losses(rows, 0), after)
    assert read_method(tmp_path / "adapter") == config
    assert isinstance(config, ShiftConfig)
    assert config.count(model.base) == model.num_trainable()


def test_no_module_but_another_trainer_imports_a_trainer() -> None:
    trainers = {f"reft.peers.{module}" for module in TRAINED_IN.values()}
    using = {(name, trainer) for name in modules() for trainer in imported(name) & trainers if name not in trainers}
    # A model of two methods is no part: what builds, counts, saves and trains models knows it beside that of parts.
    assert {trainer for _, trainer in using} <= {"reft.peers.stacked"}


def test_a_rivals_name_stands_in_the_table_and_where_it_is_at_home() -> None:
    """Of one that is no other's sum (see above); a prompt is also what a row is asked by."""
    names = set(TRAINED_IN) - {"lora_then_reft", "prompt"}
    at_home = {Path("reft/peers/table.py"), *(Path(f"pipelines/recipes/methods/{name}.py") for name in TRAINED_IN)}
    at_home |= {Path(f"reft/peers/{module}.py") for module in TRAINED_IN.values()}
    found = set()
    for file in modules().values():
        place = file.relative_to(ROOT)
        if place in at_home or place.parts[0] not in ("reft", "pipelines"):
            continue
        nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
        found |= {(place.as_posix(), name) for name in names & texts}
    assert found == set()
