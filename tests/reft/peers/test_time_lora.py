"""LoRA that moves with a row's domain: where it starts, what it is without movement, and what each row gets of it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reft import AdapterInfo, Collator, Decoding, Encoded, score_choices
from reft.adapters.any_method import load_method, save_method
from reft.peers.lora import LoraConfig
from reft.peers.model import PeerModel
from reft.peers.time_lora import TimeLoraConfig, polynomials
from tests.reft.tiny import build_base, build_rows, prompts

LOW, HIGH = 1.0, 4.0
CONFIG = TimeLoraConfig((0, 2), ("q_proj", "v_proj", "down_proj"), rank=2, alpha=4.0, low=LOW, high=HIGH)
ROWS = build_rows(6)
# The batches of a row alone and beside longer ones differ in the order of sums, on logits of about 1.
ROUNDING = 2e-6


def build(base: nn.Module | None = None, config: TimeLoraConfig = CONFIG, *, loud: bool = True) -> PeerModel:
    """A model; a loud one is far from where training starts, and moves."""
    model = PeerModel(build_base() if base is None else base, config, seed=0)
    generator = torch.Generator().manual_seed(5)
    for name, value in model.trainable_parameters().items():
        if loud and not name.endswith(".A"):
            value.data = 0.3 * torch.randn(value.shape, generator=generator)
    return model


def at(*domains: float) -> list[Encoded]:
    """The rows, in these domains by turns."""
    return [replace(row, domain=domains[number % len(domains)]) for number, row in enumerate(ROWS)]


@torch.no_grad()
def losses(model: PeerModel, rows: list[Encoded]) -> Tensor:
    return model.row_losses(rows, 0)


def test_it_starts_at_the_base_in_every_domain() -> None:
    model = build(loud=False)
    with model.disabled():
        frozen = losses(model, ROWS)
    for domain in (LOW, 2.2, HIGH, 9.0):
        assert torch.equal(losses(model, at(domain)), frozen)


def test_without_movement_it_is_lora_with_the_same_matrices() -> None:
    base = build_base()
    still = build(base)
    lora = PeerModel(base, LoraConfig(CONFIG.layers, CONFIG.targets, CONFIG.rank, CONFIG.alpha), seed=0)
    theirs, own = lora.trainable_parameters(), still.trainable_parameters()
    with torch.no_grad():
        for name, value in own.items():
            module, _, key = name.rpartition(".")
            if key == "C":
                value.zero_()
            else:
                theirs[f"{module}.lora_{key}.weight"].copy_(value)
    assert len(theirs) == 2 * len(own) / 3
    assert torch.equal(losses(still, at(1.0, 2.5, 4.0)), losses(lora, ROWS))
    assert not torch.equal(losses(build(base), at(1.0, 2.5, 4.0)), losses(lora, ROWS))


def test_another_domain_is_another_output_and_of_mixed_ones_each_row_has_its_own() -> None:
    model = build()
    low, middle, high = (losses(model, at(domain)) for domain in (1.0, 2.5, 4.0))
    assert not torch.allclose(low, middle, atol=1e-3)
    assert not torch.allclose(middle, high, atol=1e-3)
    rows = at(1.0, 2.5, 4.0, 3.3)
    for mixed in (rows, rows[::-1]):
        alone = torch.cat([losses(model, [row]) for row in mixed])
        torch.testing.assert_close(losses(model, mixed), alone, rtol=0, atol=ROUNDING)


def test_the_output_of_a_module_is_the_formula() -> None:
    base = build_base().double()
    model = build(base)
    name = "model.layers.0.self_attn.q_proj"
    inner = base.get_submodule(name)
    a, b, c = (model.trainable_parameters()[f"{name}.{key}"].detach().double() for key in "ABC")
    x = torch.randn(3, 5, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    t = torch.tensor([1.0, 1.75, 4.0], dtype=torch.float64)
    for value in model.trainable_parameters().values():
        value.data = value.data.double()
    with torch.no_grad(), model.part.on(torch.zeros(3), t):
        got = base.get_submodule(name)(x)
    for row, s in enumerate((-1.0, -0.5, 1.0)):  # of 1 to 4, scaled to -1 to 1
        core = torch.eye(2, dtype=torch.float64) + s * c[0] + (2 * s**2 - 1) * c[1]
        weight = inner.weight + CONFIG.alpha / CONFIG.rank * b @ core @ a
        torch.testing.assert_close(got[row], x[row] @ weight.T, rtol=0, atol=1e-12)


def test_the_polynomials_are_chebyshevs() -> None:
    config = replace(CONFIG, degree=5)
    t = torch.linspace(LOW, HIGH, 7, dtype=torch.float64)
    angle = torch.arccos(torch.linspace(-1, 1, 7, dtype=torch.float64))
    expected = torch.stack([torch.cos(k * angle) for k in range(1, 6)], dim=-1)
    torch.testing.assert_close(polynomials(t, config), expected, rtol=0, atol=1e-12)


def test_a_domain_outside_the_trained_range_is_read_as_the_nearer_end() -> None:
    model = build()
    assert torch.equal(losses(model, at(-1e9)), losses(model, at(LOW)))
    assert torch.equal(losses(model, at(1e9)), losses(model, at(HIGH)))


def test_the_range_may_be_of_time_stamps() -> None:
    """Their neighbours differ by less than a float32 of that size can say."""
    config = replace(CONFIG, low=1.7e9, high=1.7e9 + 60)
    model = build(config=config)
    one, other = losses(model, at(1.7e9 + 20)), losses(model, at(1.7e9 + 21))
    assert not torch.allclose(one, other, atol=1e-5)
    shifted = build()
    torch.testing.assert_close(one, losses(shifted, at(2.0)), rtol=0, atol=ROUNDING)


def test_gradients_of_every_part_are_those_of_finite_differences() -> None:
    """On GPT-2, whose norms compute in float64 where the model does: Llama's go by float32."""
    model = build(build_base("gpt2").double(), replace(CONFIG, targets=("all-linear",)))
    for value in model.trainable_parameters().values():
        value.data = value.data.double()
    batch = Collator(0)(at(1.0, 2.0, 3.7))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        weights = torch.randn(model.logits(batch).shape, dtype=torch.float64, generator=generator)

    def total() -> Tensor:
        return (model.logits(batch) * weights).sum()

    total().backward()
    step = 1e-5
    for name, value in model.trainable_parameters().items():
        assert value.grad is not None
        place = int(value.grad.abs().argmax())
        flat = value.data.view(-1)
        before = flat[place].item()
        ends = []
        for sign in (1, -1):
            flat[place] = before + sign * step
            with torch.no_grad():
                ends.append(total().item())
        flat[place] = before
        assert value.grad.view(-1)[place].item() == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5), name


