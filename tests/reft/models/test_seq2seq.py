"""Encoder-decoders: the encoder is edited, whatever the decoder does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from reft.adapters.directory import AdapterInfo, load_seq2seq, save_adapter
from reft.data import IGNORED
from reft.edits.positions import position_masks
from reft.models.decoder import ReftModel
from reft.models.decoding import Decoding
from reft.models.seq2seq import Paired, PairedBatch, ReftSeq2Seq
from reft.training.fit import fit
from tests.reft.tiny import (
    build_base,
    build_config,
    build_fit,
    build_pairs,
    build_seq2seq,
    build_t5,
    layer_outputs,
    same_bits,
)

CLOSE = {"atol": 1e-4, "rtol": 1e-5}  # of logits of size 30
INFO = AdapterInfo("b" * 64, "tiny", "d" * 64, {}, 0)
CONFIG = build_fit()


def by_whole_passes(model: ReftSeq2Seq, batch: PairedBatch, count: int) -> Tensor:
    """Decode greedily without a cache, encoder included; return the start token and what follows it."""
    written = torch.zeros(len(batch.input_ids), 1, dtype=torch.long)
    for _ in range(count):
        # As labels of one column more; T5 shifts them to the right.
        labels = torch.cat([written[:, 1:], written[:, :1]], dim=-1)
        with torch.no_grad():
            logits = model(replace(batch, labels=labels))[:, -1]
        written = torch.cat([written, logits.argmax(-1, keepdim=True)], dim=-1)
    return written


@pytest.mark.parametrize("positions", ["f2+l2", "all", "1:3"])
def test_the_encoder_is_edited_where_the_mask_says(positions: str) -> None:
    model = build_seq2seq(layers=(1,), positions=positions)
    batch = model.collate(build_pairs(8), 0)
    before, after = layer_outputs(model, 1, batch)
    lengths = batch.attention_mask.sum(-1)
    mask = position_masks(model.config.positions_at(1), batch.attention_mask, lengths).either
    assert mask.any()
    assert torch.equal(before[~mask], after[~mask])
    with torch.no_grad():
        assert torch.equal(after[mask], model.interventions["layer_1"](before[mask]))
    assert all(module in model.base.encoder.modules() for module in model.stack.layers)


@pytest.mark.parametrize("tied", [True, False])
def test_a_padded_batch_equals_each_row_alone(tied: bool) -> None:
    model = build_seq2seq(tied=tied)
    rows = build_pairs(8)
    batch = model.collate(rows, 0)
    with torch.no_grad():
        together, losses = model(batch), model.target_losses(batch)
        for place, row in enumerate(rows):
            alone = model(model.collate([row], 0))[0]
            torch.testing.assert_close(together[place, : row.num_targets], alone, **CLOSE)
        by_row = torch.cat([model.target_losses(model.collate([row], 0)) for row in rows])
    torch.testing.assert_close(losses, by_row, **CLOSE)
    assert losses.shape == ((batch.labels != IGNORED).sum(),)


def test_switched_off_or_at_the_identity_the_logits_are_the_bases() -> None:
    model, fresh = build_seq2seq(), build_seq2seq(init="identity")
    batch = model.collate(build_pairs(6), 0)
    with torch.no_grad():
        plain = build_t5()(batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels).logits
        with model.disabled():
            assert torch.equal(model(batch), plain)
        assert torch.equal(fresh(batch), plain)
        assert not torch.equal(model(batch), plain)


def test_gradients_reach_what_is_trained_and_nothing_else() -> None:
    model = build_seq2seq(tied=False)
    model.loss(model.collate(build_pairs(8), 0)).backward()
    assert all(name.startswith("interventions.") for name in model.trainable_parameters())
    assert all(value.grad is not None and value.grad.any() for value in model.trainable_parameters().values())
    assert all(value.grad is None for value in model.base.parameters())


def test_training_lowers_the_loss_and_a_loaded_adapter_has_the_same_bits(tmp_path: Path) -> None:
    model = build_seq2seq(init="identity", positions="all", tied=False)
    rows = [Paired(row.input_ids, (9, 8)) for row in build_pairs(24)]
    steps = list(fit(model, rows, replace(CONFIG, epochs=6, learning_rate=3e-2), pad_id=0))
    assert steps[-1].loss < 0.8 * steps[0].loss
    save_adapter(model, tmp_path / "adapter", INFO)
    loaded = load_seq2seq(tmp_path / "adapter", build_t5(), base_sha256=INFO.base_sha256)
    batch = model.collate(build_pairs(6, seed=1), 0)
    with torch.no_grad():
        assert torch.equal(loaded(batch), model(batch))
    assert torch.equal(*(m.generate(batch.input_ids, batch.attention_mask, Decoding(5)) for m in (model, loaded)))


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    whole, stopped, resumed = (build_seq2seq(dropout=0.2) for _ in range(3))
    rows = build_pairs(14)
    list(fit(whole, rows, CONFIG, pad_id=0))
    steps = fit(stopped, rows, CONFIG, pad_id=0, checkpoint=tmp_path)
    for _ in range(4):
        next(steps)
    list(fit(resumed, rows, CONFIG, pad_id=0, checkpoint=tmp_path))
    assert same_bits(resumed, whole)


@pytest.mark.parametrize("use_cache", [True, False])
def test_generation_writes_what_whole_passes_do(use_cache: bool) -> None:
    model = build_seq2seq()
    batch = model.collate(build_pairs(6), 0)
    expected = by_whole_passes(model, batch, 6)
    written = model.generate(batch.input_ids, batch.attention_mask, Decoding(6, use_cache=use_cache))
    assert torch.equal(written, expected)
    with model.disabled():
        assert not torch.equal(model.generate(batch.input_ids, batch.attention_mask, Decoding(6)), expected)


def test_a_padded_batch_is_written_as_each_row_alone() -> None:
    model = build_seq2seq()
    rows = build_pairs(6)
    batch = model.collate(rows, 0)
    for decoding in (Decoding(5), Decoding(5, num_beams=3, num_return_sequences=2)):
        count = decoding.num_return_sequences
        together = model.generate(batch.input_ids, batch.attention_mask, decoding)
        for place, row in enumerate(rows):
            alone = model.collate([row], 0)
            written = model.generate(alone.input_ids, alone.attention_mask, decoding)
            assert torch.equal(together[count * place : count * (place + 1)], written)


def test_samples_are_drawn_from_the_edited_distribution() -> None:
    model = build_seq2seq()
    batch = model.collate(build_pairs(6), 0)
    narrow = Decoding(5, do_sample=True, top_k=1, num_return_sequences=2)
    greedy = model.generate(batch.input_ids, batch.attention_mask, Decoding(5))
    drawn = model.generate(batch.input_ids, batch.attention_mask, narrow)
    assert torch.equal(drawn, greedy.repeat_interleave(2, dim=0))


def test_each_row_may_name_its_own_tokens() -> None:
    rows = [Paired((1, 2, 3, 4), (5,), spans=((1, 3),)), Paired((6, 7), (8, 9), spans=((0, 1),))]
    named, written = build_seq2seq(positions="spans"), build_seq2seq(positions="1:3")
    batch = named.collate(rows, 0)
    with torch.no_grad():
        torch.testing.assert_close(named(batch)[0], written(batch)[0], **CLOSE)
        alone = named(named.collate(rows[1:], 0))[0]
        torch.testing.assert_close(named(batch)[1], alone, **CLOSE)
    tokens = named.generate(batch.input_ids, batch.attention_mask, Decoding(4), spans=batch.spans)
    assert torch.equal(tokens[0], written.generate(batch.input_ids, batch.attention_mask, Decoding(4))[0])


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="use ReftModel"):
        ReftSeq2Seq(build_base(), build_config(), seed=0)
    with pytest.raises(ValueError, match="or ReftSeq2Seq"):
        ReftModel(build_t5(), build_config(), seed=0)
    with pytest.raises(ValueError, match="below 3"):
        build_seq2seq(layers=(3,))
    with pytest.raises(ValueError, match="its whole input is the prompt; got positions 'g2'"):
        build_seq2seq(positions="g2")
    with pytest.raises(ValueError, match="needs a token to read"):
        Paired((), (1,))
    with pytest.raises(ValueError, match="a range of the 1"):
        Paired((1,), (2,), spans=((0, 2),))
    model = build_seq2seq()
    with pytest.raises(ValueError, match="needs target tokens"):
        model.target_losses(model.collate([Paired((1, 2), ())], 0))
    with pytest.raises(ValueError, match="needs a completion; got row 0"):
        fit(model, [Paired((1, 2), ())], CONFIG, pad_id=0)
