"""Encoders with a trained head: what holds for decoders, and that the head goes where the edits go."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from reft.adapters.directory import AdapterInfo, load_adapter, load_encoder, save_adapter
from reft.data import token_spans
from reft.edits.config import ReftConfig
from reft.edits.orthogonal import orthonormality_error
from reft.edits.positions import position_masks
from reft.models.encoder import Labelled, ReftEncoder
from reft.training.fit import fit
from tests.reft.tiny import (
    ENCODERS,
    build_config,
    build_encoder,
    build_encoder_base,
    build_fit,
    build_labelled,
    build_model,
    build_t5,
    layer_outputs,
    same_bits,
)

CLOSE = {"atol": 1e-5, "rtol": 0.0}
INFO = AdapterInfo("b" * 64, "tiny", "d" * 64, {}, 0)
CONFIG = build_fit()
every_family = pytest.mark.parametrize("family", ENCODERS)
either_task = pytest.mark.parametrize("labels", [3, 1], ids=["classification", "regression"])


@every_family
@pytest.mark.parametrize("positions", ["f1", "f2+l2", "all"])
def test_the_edit_is_where_the_mask_says_and_all_else_keeps_its_bits(family: str, positions: str) -> None:
    model = build_encoder(family, layers=(1,), positions=positions)
    batch = model.collate(build_labelled(6), 0)
    before, after = layer_outputs(model, 1, batch)
    lengths = batch.attention_mask.sum(-1)
    mask = position_masks(model.config.positions_at(1), batch.attention_mask, lengths).either
    assert mask.any()
    assert torch.equal(before[~mask], after[~mask])
    with torch.no_grad():
        assert torch.equal(after[mask], model.interventions["layer_1"](before[mask]))


def test_models_on_one_base_leave_one_hook_on_its_head() -> None:
    """A search makes one for each trial."""
    base = build_encoder_base("bert")
    for seed in range(3):
        model = ReftEncoder(base, build_config(layers=(1,)), seed=seed)
    assert {len(base.get_submodule(name)._forward_pre_hooks) for name in model.head_names} == {1}


@every_family
@either_task
@pytest.mark.parametrize("tied", [True, False])
def test_a_padded_batch_equals_each_row_alone(family: str, labels: int, tied: bool) -> None:
    model = build_encoder(family, labels=labels, tied=tied)
    rows = build_labelled(8, labels=labels)
    with torch.no_grad():
        together = model(model.collate(rows, 0))
        alone = torch.cat([model(model.collate([row], 0)) for row in rows])
    torch.testing.assert_close(together, alone, **CLOSE)
    torch.testing.assert_close(model.predict(rows, pad_id=0, batch_size=3), alone, **CLOSE)


@every_family
def test_switched_off_or_at_the_identity_the_answers_are_the_bases(family: str) -> None:
    model, fresh = build_encoder(family), build_encoder(family, init="identity")
    batch = model.collate(build_labelled(6), 0)
    with torch.no_grad():
        plain = build_encoder_base(family)(batch.input_ids, attention_mask=batch.attention_mask).logits
        with model.disabled():
            assert torch.equal(model(batch), plain)
        assert torch.equal(fresh(batch), plain)
        assert not torch.equal(model(batch), plain)


@every_family
@either_task
def test_gradients_reach_edits_and_head_and_nothing_else(family: str, labels: int) -> None:
    model = build_encoder(family, labels=labels, tied=False, layers=(0, 1))
    model.loss(model.collate(build_labelled(6, labels=labels), 0)).backward()
    trained = model.trainable_parameters()
    assert {name.split(".")[0] for name in trained} == {"interventions", "base"}
    assert {name for name in trained if name.startswith("base.")} == {f"base.{name}" for name in model.head_tensors()}
    assert all(name.startswith("classifier.") for name in model.head_tensors())
    assert all(value.grad is not None and value.grad.any() for value in trained.values())
    frozen = [value for name, value in model.named_parameters() if name not in trained]
    assert all(value.grad is None and not value.requires_grad for value in frozen)


@either_task
def test_the_loss_is_by_hand(labels: int) -> None:
    model = build_encoder(labels=labels)
    rows = build_labelled(5, labels=labels)
    batch = model.collate(rows, 0)
    with torch.no_grad():
        answers = model(batch)
        losses = model.target_losses(batch)
    for row, answer, loss in zip(rows, answers, losses, strict=True):
        by_hand = (answer[0] - row.label) ** 2 if labels == 1 else -answer.log_softmax(-1)[int(row.label)]
        torch.testing.assert_close(loss, by_hand)


@every_family
@either_task
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_training_lowers_the_loss_and_the_backbone_keeps_its_bits(family: str, labels: int, dtype: torch.dtype) -> None:
    base = build_encoder_base(family, labels=labels).to(dtype)
    model = ReftEncoder(base, build_config(positions="f1", init="identity"), seed=1)
    before = {name: value.clone() for name, value in base.state_dict().items()}
    rows = build_labelled(24, labels=labels)
    steps = list(fit(model, rows, replace(CONFIG, epochs=8, learning_rate=3e-2), pad_id=0))
    assert sum(step.loss for step in steps[-6:]) < 0.7 * sum(step.loss for step in steps[:6])
    head = model.head_tensors()
    assert all(value.dtype == torch.float32 for value in model.trainable_parameters().values())
    assert all(not torch.equal(value, before[name]) for name, value in head.items())
    rest = {name: value for name, value in base.state_dict().items() if name not in head}
    assert all(value.dtype == dtype and torch.equal(value, before[name]) for name, value in rest.items())
    for _, intervention in model.named_interventions():
        assert orthonormality_error(intervention.rotation()) < 1e-5


@every_family
@either_task
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_edits_and_head_are_loaded_with_the_same_bits(
    tmp_path: Path, family: str, labels: int, dtype: torch.dtype
) -> None:
    model = ReftEncoder(build_encoder_base(family, labels=labels).to(dtype), build_config(), seed=1)
    rows = build_labelled(8, labels=labels)
    list(fit(model, rows, CONFIG, pad_id=0))
    save_adapter(model, tmp_path / "adapter", INFO)
    other = build_encoder_base(family, labels=labels).to(dtype)
    with torch.no_grad():
        for value in other.classifier.parameters():
            value.zero_()
    loaded = load_encoder(tmp_path / "adapter", other, base_sha256=INFO.base_sha256)
    assert not loaded.training
    assert torch.equal(loaded.predict(rows, pad_id=0, batch_size=8), model.predict(rows, pad_id=0, batch_size=8))
    list(fit(loaded, rows, CONFIG, pad_id=0))  # it can be trained on


def test_a_pooler_can_be_part_of_the_head(tmp_path: Path) -> None:
    base = build_encoder_base()
    model = ReftEncoder(base, build_config(), seed=1, head=("bert.pooler", "classifier"))
    rows = build_labelled(8)
    pooler = base.bert.pooler.dense.weight.clone()
    list(fit(model, rows, CONFIG, pad_id=0))
    assert not torch.equal(base.bert.pooler.dense.weight, pooler)
    save_adapter(model, tmp_path / "adapter", INFO)
    loaded = load_encoder(tmp_path / "adapter", build_encoder_base(), base_sha256=INFO.base_sha256)
    assert torch.equal(loaded.predict(rows, pad_id=0, batch_size=8), model.predict(rows, pad_id=0, batch_size=8))


def test_the_head_alone_is_trained_while_switched_off() -> None:
    model = build_encoder(init="identity")
    before = {name: value.clone() for name, value in model.trainable_parameters().items()}
    with model.disabled():
        list(fit(model, build_labelled(8), replace(CONFIG, weight_decay=0.0), pad_id=0))
    for name, value in model.trainable_parameters().items():
        assert torch.equal(value, before[name]) == name.startswith("interventions."), name


def test_dropout_of_a_head_is_drawn_from_the_runs_seed() -> None:
    """RoBERTa's head drops; the same arguments give the same bits, whatever drew from torch's generator before."""
    one, other = build_encoder("roberta"), build_encoder("roberta")
    rows = build_labelled(8)
    torch.manual_seed(1)
    list(fit(one, rows, CONFIG, pad_id=0))
    torch.manual_seed(2)
    list(fit(other, rows, CONFIG, pad_id=0))
    assert same_bits(one, other)
    undropped = build_encoder("roberta")
    undropped.base.classifier.dropout.p = 0.0
    list(fit(undropped, rows, CONFIG, pad_id=0))
    assert not same_bits(one, undropped), "nothing was dropped"


@every_family
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, family: str) -> None:
    whole, stopped, resumed = (build_encoder(family, dropout=0.2) for _ in range(3))
    rows = build_labelled(14)
    list(fit(whole, rows, CONFIG, pad_id=0))
    steps = fit(stopped, rows, CONFIG, pad_id=0, checkpoint=tmp_path)
    for _ in range(4):
        next(steps)
    list(fit(resumed, rows, CONFIG, pad_id=0, checkpoint=tmp_path))
    assert same_bits(resumed, whole)


def test_the_head_decays_but_its_biases_do_not() -> None:
    decayed, plain = build_encoder(), build_encoder()
    rows = build_labelled(4)
    for model, decay in ((decayed, 0.5), (plain, 0.0)):
        next(fit(model, rows, replace(CONFIG, weight_decay=decay), pad_id=0))
    ours, theirs = decayed.trainable_parameters(), plain.trainable_parameters()
    differing = {name for name, value in ours.items() if not torch.equal(value, theirs[name])}
    assert differing == {"base.classifier.weight", "interventions.layer_0.weight", "interventions.layer_2.weight"}


def test_a_pair_of_texts_is_told_by_its_segments_also_in_a_mixed_batch() -> None:
    model = build_encoder()
    pair = Labelled((1, 2, 3, 4), 0, segments=(0, 0, 1, 1))
    single = Labelled((5, 6, 7, 8, 9), 1)
    with torch.no_grad():
        for rows in ([pair, single], [single, pair]):
            together = model(model.collate(rows, 0))
            alone = torch.cat([model(model.collate([row], 0)) for row in rows])
            torch.testing.assert_close(together, alone, **CLOSE)
        plain = model(model.collate([replace(pair, segments=())], 0))
    assert not torch.allclose(plain, model(model.collate([pair], 0)), atol=1e-3)


def test_each_row_may_name_its_own_tokens() -> None:
    text = "not at all good"
    offsets = [(0, 0), (0, 3), (4, 6), (7, 10), (11, 15), (0, 0)]  # as of [CLS] not at all good [SEP]
    spans = token_spans([(0, 3), (8, 13)], offsets, text)
    assert spans == ((1, 2), (3, 5))
    rows = [Labelled((1, 2, 3, 4, 5, 6), 0, spans=spans), Labelled((1, 7, 8), 1, spans=((1, 2),))]
    named, written = build_encoder(positions="spans"), build_encoder(positions="1:2,3:5")
    with torch.no_grad():
        answers = named(named.collate(rows, 0))
        assert torch.equal(answers[0], written(written.collate(rows, 0))[0])
        alone = named(named.collate(rows[1:], 0))
    torch.testing.assert_close(answers[1:], alone, **CLOSE)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Labelled((), 0), "needs a token"),
        (lambda: Labelled((1, 2), 0, segments=(0,)), "as many segments"),
        (lambda: Labelled((1, 2), 0, spans=((1, 3),)), "a range of the 2"),
        (lambda: build_encoder().collate([Labelled((1,), 3)], 0), "0 to 2"),
        (lambda: build_encoder().collate([Labelled((1,), 0.5)], 0), "a class's number"),
        (lambda: build_encoder(layers=(3,)), "below 3"),
        (lambda: build_encoder(positions="f1+g2"), "its whole input is the prompt; got positions 'f1.g2'"),
        (lambda: ReftEncoder(build_encoder_base().bert, build_config(), seed=0), "a head beside it"),
        (lambda: ReftEncoder(build_encoder_base(), build_config(), seed=0, head=("pooler",)), "got pooler"),
        (lambda: ReftEncoder(build_encoder_base(), build_config(), seed=0, head=("",)), "modules in"),
        (lambda: ReftEncoder(build_t5(), build_config(), seed=0), "must be an encoder"),
    ],
)
def test_what_cannot_be_is_refused(build: Callable[[], object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build()


def test_an_adapter_of_another_kind_or_head_is_refused(tmp_path: Path) -> None:
    save_adapter(build_encoder(), tmp_path / "encoder", INFO)
    save_adapter(build_model(), tmp_path / "decoder", INFO)
    sha256 = INFO.base_sha256
    with pytest.raises(ValueError, match="use load_encoder"):
        load_adapter(tmp_path / "encoder", build_model().base, base_sha256=sha256)
    with pytest.raises(ValueError, match="use load_adapter"):
        load_encoder(tmp_path / "decoder", build_encoder_base(), base_sha256=sha256)
    with pytest.raises(ValueError, match="3 labels; got 4"):
        load_encoder(tmp_path / "encoder", build_encoder_base(labels=4), base_sha256=sha256)
    config = tmp_path / "encoder" / "adapter_config.json"
    record = json.loads(config.read_text())
    for modules in (["bert.encoder.layer.7"], "classifier", [1]):
        config.write_text(json.dumps(record | {"head": {"modules": modules, "num_labels": 3}}))
        with pytest.raises(ValueError, match="head"):
            load_encoder(tmp_path / "encoder", build_encoder_base(), base_sha256=sha256)


def test_a_model_of_one_stack_without_a_prefix_is_refused() -> None:
    base = build_encoder_base()
    base.extra = nn.ModuleList(nn.Identity() for _ in range(3))
    with pytest.raises(ValueError, match="exactly one list of 3 layers"):
        ReftEncoder(base, ReftConfig((0,), "f1", 1), seed=0)