def test_layers_that_run_again_have_the_domains_of_their_own_batch() -> None:
    """The backward pass comes after two forward passes in different domains."""
    gradients = []
    for again in (False, True):
        model = build()
        model.gradient_checkpointing = again
        first, second = (model.row_losses(rows, 0).sum() for rows in (at(1.0, 4.0), at(2.5)))
        (first + 2 * second).backward()
        gradients.append([value.grad for value in model.trainable_parameters().values()])
    plain, run_again = gradients
    assert all(torch.equal(one, other) for one, other in zip(plain, run_again, strict=True))
    assert all(bool(value.any()) for value in plain)


@pytest.mark.parametrize("family", ["gpt2", "opt", "falcon", "gemma3"])
def test_other_families_give_each_row_its_own_in_any_batch(family: str) -> None:
    """OPT's perceptron reads the tokens of all rows as one list; GPT-2's weights are transposed."""
    model = build(build_base(family), replace(CONFIG, targets=("all-linear",)))
    rows = at(1.0, 2.5, 4.0)
    alone = torch.cat([losses(model, [row]) for row in rows])
    torch.testing.assert_close(losses(model, rows), alone, rtol=0, atol=2e-5)
    assert not torch.allclose(losses(model, at(1.0)), losses(model, at(4.0)), atol=1e-3)


def test_beams_and_samples_of_a_prompt_have_its_domain() -> None:
    model = build()
    ids, mask = prompts([5, 3])
    domains = torch.tensor([1.0, 4.0])
    for how in ({"num_beams": 3, "num_return_sequences": 2}, {"num_beams": 2}):
        together = model.generate(ids, mask, Decoding(5, pad_token_id=0, **how), domains=domains)
        each = how.get("num_return_sequences", 1)
        for row, width in ((0, 5), (1, 3)):
            own = slice(5 - width, None)
            alone = model.generate(
                ids[row : row + 1, own], mask[row : row + 1, own], Decoding(5, pad_token_id=0, **how),
                domains=domains[row : row + 1],
            )  # fmt: skip
            assert torch.equal(together[row * each : (row + 1) * each, own], alone)
    apart = [model.generate(ids, mask, Decoding(5, pad_token_id=0), domains=torch.full((2,), t)) for t in (1.0, 4.0)]
    assert not torch.equal(*apart)


