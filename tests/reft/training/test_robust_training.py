"""Training that saves memory, runs on a bf16 base, drops and decays: what each may change, and what it may not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reft.cone.keeper import ConeConfig, set_cone
from reft.data import Encoded
from reft.edits.config import LayerOverride
from reft.edits.formulas.table import METHODS
from reft.edits.methods.table import DECLARED
from reft.edits.orthogonal import OrthonormalRows, orthonormality_error
from reft.models.adapted import AdaptedModel, Row
from reft.models.decoder import ReftModel
from reft.models.scoring import score_choices
from reft.training.fit import fit
from tests.reft.tiny import (
    ENCODERS,
    FAMILIES,
    build_base,
    build_config,
    build_encoder,
    build_labelled,
    build_model,
    build_pairs,
    build_rows,
    build_seq2seq,
    build_uneven_fit,
    rank_of,
    same_bits,
    values,
)

CONFIG = build_uneven_fit(checkpoint_every=3)
KINDS: dict[str, tuple[Callable[[], AdaptedModel], list[Any]]] = {
    **{f"{family}": (lambda family=family: build_model(family, tied=False), build_rows(6)) for family in FAMILIES},
    **{
        f"{method}": (lambda method=method: build_model(method=method, rank=rank_of(method, 2)), build_rows(6))
        for method in METHODS
    },
    **{name: (lambda name=name: build_encoder(name), build_labelled(6)) for name in ENCODERS},
    "t5": (lambda: build_seq2seq(), build_pairs(6)),
}


@contextmanager
def counted(model: AdaptedModel) -> Iterator[list[int]]:
    """Count how often a module inside each layer runs; the layer's own hooks are outside what is run again."""
    counts = [0] * model.num_layers
    undo = []
    for number, layer in enumerate(model.stack.layers):

        def count(_module: nn.Module, _args: object, number: int = number) -> None:
            counts[number] += 1

        inner = next(module for module in layer.modules() if module is not layer and type(module) is not nn.ModuleList)
        undo.append(inner.register_forward_pre_hook(count))
    yield counts
    for hook in undo:
        hook.remove()


def gradients(
    model: AdaptedModel, rows: list[Row], *, checkpointing: bool
) -> tuple[Tensor, dict[str, Tensor], list[int]]:
    model.gradient_checkpointing = checkpointing
    model.train()
    model.zero_grad()
    with counted(model) as counts:
        torch.manual_seed(0)
        loss = model.loss(model.collate(rows, 0))
        loss.backward()
    grads = {name: value.grad.clone() for name, value in model.trainable_parameters().items() if value.grad is not None}
    return loss.detach(), grads, list(counts)


@pytest.mark.parametrize("kind", KINDS)
def test_running_layers_again_gives_the_same_loss_and_gradients(kind: str) -> None:
    build, rows = KINDS[kind]
    model = build()
    loss, plain, once = gradients(model, rows, checkpointing=False)
    again_loss, again, twice = gradients(model, rows, checkpointing=True)
    assert torch.equal(loss, again_loss)
    assert plain.keys() == again.keys()
    assert all(torch.equal(value, again[name]) for name, value in plain.items())
    assert once == [1] * 3
    # The lowest edited layer's input is a constant, so there is nothing to run again in it.
    assert twice == [1, 2, 2]


def test_a_run_with_layers_run_again_has_the_same_bits_and_leaves_the_base_as_it_was() -> None:
    plain, again = build_model(dropout=0.2, tied=False), build_model(dropout=0.2, tied=False)
    for model in (plain, again):  # each layer runs in every pass, so that its runs can be counted
        set_cone(model.base, ConeConfig(enabled=False))
    list(fit(plain, build_rows(13), CONFIG, pad_id=0))
    with counted(again) as counts:
        list(fit(again, build_rows(13), replace(CONFIG, gradient_checkpointing=True), pad_id=0))
    assert counts[2] == 2 * counts[0] > 0
    assert same_bits(plain, again)
    assert not again.gradient_checkpointing
    assert not any("forward" in vars(layer) for layer in again.stack.layers)
    with torch.no_grad(), counted(again) as counts:
        again.gradient_checkpointing = True
        again(again.collate(build_rows(2), 0))
    assert counts == [1, 1, 1], "without gradients there is nothing to run again"


@pytest.mark.parametrize(
    ("dtype", "method"), [*((torch.bfloat16, method) for method in METHODS), (torch.float16, "loreft")]
)
def test_a_base_in_half_precision_trains_and_r_stays_orthonormal_in_fp32(dtype: torch.dtype, method: str) -> None:
    config = build_config(positions="all", method=method, rank=rank_of(method, 3))
    model = ReftModel(build_base().to(dtype), config, seed=1)
    rows = [Encoded((*row.prompt_ids, 9), row.prompt_length) for row in build_rows(16)]
    steps = list(fit(model, rows, replace(CONFIG, epochs=5, learning_rate=1e-1, weight_decay=0.5), pad_id=0))
    assert sum(step.loss for step in steps[-3:]) < 0.9 * sum(step.loss for step in steps[:3])
    assert all(value.dtype == torch.float32 for value in model.trainable_parameters().values())
    rotations = [module for module in model.modules() if isinstance(module, OrthonormalRows)]
    assert bool(rotations) == ("rotation" in DECLARED[method].tensors(16, config.form(0)))
    assert all(orthonormality_error(rotation()) < 1e-5 for rotation in rotations)
    with torch.no_grad():
        assert model(model.collate(rows, 0)).dtype == dtype


