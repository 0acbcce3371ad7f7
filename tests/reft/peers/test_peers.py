"""The rivals of ReFT over a tiny decoder: ReftModel's interface, in any batch, saved, loaded and resumed."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reft import (
    AdapterInfo,
    CausalModel,
    Collator,
    Decoding,
    Encoded,
    FitConfig,
    ReftConfig,
    ReftModel,
    adapter_sha256,
    fit,
    load_adapter,
    score_choices,
)
from reft.adapters.any_method import MethodModel, build_method, load_method, read_info, save_method
from reft.peers.full import FullConfig
from reft.peers.lora import LoraConfig
from reft.peers.methods import PeerConfig, config_from_dict
from reft.peers.model import PeerModel
from reft.peers.parts import PartConfig
from reft.peers.stacked import StackedConfig, StackedModel, Turns, fit_in_turn
from reft.peers.table import METHODS
from reft.peers.time_lora import TimeLoraConfig
from reft.peers.virtual import PrefixConfig, PromptConfig
from tests.reft.tiny import build_base, build_rows, prompts

LORA = LoraConfig((0, 2), ("q_proj", "v_proj"), rank=2, alpha=4.0, dropout=0.25)
CONFIGS: dict[str, PeerConfig] = {
    "lora": LORA,
    "dora": LoraConfig((1,), ("all-linear",), rank=2, alpha=4.0, decomposed=True),
    "time_lora": TimeLoraConfig((0, 2), ("q_proj", "v_proj"), rank=2, alpha=4.0, low=1.0, high=4.0, dropout=0.25),
    "prompt": PromptConfig(3),
    "prefix": PrefixConfig(3, width=8),
    "p_tuning_v2": PrefixConfig(3),
    "full": FullConfig((0, 1, 2)),
    "lora_then_reft": StackedConfig(LORA, ReftConfig((1, 2), "f1+l1", 2)),
}
SHA, INFO = "b" * 64, AdapterInfo("b" * 64, "hub:tiny", "d" * 64, {"template": "{text}"}, 0)
ROWS = build_rows(8)
TIMED = [replace(row, domain=1.0 + 3 * number / 7) for number, row in enumerate(ROWS)]
# The batches of a row alone and beside longer ones differ in the order of sums, on logits of about 1.
ROUNDING = 2e-6


def rows_of(method: str) -> list[Encoded]:
    """The rows, for a method that reads their domains with them."""
    return TIMED if method == "time_lora" else ROWS


def domains_of(method: str) -> dict[str, Tensor]:
    """Of three prompts, as generation takes them."""
    return {"domains": torch.tensor([1.5, 4.0, 2.0], dtype=torch.float64)} if method == "time_lora" else {}


def settings(**changes: Any) -> FitConfig:
    numbers: dict[str, Any] = {
        "epochs": 2, "batch_size": 4, "accumulation": 1, "learning_rate": 1e-2, "warmup_ratio": 0.1,
        "weight_decay": 0.01, "max_grad_norm": 1.0, "seed": 1, "checkpoint_every": 1,
    }  # fmt: skip
    return FitConfig(**{**numbers, **changes})


def trained(
    method: str, *, base: nn.Module | None = None, folder: Path | None = None, steps: int = 4, **changes: Any
) -> tuple[MethodModel, list[float]]:
    """A model after so many of its four steps, and their losses."""
    model = build_method(build_base() if base is None else base, CONFIGS[method], seed=0)
    how = settings(**changes)
    if isinstance(model, StackedModel):
        found = fit_in_turn(model, rows_of(method), Turns(how, how, 0.5), pad_id=0, checkpoint=folder)
    else:
        found = fit(model, rows_of(method), how, pad_id=0, checkpoint=folder)
    losses = []
    for step in found:
        losses.append(step.loss)
        assert (step.step, step.total_steps, step.epoch) == (len(losses), 4, (len(losses) - 1) // 2)
        if step.step == steps:
            break
    return model, losses


@torch.no_grad()
def losses_of(model: MethodModel) -> Tensor:
    return model.row_losses(rows_of(model.config.method), 0)


def same_numbers(one: MethodModel, other: MethodModel) -> bool:
    theirs = other.trainable_parameters()
    return all(torch.equal(value, theirs[name]) for name, value in one.trainable_parameters().items())


def test_every_rival_is_here() -> None:
    assert tuple(CONFIGS) == METHODS


@pytest.mark.parametrize("method", METHODS)
def test_a_rival_has_a_strength_or_says_that_it_has_none(method: str) -> None:
    """0 is the base and 1 the rival as trained, bit for bit; what is not added to the base's work cannot be halved."""
    model, _ = trained(method)
    batch = Collator(0)(rows_of(method))
    with torch.no_grad():
        whole = model.logits(batch)
        with model.disabled():
            base = model.logits(batch)
        if not CONFIGS[method].adds:
            for scale in (0, 0.5):
                with pytest.raises(ValueError, match=f"what {method} trains is not added"):
                    model.scale = scale
        else:
            found = {}
            for scale in (0, 1, 0.5):
                with model.at_scale(scale):
                    found[scale] = model.logits(batch)
            assert torch.equal(found[0], base)
            assert torch.equal(found[1], whole)
            assert not torch.equal(found[0.5], base)
            assert not torch.equal(found[0.5], whole)
        assert model.scale == 1
        assert torch.equal(model.logits(batch), whole)


