"""RED, h * s + b: its formula, start, size and files, and that it is edited and kept as every edit is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from reft.adapters.directory import AdapterInfo, load_adapter, read_interventions, save_adapter
from reft.cone.keeper import ConeConfig, set_cone
from reft.data import Collator
from reft.edits.config import LayerOverride, ReftConfig, count_parameters
from reft.edits.formulas.table import METHODS
from reft.edits.methods.forms import EditForm
from reft.formats.pyreft_write import write_pyreft
from reft.models.decoder import ReftModel
from reft.models.mixed import AdapterSet
from reft.training.fit import fit
from tests.reft.agreement import difference
from tests.reft.tiny import HIDDEN, build_base, build_fit, build_rows

INFO = AdapterInfo("b" * 64, "tiny", "d" * 64, {}, 0)


def red(positions: str = "l4", *, tied: bool = True, **more: Any) -> ReftConfig:
    return ReftConfig((0, 2), positions, None, method="red", tied=tied, **more)


def learned(config: ReftConfig, base: torch.nn.Module | None = None) -> ReftModel:
    """An adapter away from its start."""
    model = ReftModel(base or build_base(), config, seed=1)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for value in model.trainable_parameters().values():
            value.add_(torch.randn(value.shape, generator=generator) / 2)
    return model


def test_the_formula_is_a_scale_and_a_bias() -> None:
    """RED (arXiv 2402.15179), section 3: the representation times a vector, and a vector added."""
    edit = METHODS["red"](24, EditForm(None), torch.Generator())
    scale, bias, h = torch.randn(24), torch.randn(24), torch.randn(4, 5, 24)
    edit.import_tensors({"scale": scale, "bias": bias})
    torch.testing.assert_close(edit(h), torch.einsum("bsd,d->bsd", h, scale) + bias, atol=1e-6, rtol=0)


def test_it_starts_as_the_frozen_base_to_the_bit_and_moves_from_there() -> None:
    model, batch = ReftModel(build_base(), red("all"), seed=1), Collator(0)(build_rows(5))
    with torch.no_grad():
        started = model(batch)
        with model.disabled():
            assert torch.equal(model(batch), started)
    for edit in model.interventions.values():
        assert torch.equal(edit.scale, torch.ones(HIDDEN))
        assert not edit.bias.any()
    list(fit(model, build_rows(8), build_fit(epochs=1, checkpoint_every=100), pad_id=0))
    for edit in model.interventions.values():
        assert (edit.scale != 1).any()
        assert edit.bias.any()
    assert model.decaying_parameters() == frozenset(), "a scale that is pulled to 0 is pulled from its start"


@pytest.mark.parametrize(("tied", "times"), [(True, 1), (False, 2)])
def test_two_numbers_a_coordinate_of_each_edited_layer_and_twice_untied(tied: bool, times: int) -> None:
    config = red("f2+l2", tied=tied)
    assert count_parameters(config, HIDDEN) == times * 2 * HIDDEN * 2  # two layers
    assert ReftModel(build_base(), config, seed=0).num_trainable() == count_parameters(config, HIDDEN)


def test_it_has_no_rank_and_the_others_have() -> None:
    with pytest.raises(ValueError, match="red has no rank, because it edits no subspace; got 4; set rank to null"):
        ReftConfig((0,), "l1", 4, method="red")
    with pytest.raises(ValueError, match="red has no rank"):
        red(overrides=(LayerOverride(2, rank=4),))
    with pytest.raises(ValueError, match="red has no activation"):
        red(activation="gelu")
    with pytest.raises(ValueError, match="loreft needs a rank"):
        ReftConfig((0,), "l1", None)


def test_its_directory_gives_the_same_bits(tmp_path: Path) -> None:
    model, batch = learned(red("f2+l2", tied=False)), Collator(0)(build_rows(5))
    save_adapter(model, tmp_path / "adapter", INFO)
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["reft"]["rank"] is None
    loaded = load_adapter(tmp_path / "adapter", build_base(), base_sha256=INFO.base_sha256)
    assert loaded.config == model.config
    with torch.no_grad():
        assert torch.equal(loaded(batch), model(batch))


def test_pyreft_has_no_class_for_it(tmp_path: Path) -> None:
    model = learned(red())
    save_adapter(model, tmp_path / "adapter", INFO)
    with pytest.raises(ValueError, match="got red, for which it has none; keep our own directory"):
        write_pyreft(tmp_path / "peer", model.config, read_interventions(tmp_path / "adapter"))
    assert not (tmp_path / "peer").exists()


@pytest.mark.parametrize("positions", ["l4", "f1+l2", "all"])
def test_with_what_the_cone_keeps_losses_and_gradients_are_the_same(positions: str) -> None:
    base = build_base().double()
    set_cone(base, ConeConfig())
    model = learned(red(positions), base)
    model.interventions.double()
    found = difference(model, build_rows(5, seed=3))
    assert max(found.loss, found.gradient) <= 1e-9


def test_in_one_pass_with_other_adapters_each_row_has_its_own() -> None:
    base = build_base()
    models = {"red": learned(red(), base), "loreft": ReftModel(base, ReftConfig((1,), "l2", 2, init="paper"), seed=2)}
    rows, names = build_rows(4), ["red", None, "loreft", "red"]
    batch = Collator(0)(rows)
    with torch.no_grad():
        together = AdapterSet(models).rows(names)(batch)
        for place, name in enumerate(names):
            if name is not None:
                own, real = models[name](batch)[place], batch.attention_mask[place].bool()
                torch.testing.assert_close(together[place][real], own[real], atol=1e-5, rtol=0)
