"""Losses, gradients and scores by the cone are those of whole rows; what would make them others is seen."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import reft.cone.decoder
from reft.cone.compute import Prompts
from reft.cone.constants import Constants
from reft.cone.decoder import PROVED, Cone
from reft.cone.keeper import ConeConfig, keeper_of, set_cone
from reft.cone.prefix_cache import PrefixCache
from reft.data import Encoded
from reft.edits.config import LayerOverride, ReftConfig
from reft.edits.methods.table import METHOD_NAMES
from reft.models.decoder import ReftModel
from reft.models.decoding import Decoding
from reft.models.scoring import score_choices
from reft.training.fit import fit
from reft.training.schedule import FitConfig
from tests.reft.agreement import difference
from tests.reft.families import DECODERS, build
from tests.reft.tiny import LAYERS, VOCABULARY, build_base, build_rows, rank_of

# These take the softmax of attention in fp32 whatever they run in, or their experts have no fp64.
SINGLE = ("bloom", "gemma2", "gpt_oss", "mixtral")
ROWS = build_rows(5, seed=3)


@functools.cache
def base_of(family: str, dtype: torch.dtype) -> Any:
    """A base that the tests share; what it keeps is set anew by each."""
    return build(DECODERS[family]).to(dtype)


def model_of(
    family: str, config: ReftConfig, dtype: torch.dtype = torch.float64, *, cone: ConeConfig | None = None
) -> ReftModel:
    base = base_of(family, dtype)
    set_cone(base, cone or ConeConfig())
    model = ReftModel(base, config, seed=1)
    if dtype == torch.float64:
        model.interventions.double()
    return model


def paper(layers: tuple[int, ...], positions: str, rank: int = 2, **more: Any) -> ReftConfig:
    return ReftConfig(layers, positions, rank, **{"init": "paper", **more})


def test_every_proved_type_is_compared() -> None:
    assert {base_of(family, torch.float32).config.model_type for family in DECODERS} == PROVED


@pytest.mark.parametrize("family", sorted(DECODERS))
@pytest.mark.parametrize(
    "config",
    [
        paper((0, 1, 2), "l2"),
        paper((1, 2), "f1+l2", tied=False),
        paper((0, 1, 2), "g2"),
        paper((0, 2), "all+g1", tied=False),
    ],
    ids=lambda config: config.positions,
)
def test_losses_and_gradients_are_those_of_whole_rows(family: str, config: ReftConfig) -> None:
    dtype, bound = (torch.float32, 1e-5) if family in SINGLE else (torch.float64, 1e-9)
    found = difference(model_of(family, config, dtype), ROWS)
    assert found.within(bound), found


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "falcon"])
@pytest.mark.parametrize("positions", ["l3", "all", "l1+g2"])
def test_they_are_in_the_precision_of_training_too(family: str, positions: str) -> None:
    found = difference(model_of(family, paper((0, 2), positions), torch.float32), ROWS)
    assert found.within(1e-5), found


def test_a_bf16_base_agrees_to_its_own_rounding() -> None:
    model = model_of("llama", paper((0, 2), "l2"), torch.bfloat16)
    found = difference(model, ROWS)
    assert found.within(0.1), found
    dtypes = {tensor.dtype for constants in kept_by(model) for tensor in constants.tensors().values()}
    assert dtypes == {torch.bfloat16}


@st.composite
def configs(draw: st.DrawFn) -> ReftConfig:
    """Any form that a config may have, on three layers."""
    layers = tuple(sorted(draw(st.sets(st.integers(0, LAYERS - 1), min_size=1))))
    counts = st.integers(1, 4)
    prompts = st.one_of(
        st.builds("l{}".format, counts),
        st.builds("f{}".format, counts),
        st.builds("f{}+l{}".format, counts, counts),
        st.sampled_from(["all", "spans", "2:4", "0:1,3:5", "4:9"]),
    )
    positions = st.one_of(prompts, st.builds("g{}".format, counts), st.builds("{}+g{}".format, prompts, counts))
    overridden = sorted(draw(st.sets(st.sampled_from(layers))))
    ranks = st.none() | st.integers(1, 3)
    method = draw(st.sampled_from(METHOD_NAMES))
    if rank_of(method, 1) is None:
        ranks = st.none()
    return ReftConfig(
        layers,
        draw(positions),
        rank_of(method, draw(st.integers(1, 3))),
        method=method,
        init="paper",
        tied=draw(st.booleans()),
        overrides=tuple(LayerOverride(layer, draw(ranks), draw(st.none() | positions)) for layer in overridden),
    )


@st.composite
def batches(draw: st.DrawFn) -> list[Encoded]:
    """Rows of any lengths, with spans of their own."""
    rows = []
    for _ in range(draw(st.integers(1, 4))):
        prompt, completion = draw(st.integers(1, 11)), draw(st.integers(1, 4))
        ids = draw(st.lists(st.integers(0, VOCABULARY - 1), min_size=prompt + completion, max_size=prompt + completion))
        start = draw(st.integers(0, prompt - 1))
        rows.append(Encoded(tuple(ids), prompt, ((start, draw(st.integers(start + 1, prompt))),)))
    return rows


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(
    family=st.sampled_from(["llama", "gemma3_text", "gpt2"]),
    config=configs(),
    rows=batches(),
    checkpointing=st.booleans(),
    small=st.booleans(),
    memory=st.sampled_from([0, 3_000, 1 << 30]),
)
def test_any_form_positions_and_batch(
    family: str, config: ReftConfig, rows: list[Encoded], checkpointing: bool, small: bool, memory: int
) -> None:
    model = model_of(family, config, cone=ConeConfig(memory_bytes=memory))
    model.gradient_checkpointing = checkpointing
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reft.cone.decoder, "is_small", lambda *_: small)  # either attention
        found = difference(model, rows)
    assert max(found.loss, found.gradient) <= 1e-9, found


def planted(base: Any, error: str, patch: pytest.MonkeyPatch) -> None:
    """Plant an error in the passes behind kept keys."""
    run = reft.cone.decoder.run_behind
    if error == "position":
        forward = base.forward

        @functools.wraps(forward)
        def shifted(*, position_ids: Tensor, past_key_values: PrefixCache | None = None, **more: Any) -> Any:
            behind = past_key_values is not None and past_key_values.get_seq_length() > 0
            return forward(position_ids=position_ids + behind, past_key_values=past_key_values, **more)

        def moved(base: Any, *given: Any) -> Tensor:
            with pytest.MonkeyPatch.context() as inner:  # for the pass alone: a base with another forward is noticed
                inner.setattr(base, "forward", shifted)
                return run(base, *given)

        patch.setattr(reft.cone.decoder, "run_behind", moved)
        return

    def masked(base: Any, input_ids: Tensor, mask: Tensor, cache: PrefixCache) -> Tensor:
        changed = mask.clone()
        if mask.shape[1] > input_ids.shape[1]:
            changed[:, mask.shape[1] - input_ids.shape[1] - 1] = 0
        return run(base, input_ids, changed, cache)

    patch.setattr(reft.cone.decoder, "run_behind", masked)


@pytest.mark.parametrize(
    ("family", "error"),
    [
        ("llama", "position"),
        ("llama", "mask"),
        ("gemma3_text", "position"),
        ("gemma3_text", "mask"),
        ("gpt2", "mask"),  # its positions are in the embeddings, which do not run
    ],
)
def test_a_planted_error_is_seen(family: str, error: str) -> None:
    model = model_of(family, paper((0, 1), "l2"))
    assert difference(model, ROWS).within(1e-9)
    with pytest.MonkeyPatch.context() as patch:
        planted(model.base, error, patch)
        found = difference(model, ROWS)
    assert found.gradient > 1e-5, found


@pytest.mark.parametrize("part", ["hidden", "keys"])
def test_a_stale_constant_is_seen(part: str) -> None:
    model = model_of("llama", paper((0, 1), "l2"))
    assert difference(model, ROWS).within(1e-9)
    for constants in kept_by(model):
        if part == "hidden":
            constants.outputs[0, ()].mul_(1.001)
        elif constants.keys_values is not None:
            constants.keys_values.mul_(1.001)
    assert difference(model, ROWS).gradient > 1e-6


def kept_by(model: ReftModel) -> list[Constants]:
    store = keeper_of(model.base).store(model.base)
    assert store is not None
    return [entry.constants for entry in store._kept.values()]


def test_constants_are_used_again_and_dropped_when_the_base_changes() -> None:
    base = build_base()
    model = ReftModel(base, paper((0, 1), "l2"), seed=1)
    assert difference(model, ROWS).within(1e-5)
    first = kept_by(model)
    other = ReftModel(base, paper((0, 2), "l2", 1), seed=2)
    assert difference(other, ROWS).within(1e-5)
    assert all(one is other for one, other in zip(first, kept_by(other), strict=True))
    with torch.no_grad():
        next(base.parameters()).mul_(1.5)
    assert difference(model, ROWS).within(1e-5)
    assert not any(one is other for one, other in zip(first, kept_by(model), strict=True))


def test_one_pass_gives_what_models_with_other_lowest_layers_need() -> None:
    rows = build_rows(4)
    base = build_base()
    expected = [ReftModel(base, paper(layers, "l1"), seed=1).row_losses(rows, 0) for layers in ((0,), (1,))]
    set_cone(base, ConeConfig(layers=frozenset([0, 1, 2])))
    found = [ReftModel(base, paper((0,), "l1"), seed=1).row_losses(rows, 0)]
    other = ReftModel(base, paper((1,), "l1"), seed=1)
    assert Cone.of(other) is not None  # which is tried once
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Prompts, "compute", lambda *_: pytest.fail("all that is needed is there"))
        found.append(other.row_losses(rows, 0))
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_a_base_that_is_trained_itself_has_no_constants(caplog: pytest.LogCaptureFixture) -> None:
    model = ReftModel(build_base(), paper((1,), "l2"), seed=1)
    next(model.base.parameters()).requires_grad_(True)
    assert difference(model, ROWS).within(1e-5)
    assert "has no constants" in caplog.text


def test_only_the_cone_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers up to the lowest edited one, and tokens before the first edited one, do not run."""
    model = model_of("llama", paper((1,), "l2"))
    ran: list[tuple[int, int]] = []
    layers: Any = model.stack.layers
    for number, layer in enumerate(layers):
        for inner in (layer.mlp, *([model.base.lm_head] if number == 0 else [])):
            monkeypatch.setattr(inner, "forward", noted(inner.forward, number if inner is layer.mlp else 99, ran))
    model.row_losses(ROWS, 0)
    ran.clear()
    model.row_losses(ROWS, 0)
    labels = sum(row.num_targets for row in ROWS)
    suffix = max(min(2, row.prompt_length) + row.num_targets - 1 for row in ROWS)
    assert ran == [(2, len(ROWS) * suffix), (99, labels)]