@pytest.mark.parametrize("method", METHODS)
def test_decay_pulls_the_matrices_by_what_was_asked_and_nothing_else(method: str) -> None:
    """AdamW's decay takes rate * decay of a value from it, beside the step that it takes anyway."""
    more = {"projection_bias": True} if method == "noreft" else {}
    decayed, plain = (build_model(method=method, rank=rank_of(method, 2), **more) for _ in range(2))
    before = values(decayed)
    once = replace(CONFIG, warmup_ratio=0.0)
    for model, decay in ((decayed, 0.5), (plain, 0.0)):
        next(fit(model, build_rows(6), replace(once, weight_decay=decay), pad_id=0))
    pulled = {name for name in before if name.split(".")[-1] in ("weight", "projection")}
    assert pulled == decayed.decaying_parameters()
    for name, value in values(decayed).items():
        moved = values(plain)[name] - value
        if name in pulled:
            torch.testing.assert_close(moved, CONFIG.learning_rate * 0.5 * before[name], atol=1e-7, rtol=1e-4)
        else:
            assert not moved.any(), name


@pytest.mark.parametrize("dropout_on", ["edit", "output"])
def test_what_is_dropped_is_dropped_in_training_alone(dropout_on: str) -> None:
    """Between the steps of a run, the caller scores a model that drops nothing."""
    model = build_model(dropout=0.5, dropout_on=dropout_on)
    same = build_model(dropout=0.0)
    batch = model.collate(build_rows(6), 0)
    with torch.no_grad():
        assert torch.equal(model(batch), same(batch)), "a new model drops"
    steps = fit(model, build_rows(13), CONFIG, pad_id=0)
    first = next(steps)
    with torch.no_grad():
        assert torch.equal(model(batch), model(batch))
        scores = [score_choices(model, [(5, 6, 7)], [(3,), (9,)], batch_size=1) for _ in range(2)]
        assert torch.equal(*scores)
        model.train()
        assert not torch.equal(model(batch), model(batch))
    undropped = next(fit(same, build_rows(13), CONFIG, pad_id=0))
    assert first.loss != undropped.loss


@pytest.mark.parametrize("dropout_on", ["edit", "output"])
def test_a_run_that_drops_is_repeated_and_resumed_to_the_bit(tmp_path: Path, dropout_on: str) -> None:
    whole, again, stopped, resumed = (build_model(dropout=0.4, dropout_on=dropout_on) for _ in range(4))
    rows = build_rows(13)
    list(fit(whole, rows, CONFIG, pad_id=0))
    torch.manual_seed(123)
    drawn = torch.get_rng_state()
    list(fit(again, rows, CONFIG, pad_id=0))
    assert same_bits(again, whole)
    assert torch.equal(torch.get_rng_state(), drawn), "the caller's stream of random numbers was used"
    steps = fit(stopped, rows, CONFIG, pad_id=0, checkpoint=tmp_path)
    for _ in range(4):
        next(steps)
    list(fit(resumed, rows, CONFIG, pad_id=0, checkpoint=tmp_path))
    assert same_bits(resumed, whole)


def test_rows_without_a_token_at_the_edited_positions_teach_nothing_and_stop_nothing() -> None:
    model = build_model(positions="5:9")
    short = [Encoded((1, 2, 3, 4), 3), Encoded((5, 6, 7), 2)]
    before = values(model)
    steps = list(fit(model, short, replace(CONFIG, weight_decay=0.0), pad_id=0))
    assert all(step.grad_norm == 0 and step.loss > 0 for step in steps)
    assert all(torch.equal(value, before[name]) for name, value in values(model).items())
    list(fit(model, [*short, Encoded(tuple(range(1, 9)), 7)], CONFIG, pad_id=0))
    assert not torch.equal(values(model)["interventions.layer_0.weight"], before["interventions.layer_0.weight"])


def test_layers_of_their_own_rank_and_positions_train() -> None:
    own = (LayerOverride(0, rank=1, positions="l1"), LayerOverride(1, rank=5), LayerOverride(2, positions="l3"))
    model = build_model(layers=(0, 1, 2), rank=3, tied=False, overrides=own)
    ranks = {slot: intervention.form.rank for slot, intervention in model.named_interventions()}
    assert ranks == {"layer_0": 1, "layer_1_first": 5, "layer_1_last": 5, "layer_2": 3}
    before = values(model)
    list(fit(model, build_rows(13), CONFIG, pad_id=0))
    assert {name for name, value in values(model).items() if torch.equal(value, before[name])} == set()


def test_a_run_is_known_by_where_r_starts(tmp_path: Path) -> None:
    """R's parameter starts at 0 whatever R is, and lobireft's b too: only what R is read by tells the runs apart."""
    config = build_config(method="lobireft")
    rows = build_rows(4)
    list(fit(ReftModel(build_base(), config, seed=1), rows, CONFIG, pad_id=0, checkpoint=tmp_path))
    with pytest.raises(ValueError, match="another run's"):
        fit(ReftModel(build_base(), config, seed=2), rows, CONFIG, pad_id=0, checkpoint=tmp_path)
