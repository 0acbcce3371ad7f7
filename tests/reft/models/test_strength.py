"""The dial: h + scale * (Phi(h) - h), whatever the method; 1 is the adapter as trained, 0 the base, bit for bit."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from reft.causal import ConeProbe, LayerSite
from reft.data import Collator
from reft.edits.methods.table import METHOD_NAMES
from reft.models.decoder import ReftModel
from reft.models.decoding import Decoding
from reft.models.mixed import AdapterSet
from reft.models.scoring import score_choices
from reft.training.fit import fit
from tests.reft.tiny import (
    build_base,
    build_config,
    build_encoder,
    build_fit,
    build_labelled,
    build_model,
    build_rows,
    layer_outputs,
    prompts,
    rank_of,
)

BATCH = Collator(0)(build_rows(4))


@torch.no_grad()
def logits(model: Any, batch: Any = BATCH) -> Tensor:
    found: Tensor = model(batch)
    return found


@pytest.mark.parametrize("method", METHOD_NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_is_as_trained_and_zero_is_the_base_bit_for_bit(method: str, dtype: torch.dtype) -> None:
    init = "identity" if method == "red" else "paper"
    model = build_model(method=method, rank=rank_of(method, 2), init=init)
    with torch.no_grad():
        for value in model.trainable_parameters().values():
            value.add_(0.1)  # RED has no start of its own
    model.base.to(dtype)
    trained = logits(model)
    with model.disabled():
        base = logits(model)
    found = {}
    for scale in (0, 1.0, 0.5, -1):
        model.scale = scale
        found[scale] = logits(model)
    assert torch.equal(found[1.0], trained)
    assert torch.equal(found[0], base)
    assert not any(torch.equal(found[scale], other) for scale in (0.5, -1) for other in (trained, base))


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_an_edit_is_linear_in_the_scale(method: str) -> None:
    """At the edited layer's output, in fp64: h(s) = h + s (Phi(h) - h)."""
    model = build_model(
        layers=(1,), method=method, rank=rank_of(method, 2), init="paper" if method != "red" else "identity"
    )
    model.double()
    with torch.no_grad():
        for value in model.trainable_parameters().values():
            value.add_(0.1)
    before, whole = layer_outputs(model, 1, BATCH)
    for scale in (0.25, 0.5, 2.0, -1.5):
        with model.at_scale(scale):
            _, found = layer_outputs(model, 1, BATCH)
        torch.testing.assert_close(found, before + scale * (whole - before), atol=1e-12, rtol=0.0)
    assert model.scale == 1


def test_every_use_has_it() -> None:
    """Losses by the cone, scores and generated text, by the attribute and by the argument."""
    rows, (ids, mask) = build_rows(4), prompts((5, 3))
    model = build_model(positions="l1+g2")
    half = build_model(positions="l1+g2")
    with torch.no_grad():  # LoReFT is linear in W - R and b
        for _, edit in half.named_interventions():
            rotation = edit.rotation()
            edit.weight.copy_(rotation + (edit.weight - rotation) / 2)
            edit.bias.div_(2)
    model.scale = 0.5
    torch.testing.assert_close(model.row_losses(rows, 0), half.row_losses(rows, 0), atol=1e-5, rtol=0.0)
    scores = [score_choices(each, [(3, 4), (5,)], [(6, 7), (8,)], batch_size=2) for each in (model, half)]
    torch.testing.assert_close(*scores, atol=1e-5, rtol=0.0)
    written = half.generate(ids, mask, Decoding(6))
    assert torch.equal(model.generate(ids, mask, Decoding(6)), written)
    model.scale = 1
    assert not torch.equal(model.generate(ids, mask, Decoding(6)), written)
    assert torch.equal(model.generate(ids, mask, Decoding(6), scale=0.5), written)
    assert model.scale == 1


def test_in_a_mixed_batch_each_adapter_has_its_own() -> None:
    base = build_base()
    models = {
        name: ReftModel(base, build_config(positions=positions), seed=seed)
        for seed, (name, positions) in enumerate({"one": "f2+l2", "two": "l1+g2"}.items())
    }
    adapters, names = AdapterSet(models), ["one", "two", "two", None]
    models["two"].scale = 0.5
    found = logits(adapters.rows(names))
    for row, name in enumerate(names):
        with models[name or "one"].at_scale(models[name].scale if name else 0.0):
            alone = logits(models[name or "one"])[row]
        torch.testing.assert_close(found[row], alone, atol=1e-5, rtol=0.0)
    ids, mask = prompts((5, 3, 4, 2))
    whole = adapters.rows(names).generate(ids, mask, Decoding(5), scale=0.0)
    with models["one"].disabled():
        assert torch.equal(whole, models["one"].generate(ids, mask, Decoding(5)))
    assert (models["one"].scale, models["two"].scale) == (1, 0.5)


def test_a_head_stays_whole() -> None:
    model = build_encoder().eval()
    batch = model.collate(build_labelled(3), 0)
    with model.disabled():
        expected = logits(model, batch)
    model.scale = 0
    assert torch.equal(logits(model, batch), expected)


def test_a_probe_sees_that_it_was_turned() -> None:
    model = build_model(layers=(0,))
    rows = build_rows(3)
    probe = ConeProbe(model, (5, 6), (1,))
    before = probe.read(rows, LayerSite(1, "l1"))
    model.scale = 0
    with model.disabled():
        base = ConeProbe(model, (5, 6), (1,)).read(rows, LayerSite(1, "l1"))
    assert torch.equal(probe.read(rows, LayerSite(1, "l1")), base)
    assert not torch.equal(before, base)


@pytest.mark.parametrize("scale", [math.nan, math.inf, 10**400, 1e38, -1001, True, "1", None])
def test_what_is_no_number_or_too_large_a_one_is_refused(scale: Any) -> None:
    model = build_model()
    with pytest.raises(ValueError, match="a number from -1000 to 1000"):
        model.scale = scale
    assert model.scale == 1


@pytest.mark.parametrize("scale", [1000, -1000])
def test_the_largest_scales_give_numbers(scale: int) -> None:
    model = build_model()
    model.scale = scale
    assert logits(model).isfinite().all()


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_zero_is_a_wider_base_bit_for_bit(method: str) -> None:
    """An fp64 base with edits in fp32."""
    model = build_model(method=method, rank=rank_of(method, 2), init="identity" if method == "red" else "paper")
    with torch.no_grad():
        for value in model.trainable_parameters().values():
            value.add_(0.1)
    model.base.double()
    assert {value.dtype for value in model.trainable_parameters().values()} == {torch.float32}
    with model.disabled():
        base = logits(model)
    model.scale = 0
    assert base.dtype == torch.float64
    assert torch.equal(logits(model), base)


def test_it_is_no_part_of_training() -> None:
    model = build_model()
    with pytest.raises(ValueError, match=r"in training mode; call eval\(\)"):
        model.train().scale = 2
    model.eval().scale = 2
    with pytest.raises(ValueError, match=r"trained at scale 1; got 2; set model\.scale = 1"):
        next(fit(model, build_rows(4), build_fit(), pad_id=0))