@pytest.mark.parametrize("method", [method for method in METHODS if CONFIGS[method].adds])
def test_zero_is_a_wider_base_bit_for_bit(method: str) -> None:
    """An fp64 base, and what is trained in fp32."""
    model, _ = trained(method)
    model.base.double()
    batch = Collator(0)(rows_of(method))
    with torch.no_grad(), model.disabled():
        base = model.logits(batch)
    with torch.no_grad(), model.at_scale(0):
        assert torch.equal(model.logits(batch), base)


def test_each_part_of_a_stack_has_its_own_strength_again() -> None:
    model, _ = trained("lora_then_reft")
    assert isinstance(model, StackedModel)
    model.lora.scale, model.reft.scale = 0.5, 2
    batch = Collator(0)(ROWS)
    with torch.no_grad():
        own = model.logits(batch)
        with model.at_scale(0), model.disabled():
            base = model.logits(batch)
        with model.at_scale(0):
            assert (model.lora.scale, model.reft.scale, model.scale) == (0, 0, 0)
            assert torch.equal(model.logits(batch), base)
        assert (model.lora.scale, model.reft.scale, model.scale) == (0.5, 2, 1)
        assert torch.equal(model.logits(batch), own)


@pytest.mark.parametrize("method", METHODS)
def test_a_rival_trains_and_leaves_the_base_as_it_was(method: str) -> None:
    base = build_base()
    before = {name: value.clone() for name, value in base.state_dict().items()}
    frozen = ReftModel(base, ReftConfig((0,), "l1", 1), seed=0)
    batch = Collator(0)(rows_of(method))
    with torch.no_grad(), frozen.disabled():
        alone = frozen.logits(batch)
    model, losses = trained(method, base=base)
    assert losses[2] < losses[0]
    assert losses[3] < losses[1]
    after = base.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert not base.training
    assert [name for name, value in base.named_parameters() if value.requires_grad] == []
    with torch.no_grad(), model.disabled():
        assert torch.equal(model.logits(batch), alone)
    with torch.no_grad():
        assert not torch.allclose(model.logits(batch), alone)


