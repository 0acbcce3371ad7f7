"""What holds for every decoder-only family, found by structure alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from reft.adapters.directory import AdapterInfo, load_adapter, save_adapter
from reft.data import Collator
from reft.edits.formulas.table import METHODS
from reft.edits.methods.table import DECLARED
from reft.edits.positions import position_masks
from reft.training.fit import fit
from tests.reft.tiny import FAMILIES, build_base, build_fit, build_model, build_rows, layer_outputs, rank_of

CLOSE = {"atol": 1e-5, "rtol": 0.0}
INFO = AdapterInfo("b" * 64, "tiny", "d" * 64, {}, 0)
TWO_STEPS = build_fit(epochs=1, checkpoint_every=100)
every_family = pytest.mark.parametrize("family", FAMILIES)


@every_family
@pytest.mark.parametrize("positions", ["f2+l2", "all", "1:3"])
def test_the_edit_is_where_the_mask_says_and_all_else_keeps_its_bits(family: str, positions: str) -> None:
    model = build_model(family, layers=(1,), positions=positions)
    batch = Collator(0)(build_rows(5))
    before, after = layer_outputs(model, 1, batch)
    mask = position_masks(model.config.positions_at(1), batch.attention_mask, batch.prompt_lengths).either
    assert mask.any()
    assert torch.equal(before[~mask], after[~mask])
    assert (before[mask] != after[mask]).any(-1).all()
    with torch.no_grad():
        assert torch.equal(after[mask], model.interventions["layer_1"](before[mask]))


@every_family
@pytest.mark.parametrize("tied", [True, False])
def test_a_batch_padded_left_or_right_equals_each_row_alone(family: str, tied: bool) -> None:
    model = build_model(family, tied=tied)
    rows = build_rows(6)
    with torch.no_grad():
        left, right = (Collator(0, side)(rows) for side in ("left", "right"))
        edited = [(batch, model(batch)) for batch in (left, right)]
        for place, row in enumerate(rows):
            alone = model(Collator(0)([row]))[0]
            for batch, logits in edited:
                torch.testing.assert_close(logits[place][batch.attention_mask[place].bool()], alone, **CLOSE)


@every_family
def test_switched_off_or_at_the_identity_the_logits_are_the_bases(family: str) -> None:
    model, fresh = build_model(family), build_model(family, init="identity")
    batch = Collator(0, "right")(build_rows(4))
    with torch.no_grad():
        plain = build_base(family)(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        real = batch.attention_mask.bool()
        with model.disabled():
            assert torch.equal(model(batch)[real], plain[real])
            with model.disabled():
                pass
            assert torch.equal(model(batch)[real], plain[real]), "the inner context switched it on"
        assert torch.equal(fresh(batch)[real], plain[real])
        assert not torch.equal(model(batch)[real], plain[real]), "it stayed switched off"


@every_family
def test_gradients_reach_what_is_trained_and_nothing_else(family: str) -> None:
    model = build_model(family, layers=(0, 1), tied=False)  # past the last layer, a first token reaches no label
    model.loss(Collator(0)(build_rows(6))).backward()
    assert all(name.startswith("interventions.layer_") for name in model.trainable_parameters())
    assert all(value.grad is not None and value.grad.any() for value in model.trainable_parameters().values())
    assert all(value.grad is None and not value.requires_grad for value in model.base.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_gradients_reach_every_parameter_of_every_method(method: str) -> None:
    model = build_model(method=method, rank=rank_of(method, 2), projection_bias=method == "noreft")
    model.loss(Collator(0)(build_rows(6))).backward()
    for name, value in model.trainable_parameters().items():
        assert value.grad is not None, name
        assert value.grad.any(), name


@every_family
def test_a_trained_adapter_is_loaded_with_the_same_bits(tmp_path: Path, family: str) -> None:
    model = build_model(family, init="identity")
    list(fit(model, build_rows(8), TWO_STEPS, pad_id=0))
    save_adapter(model, tmp_path / "adapter", INFO)
    loaded = load_adapter(tmp_path / "adapter", build_base(family), base_sha256=INFO.base_sha256)
    batch = Collator(0)(build_rows(5, seed=1))
    with torch.no_grad():
        assert torch.equal(loaded(batch), model(batch))
        with model.disabled():
            assert not torch.equal(loaded(batch), model(batch)), "nothing was learned"


@pytest.mark.parametrize(
    ("method", "activation"),
    [
        (method, activation)
        for method in METHODS
        for activation in ("linear", "gelu")
        if activation == "linear" or "activation" in DECLARED[method].parts
    ],
)
def test_every_method_is_loaded_as_it_was_saved(tmp_path: Path, method: str, activation: str) -> None:
    more = {"projection_bias": True} if method == "noreft" else {}
    model = build_model(method=method, rank=rank_of(method, 2), activation=activation, dropout=0.3, tied=False, **more)
    list(fit(model, build_rows(8), TWO_STEPS, pad_id=0))
    save_adapter(model, tmp_path / "adapter", INFO)
    loaded = load_adapter(tmp_path / "adapter", build_base(), base_sha256=INFO.base_sha256)
    assert loaded.config == model.config
    batch = Collator(0)(build_rows(5, seed=1))
    with torch.no_grad():
        assert torch.equal(loaded(batch), model(batch))