def test_scores_are_of_each_prompts_own_domain() -> None:
    """Prompts are run in order of length, and longer choices after them."""
    model, choices = build(), [(1,), (2, 3)]
    asked, domains = [row.prompt_ids for row in ROWS], [1.0, 4.0, 2.0, 3.5, 1.2, 2.7]
    assert len({len(prompt) for prompt in asked}) > 2
    expected = [
        [-losses(model, [Encoded((*prompt, *choice), len(prompt), domain=t)]).sum().item() for choice in choices]
        for prompt, t in zip(asked, domains, strict=True)
    ]
    found = score_choices(model, asked, choices, batch_size=4, domains=domains)
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="each prompt has a domain of its own; got 5 for 6"):
        score_choices(model, asked, choices, batch_size=4, domains=domains[1:])


def test_a_half_precision_base_keeps_its_dtype() -> None:
    model = build(build_base().to(torch.bfloat16))
    batch = Collator(0)(at(1.0, 2.0))
    with torch.no_grad():
        assert model.logits(batch).dtype == torch.bfloat16
    assert {value.dtype for value in model.trainable_parameters().values()} == {torch.float32}


def test_a_saved_adapter_has_its_range_and_the_same_bits(tmp_path: Path) -> None:
    model = build()
    save_method(model, tmp_path / "adapter", AdapterInfo("b" * 64, "hub:tiny", "d" * 64, {}, 0))
    assert sorted(file.name for file in (tmp_path / "adapter").iterdir()) == [
        "adapter.safetensors",
        "adapter_config.json",
    ]
    loaded = load_method(tmp_path / "adapter", model.base, base_sha256="b" * 64)
    assert loaded.config == CONFIG
    with torch.no_grad():
        assert torch.equal(loaded.row_losses(at(1.2, 3.9), 0), losses(model, at(1.2, 3.9)))


@pytest.mark.parametrize("domain", [math.nan, math.inf, "2019", True])
def test_a_row_without_a_finite_number_is_refused(domain: Any) -> None:
    with pytest.raises(ValueError, match=r"a row's domain is a finite number; got .*; correct it"):
        replace(ROWS[0], domain=domain)


def test_a_missing_domain_is_refused() -> None:
    model, rows = build(), at(1.0, 2.0)
    with pytest.raises(ValueError, match=r"reads a domain t of each row; got none; .*prepare.domain_column"):
        losses(model, ROWS)
    with pytest.raises(ValueError, match="either all rows of a batch have a domain or none; got none for row 1 of 2"):
        losses(model, [rows[0], ROWS[1]])
    ids, mask = prompts([5, 3])
    with pytest.raises(ValueError, match="got 1 for 2 rows"):
        model.generate(ids, mask, Decoding(2, pad_token_id=0), domains=torch.ones(1))
    with pytest.raises(ValueError, match="got nan for row 1"):
        model.generate(ids, mask, Decoding(2, pad_token_id=0), domains=torch.tensor([1.0, math.nan]))
    with model.disabled():
        assert losses(model, ROWS).isfinite().all()


def test_a_module_that_may_see_some_tokens_alone_is_refused() -> None:
    base = build_base()
    base.get_submodule("model.layers.0").experts = nn.ModuleList([nn.Linear(16, 16)])
    every = replace(CONFIG, targets=("all-linear",))
    for made in (lambda: build(base, every), lambda: every.count(base)):
        with pytest.raises(ValueError, match=r"must run on every token.*got model.layers.0.experts.0"):
            made()
    assert replace(every, layers=(1, 2)).count(base) > 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"degree": 0}, "degree must be an integer of at least 1; got 0"),
        ({"low": 4.0}, "low below high; got 4.0 and 4.0"),
        ({"high": math.inf}, "must be finite, with low below high; got 1.0 and inf"),
        ({"low": math.nan}, "must be finite"),
        ({"rank": 0}, "rank must be an integer of at least 1"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\)"),
    ],
)
def test_a_config_that_cannot_be_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(CONFIG, **changes)