def noted(forward: Callable[[Tensor], Tensor], number: int, ran: list[tuple[int, int]]) -> Callable[[Tensor], Tensor]:
    def run(hidden: Tensor) -> Tensor:
        ran.append((number, hidden.shape[0] * hidden.shape[1]))
        return forward(hidden)

    return run


CHOICES = [(3,), (4, 5), (4, 6, 7), (3, 9)]


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "bloom", "falcon_alibi", "gpt2"])
@pytest.mark.parametrize("positions", ["l2", "f2+l2", "all+g1", "l1+g2"])
@pytest.mark.parametrize("edited", [True, False])
def test_scores_are_those_of_whole_rows(family: str, positions: str, edited: bool) -> None:
    """Rows of several lengths, so what an unequal end leaves must be closed up before a choice follows it."""
    dtype, bound = (torch.float32, 2e-5) if family in SINGLE else (torch.float64, 1e-9)
    model = model_of(family, paper((0, 1), positions), dtype).eval()
    prompts = [row.prompt_ids for row in build_rows(7, seed=5)]
    if not edited:
        model._enabled = False
    found = [score_choices(model, prompts, choices, batch_size=4) for choices in (CHOICES, CHOICES[:1])]
    set_cone(model.base, ConeConfig(enabled=False))
    for scores, choices in zip(found, (CHOICES, CHOICES[:1]), strict=True):
        expected = score_choices(model, prompts, choices, batch_size=4)
        torch.testing.assert_close(scores, expected, atol=bound, rtol=bound)