@pytest.mark.parametrize("method", METHODS)
def test_a_row_is_read_the_same_alone_and_beside_longer_ones(method: str) -> None:
    model, _ = trained(method)
    together = losses_of(model)
    with torch.no_grad():
        alone = torch.cat([model.row_losses([row], 0) for row in rows_of(method)])
    torch.testing.assert_close(alone, together, rtol=0, atol=ROUNDING)
    asked, choices = [row.prompt_ids for row in ROWS], [(1,), (2, 3)]
    domains = [row.domain for row in rows_of(method)]
    one, many = (score_choices(model, asked, choices, batch_size=size, domains=domains) for size in (1, 8))
    torch.testing.assert_close(one, many, rtol=0, atol=2 * ROUNDING)
    right = Collator(0, padding_side="right")(rows_of(method))
    with torch.no_grad():
        assert model.logits(right).shape == (*right.input_ids.shape, 61)
        torch.testing.assert_close(model.target_losses(right), together, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("method", METHODS)
def test_every_way_of_decoding_gives_the_same_text(method: str) -> None:
    model, _ = trained(method)
    ids, mask = prompts([5, 3, 7])
    domains = domains_of(method)

    def text(**how: Any) -> Tensor:
        return model.generate(ids, mask, Decoding(6, pad_token_id=0, **how), **domains)

    plain = text()
    assert torch.equal(plain[:, : ids.shape[1]], ids)
    assert torch.equal(text(use_cache=False), plain)
    assert torch.equal(text(prefill_chunk_size=4), plain)
    own = {name: values[1:2] for name, values in domains.items()}
    alone = model.generate(ids[1:2, 4:], mask[1:2, 4:], Decoding(6, pad_token_id=0), **own)
    assert torch.equal(alone[0, 3:], plain[1, 7:])
    assert text(num_beams=2, num_return_sequences=2).shape == (6, 13)


@pytest.mark.parametrize("method", METHODS)
def test_running_layers_again_gives_the_same_gradients(method: str) -> None:
    plain, losses = trained(method)
    again, same = trained(method, gradient_checkpointing=True)
    assert losses == same
    assert same_numbers(plain, again)


@pytest.mark.parametrize("method", METHODS)
def test_a_stopped_training_goes_on_with_the_same_bits(method: str, tmp_path: Path) -> None:
    whole, losses = trained(method)
    trained(method, folder=tmp_path, steps=3)
    resumed, told = trained(method, folder=tmp_path)
    assert told == losses
    assert same_numbers(resumed, whole)


@pytest.mark.parametrize("method", METHODS)
def test_an_adapter_loads_with_the_same_bits_and_on_its_base_alone(method: str, tmp_path: Path) -> None:
    model, _ = trained(method)
    path = tmp_path / "adapter"
    sha256 = save_method(model, path, INFO)
    assert adapter_sha256(path) == sha256 == save_method(model, tmp_path / "again", INFO)
    assert not [file for file in path.rglob("*") if file.suffix in (".bin", ".pt", ".pkl")]
    loaded = load_method(path, model.base, base_sha256=SHA)
    assert torch.equal(losses_of(loaded), losses_of(model))
    assert (read_info(path), loaded.form()) == (INFO, model.form())
    with pytest.raises(ValueError, match=r"loads on the base it was trained on, hub:tiny .*; got c+; load that base"):
        load_method(path, model.base, base_sha256="c" * 64)
    with pytest.raises(ValueError, match="use load_method"):
        load_adapter(path, model.base, base_sha256=SHA)
    tensors = next(file for file in path.rglob("*.safetensors"))
    tensors.write_bytes(tensors.read_bytes()[:-1] + b"\1")
    with pytest.raises(ValueError, match="must have the sha256 in adapter_config"):
        load_method(path, model.base, base_sha256=SHA)


@pytest.mark.parametrize(
    "method", [method for method in METHODS if method not in ("full", "time_lora", "lora_then_reft")]
)
def test_peft_itself_reads_the_adapter_and_computes_the_same(method: str, tmp_path: Path) -> None:
    from peft import PeftModel

    model, _ = trained(method)
    save_method(model, tmp_path / "adapter", INFO)
    theirs = PeftModel.from_pretrained(build_base(), str(tmp_path / "adapter" / "peft")).eval()
    ids = torch.tensor([ROWS[0].input_ids])
    with torch.no_grad():
        expected = theirs(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, -ids.shape[1] :]
        got = model.logits(Collator(0)(ROWS[:1]))
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_numbers_are_counted_without_building_them(method: str) -> None:
    base, config = build_base(), CONFIGS[method]
    counted = build_method(base, config, seed=0).num_trainable()
    with torch.device("meta"):
        skeleton = type(base)(base.config)
    part = config.lora if isinstance(config, StackedConfig) else config
    edits = ReftModel(base, config.reft, seed=0).num_trainable() if isinstance(config, StackedConfig) else 0
    assert isinstance(part, PartConfig)
    assert part.count(skeleton) + edits == counted


def test_the_seed_decides_where_training_starts() -> None:
    base = build_base()
    for method in ("lora", "time_lora", "prompt", "prefix"):
        one, same, other = (build_method(base, CONFIGS[method], seed=seed) for seed in (0, 0, 1))
        assert same_numbers(one, same)
        assert not same_numbers(one, other)


def test_reft_on_top_of_lora_changes_no_number_of_lora(tmp_path: Path) -> None:
    first, _ = trained("lora_then_reft", steps=2)
    model, _ = trained("lora_then_reft")
    assert isinstance(first, StackedModel)
    assert isinstance(model, StackedModel)
    start = StackedModel(build_base(), model.config, seed=0)
    assert same_numbers(first.reft, start.reft)
    assert not same_numbers(model.reft, start.reft)
    assert same_numbers(model.lora, first.lora)
    assert not same_numbers(model.lora, start.lora)


def test_reft_on_top_of_lora_goes_on_only_from_a_turn_on_the_same_lora(tmp_path: Path) -> None:
    """LoRA's turn is gone and begins anew at another rate: ReFT's checkpoint is of another LoRA, and is refused."""
    config = CONFIGS["lora_then_reft"]

    def run(rate: float) -> None:
        model = StackedModel(build_base(), config, seed=0)
        turns = Turns(settings(learning_rate=rate), settings(), 0.5)
        list(fit_in_turn(model, ROWS, turns, pad_id=0, checkpoint=tmp_path))

    assert isinstance(config, StackedConfig)
    run(1e-2)
    shutil.rmtree(tmp_path / "lora")
    run(1e-2)  # the same LoRA, bit for bit
    shutil.rmtree(tmp_path / "lora")
    with pytest.raises(ValueError, match="of the same inputs alone"):
        run(2e-2)


def test_the_cone_is_not_used_where_its_constants_do_not_hold() -> None:
    """The edits' cone on the base alone gives other losses than on the base with LoRA in it, which must be taken."""
    model, _ = trained("lora_then_reft")
    assert isinstance(model, StackedModel)
    without = model.reft.row_losses(ROWS, 0)
    assert not torch.allclose(losses_of(model), without, atol=1e-3)
    batch = Collator(0)(ROWS)
    with torch.no_grad(), model.lora.part.on():
        torch.testing.assert_close(
            losses_of(model), CausalModel.target_losses(model.reft, batch), rtol=0, atol=ROUNDING
        )


def test_weight_decay_pulls_matrices_alone() -> None:
    kinds = {
        "lora": {"lora_A", "lora_B"}, "dora": {"lora_A", "lora_B"}, "time_lora": {".A", ".B", ".C"}, "prompt": set(),
        "prefix": {"transform"}, "p_tuning_v2": set(),
    }  # fmt: skip
    for method, kind in kinds.items():
        model = build_method(build_base(), CONFIGS[method], seed=0)
        decaying = model.decaying_parameters()
        assert all(any(part in name for part in kind) for name in decaying)
        assert bool(decaying) == bool(kind)
        assert all(value.ndim > 1 for name, value in model.trainable_parameters().items() if name in decaying)
    full = build_method(build_base(), CONFIGS["full"], seed=0)
    assert not any("norm" in name for name in full.decaying_parameters())


def test_a_config_comes_back_from_its_dictionary() -> None:
    for config in CONFIGS.values():
        assert config_from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match="did you mean rank"):
        config_from_dict({**LORA.to_dict(), "rnak": 3})
    with pytest.raises(ValueError, match="a method is one of lora, dora"):
        config_from_dict({"method": "lorra"})
    with pytest.raises(ValueError, match=r"with low below high; got 2\.0 and 2\.0"):
        config_from_dict({**CONFIGS["time_lora"].to_dict(), "low": 2.0, "high": 2.0})


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (LoraConfig((0, 7), ("q_proj",), 2, 4.0), "layers must be below 3"),
        (LoraConfig((0,), ("q_porj",), 2, 4.0), "got 'q_porj'; did you mean 'q_proj'"),
        (TimeLoraConfig((0,), ("q_porj",), 2, 4.0, low=0.0, high=1.0), "got 'q_porj'; did you mean 'q_proj'"),
        (FullConfig((7,)), "layers must be below 3"),
    ],
)
def test_what_the_base_does_not_have_is_refused(config: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        PeerModel(build_base(), config, seed=0)


@pytest.mark.parametrize(
    ("family", "method"),
    [
        ("gpt2", "lora"), ("gpt2", "prompt"), ("opt", "prompt"), ("opt", "p_tuning_v2"), ("mistral", "prompt"),
        ("gemma2", "prompt"), ("qwen3", "p_tuning_v2"), ("falcon", "lora"),
    ],
)  # fmt: skip
def test_other_families_are_read_the_same_in_any_batch(family: str, method: str) -> None:
    """Mistral and Gemma 2 look at a window of four columns, which padding beside the virtual tokens would fill."""
    config = CONFIGS[method]
    if isinstance(config, LoraConfig):
        config = LoraConfig((0, 2), ("all-linear",), rank=2, alpha=4.0)
    model = build_method(build_base(family), config, seed=0)
    with torch.no_grad():
        alone = torch.cat([model.row_losses([row], 0) for row in ROWS])
    torch.testing.assert_close(alone, losses_of(model), rtol=0, atol=1e-5)
    ids, mask = prompts([5, 3, 7])
    first = model.generate(ids, mask, Decoding(4, pad_token_id=0))
    assert torch.equal(model.generate(ids, mask, Decoding(4, pad_token_id=0, use_cache=False)), first)


def test_a_window_that_would_pass_over_kept_keys_is_refused() -> None:
    model = build_method(build_base("mistral"), CONFIGS["p_tuning_v2"], seed=0)
    with pytest.raises(ValueError, match="and a window of 4; shorten the rows"):
        losses_of(model)


def test_a_streamer_is_told_of_the_prompt_and_the_text_alone() -> None:
    class Told:
        def __init__(self) -> None:
            self.ids: list[int] = []

        def put(self, value: Tensor) -> None:
            self.ids += value.flatten().tolist()

        def end(self) -> None:
            pass

    model, told = build_method(build_base(), CONFIGS["prompt"], seed=0), Told()
    ids, mask = prompts([5])
    text = model.generate(ids, mask, Decoding(3, pad_token_id=0), streamer=told)
    assert told.ids == text[0].tolist()


def test_p_tuning_v2_starts_nearer_to_the_base_than_peft_would() -> None:
    """Keys and values of unit size, as PEFT draws them, outweigh the base's own."""
    model = build_method(build_base("llama"), CONFIGS["p_tuning_v2"], seed=0)
    [table] = model.trainable_parameters().values()
    assert table.std().item() == pytest.approx(0.02, rel=0.1)
    batch = Collator(0)([Encoded((3, 4, 5, 6, 7), 4)])
    with torch.no_grad():
        near = model.logits(batch)
        table.data.mul_(50)
        far = model.logits(batch)
        with model.disabled():
            base = model.logits(batch)
    assert 2 * (near - base).norm() < (far - base).norm()
