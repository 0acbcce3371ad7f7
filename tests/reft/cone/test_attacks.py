"""Changes of a base that its constants follow from are seen, whatever way they are made in."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers.models.llama import modeling_llama

from reft.cone.keeper import ConeConfig, set_cone
from reft.edits.config import ReftConfig
from reft.models.decoder import ReftModel
from reft.models.scoring import score_choices
from tests.reft.agreement import difference
from tests.reft.families import DECODERS, MIXED, SHARED, build
from tests.reft.tiny import build_base, build_rows

ROWS = build_rows(5, seed=3)
CONFIG = ReftConfig((1,), "l2", 2, init="paper")


def merged(base: Any) -> None:
    wrapped = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, value in wrapped.named_parameters():
            if "lora_B" in name:
                value.normal_()
    assert wrapped.merge_and_unload() is base


def written(base: Any) -> None:
    base.model.layers[0].mlp.down_proj.weight.data.add_(0.3)


def hooked(base: Any) -> None:
    base.model.layers[0].mlp.register_forward_hook(lambda _module, _given, output: output * 1.5)


def before(base: Any) -> None:
    base.model.layers[0].mlp.register_forward_pre_hook(lambda _module, given: (given[0] * 1.5,))


def swapped(base: Any) -> None:
    base.model.layers[0].mlp.act_fn = nn.ReLU()


def rotated(base: Any) -> None:
    base.model.rotary_emb.inv_freq.data.mul_(0.5)


def scaled(base: Any) -> None:
    base.model.layers[0].self_attn.scaling *= 3.0


def replaced(base: Any) -> None:
    forward = base.model.layers[0].mlp.forward
    base.model.layers[0].mlp.forward = lambda hidden: forward(hidden) * 1.5


def permuted(base: Any) -> None:
    weight = base.model.layers[0].mlp.down_proj.weight
    weight.data.copy_(weight.data.flip(0))  # of the same sum


def called(base: Any) -> None:
    mlp = base.model.layers[0].mlp
    mlp._call_impl = lambda hidden: mlp.forward(hidden) * 1.5


def transposed(base: Any) -> None:
    weight = base.model.layers[0].self_attn.o_proj.weight
    weight.data = weight.data.T  # the same memory


def widened(base: Any) -> None:
    base.model.layers[0].input_layernorm.variance_epsilon = 0.5


@pytest.mark.parametrize(
    "change",
    [merged, written, hooked, before, swapped, rotated, scaled, replaced, permuted, called, transposed, widened],
)
def test_a_changed_base_has_other_constants(change: Callable[[Any], None]) -> None:
    base = build_base()
    model = ReftModel(base, CONFIG, seed=1)
    first = model.row_losses(ROWS, 0).detach()
    change(base)
    model = ReftModel(base, CONFIG, seed=1)
    model.begin_rows(ROWS)
    found = model.row_losses(ROWS, 0).detach()
    assert (found - first).abs().max() > 1e-3  # it is a change
    assert difference(model, ROWS).within(1e-5)


@pytest.mark.parametrize("change", [written, permuted, rotated, transposed])
def test_a_change_within_a_use_is_seen_too(change: Callable[[Any], None]) -> None:
    """It leaves place and version of the tensors as they were; some of their values are compared for each batch."""
    base = build_base()
    model = ReftModel(base, CONFIG, seed=1)
    first = model.row_losses(ROWS, 0).detach()
    change(base)
    assert (model.row_losses(ROWS, 0).detach() - first).abs().max() > 1e-3
    assert difference(model, ROWS).within(1e-5)


def narrowed(base: Any) -> None:
    base.config.sliding_window = 2  # of 4, and no module has it


def strengthened(base: Any) -> None:
    base.model.layers[0].residual_multiplier *= 3.0


@pytest.mark.parametrize(("family", "change"), [("mistral", narrowed), ("granite", strengthened)])
def test_a_changed_value_of_a_config_is_seen(family: str, change: Callable[[Any], None]) -> None:
    base = build(DECODERS[family])
    model = ReftModel(base, CONFIG, seed=1)
    first = model.row_losses(ROWS, 0).detach()
    change(base)
    assert (model.row_losses(ROWS, 0).detach() - first).abs().max() > 1e-3
    assert difference(model, ROWS).within(1e-5)


def test_code_that_is_put_in_place_of_a_familys_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """As libraries of faster kernels do: a forward of a class, and a function of its file."""
    base = build_base()
    model = ReftModel(base, CONFIG, seed=1)
    first = model.row_losses(ROWS, 0).detach()
    mlp = type(base.get_submodule("model.layers.0.mlp"))
    forward = mlp.forward
    monkeypatch.setattr(mlp, "forward", lambda self, hidden: forward(self, hidden) * 1.5)
    second = model.row_losses(ROWS, 0).detach()
    assert difference(model, ROWS).within(1e-5)
    monkeypatch.setattr(modeling_llama, "apply_rotary_pos_emb", lambda query, key, *_rest, **_more: (query, key))
    third = model.row_losses(ROWS, 0).detach()
    assert difference(model, ROWS).within(1e-5)
    assert min((second - first).abs().max(), (third - second).abs().max()) > 1e-3


@pytest.mark.parametrize("change", ["other", "both", "scaled"])
def test_which_adapters_are_on_and_how_much_is_seen(change: str) -> None:
    """PEFT keeps both in a list and a dict of each layer, and no parameter changes."""
    base = build_base()
    own = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    wrapped = get_peft_model(base, own)
    wrapped.add_adapter("other", own)
    with torch.no_grad():
        for name, value in wrapped.named_parameters():
            if "lora_B" in name:
                value.normal_()
    model = ReftModel(base, CONFIG, seed=1)
    first = model.row_losses(ROWS, 0).detach()
    if change == "scaled":
        for module in wrapped.modules():
            if isinstance(module, LoraLayer):
                module.scale_layer(5.0)
    else:
        wrapped.base_model.set_adapter("other" if change == "other" else ["default", "other"])
        base.requires_grad_(False)
    assert (model.row_losses(ROWS, 0).detach() - first).abs().max() > 1e-3
    assert difference(model, ROWS).within(1e-5)


@pytest.mark.parametrize("change", [written, rotated, permuted])
def test_files_of_other_weights_are_not_read(change: Callable[[Any], None], tmp_path: Path) -> None:
    """Their sha256 is said to be the same, as of a base that is changed after it was loaded."""
    for changed in (False, True):
        base = build_base()
        if changed:
            change(base)
        set_cone(base, ConeConfig(disk_bytes=1 << 30, folder=tmp_path, base_sha256="ab" * 32))
        assert difference(ReftModel(base, CONFIG, seed=1), ROWS).within(1e-5)


def test_nothing_is_kept_on_disk_for_code_that_no_name_says(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    base = build_base()
    replaced(base)
    set_cone(base, ConeConfig(disk_bytes=1 << 30, folder=tmp_path, base_sha256="ab" * 32))
    assert difference(ReftModel(base, CONFIG, seed=1), ROWS).within(1e-5)
    assert not any(tmp_path.rglob("*.safetensors"))
    assert "no name says" in caplog.text


def test_an_adapter_that_is_switched_off_or_taken_away_is_seen() -> None:
    base = build_base()
    wrapped = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, value in wrapped.named_parameters():
            if "lora_B" in name:
                value.normal_()
    model = ReftModel(base, CONFIG, seed=1)
    assert difference(model, ROWS).within(1e-5)
    with wrapped.disable_adapter():
        base.requires_grad_(False)
        assert difference(model, ROWS).within(1e-5)
    wrapped.unload()
    model = ReftModel(base, CONFIG, seed=1)
    assert difference(model, ROWS).within(1e-5)


def test_a_hook_on_every_module_is_seen() -> None:
    model = ReftModel(build_base(), CONFIG, seed=1)
    model.row_losses(ROWS, 0)
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, _given, output: output * 1.5 if isinstance(module, nn.Linear) else None
    )
    try:
        assert difference(model, ROWS).within(1e-5)
    finally:
        handle.remove()


def losses(model: ReftModel) -> Tensor:
    return model.row_losses(ROWS, 0).detach()


def scores(model: ReftModel) -> Tensor:
    return score_choices(model, [row.prompt_ids for row in ROWS], [(3,), (4, 5)], batch_size=2)


@pytest.mark.parametrize("asked", [losses, scores])
def test_nothing_is_kept_of_a_base_that_draws(asked: Callable[[ReftModel], Tensor], tmp_path: Path) -> None:
    """Neither for this process, which asks it again in evaluation, nor on disk for later ones."""
    base = build(lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**SHARED, attention_dropout=0.5)))
    set_cone(base, ConeConfig(disk_bytes=1 << 30, folder=tmp_path, base_sha256="ab" * 32))
    model = ReftModel(base, CONFIG, seed=1)
    base.train()
    assert not torch.equal(asked(model), asked(model))
    assert not any(tmp_path.rglob("*.safetensors"))
    base.eval()
    found = asked(model)
    assert any(tmp_path.rglob("*.safetensors"))
    set_cone(base, ConeConfig(enabled=False))
    torch.testing.assert_close(found, asked(model))


def test_files_of_another_config_are_not_read(tmp_path: Path) -> None:
    """The weights, and so their sha256, are the same."""
    for window in (4, 2):
        config = hf.MistralConfig(**SHARED, sliding_window=window)
        base = build(functools.partial(hf.MistralForCausalLM, config))
        set_cone(base, ConeConfig(disk_bytes=1 << 30, folder=tmp_path, base_sha256="ab" * 32))
        assert difference(ReftModel(base, CONFIG, seed=1), ROWS).within(1e-5)


def test_a_type_is_no_proof_where_tokens_look_ahead(caplog: pytest.LogCaptureFixture) -> None:
    base = build(
        lambda: hf.Gemma3ForCausalLM(
            hf.Gemma3TextConfig(
                **SHARED, sliding_window=4, head_dim=4, layer_types=MIXED, use_bidirectional_attention=True
            )
        )
    )
    model = ReftModel(base, CONFIG, seed=1)
    assert difference(model, ROWS).within(1e-5)
    assert "are others by its cone" in caplog.text


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_a_row_does_not_follow_from_the_others_of_its_batch(kind: str) -> None:
    """Positions of a row of 7 beside one of 40, or after it, where 16 were trained."""
    factors = {"short_factor": [1.0] * 2, "long_factor": [4.0] * 2} if kind == "longrope" else {}
    rope = {"rope_type": kind, "factor": 2.0, "rope_theta": 1e4, "original_max_position_embeddings": 16, **factors}
    shared = {**SHARED, "max_position_embeddings": 16}
    base = build(lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**shared, rope_parameters=rope)))
    model = ReftModel(base, CONFIG, seed=1)
    short, long = [1, 2, 3, 4, 5, 6, 7], [place % 30 for place in range(40)]
    alone = score_choices(model, [short], [(3,), (4, 5)], batch_size=2)
    beside = score_choices(model, [short, long], [(3,), (4, 5)], batch_size=2)
    after = score_choices(model, [short], [(3,), (4, 5)], batch_size=2)
    torch.testing.assert_close(beside[:1], alone)
    torch.testing.assert_close(after, alone)