def test_generated_text_is_the_same() -> None:
    model = model_of("llama", paper((0, 1), "l2"), torch.float32).eval()
    prompt = torch.tensor([ROWS[0].prompt_ids])
    model.row_losses(ROWS, 0)
    texts = [model.generate(prompt, torch.ones_like(prompt), Decoding(max_new_tokens=6))]
    set_cone(model.base, ConeConfig(enabled=False))
    texts.append(model.generate(prompt, torch.ones_like(prompt), Decoding(max_new_tokens=6)))
    assert torch.equal(*texts)


TRAINING = FitConfig(
    epochs=2, batch_size=3, accumulation=2, learning_rate=1e-2, warmup_ratio=0.2, weight_decay=0.1, max_grad_norm=1.0,
    seed=7, checkpoint_every=2,
)  # fmt: skip


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_a_training_is_the_same_without_the_cone(dropout: float) -> None:
    """Step by step: rows, order and draws too. After steps, Adam has made more of the rounding of small gradients."""
    runs = []
    for enabled in (True, False):
        config = paper((0, 2), "f1+l2", tied=False, dropout=dropout)
        model = model_of("qwen2", config, torch.float32, cone=ConeConfig(enabled=enabled))
        runs.append([step.loss for step in fit(model, build_rows(13), TRAINING, pad_id=0)])
    assert runs[0] == pytest.approx(runs[1], rel=1e-4)
    assert runs[0] != [pytest.approx(runs[0][0])] * len(runs[0])


def test_batches_are_by_the_tokens_that_run_then_by_all() -> None:
    model = model_of("llama", paper((0,), "l2"))
    rows = [Encoded((1,) * length, prompt) for length, prompt in ((9, 3), (9, 8), (5, 4), (10, 9))]  # 8, 3, 3, 3 run
    assert model.costs(rows) == (3, 1, 0, 2)
