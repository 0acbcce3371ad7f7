"""Layers below the lowest edited one are left out of encoders, encoder-decoders and decoders that are not known."""

from __future__ import annotations

import logging
import multiprocessing
import os
import socket
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from accelerate.state import AcceleratorState

from reft.cone.keeper import ConeConfig, keeper_of, set_cone
from reft.cone.lower_layers import skipping
from reft.edits.config import ReftConfig
from reft.models.adapted import AdaptedModel
from reft.models.decoder import ReftModel
from reft.models.encoder import Labelled, ReftEncoder
from reft.models.seq2seq import Paired, ReftSeq2Seq
from reft.training.fit import fit
from reft.training.schedule import FitConfig
from tests.reft.agreement import difference
from tests.reft.families import ENCODERS, ENDS, SHARED, build
from tests.reft.tiny import HIDDEN, LAYERS, VOCABULARY, build_base, build_rows

ROWS = build_rows(5, seed=3)
CONFIG = ReftConfig((1, 2), "f1+l2", 2, init="paper")
ONE = FitConfig(epochs=1, batch_size=4, learning_rate=1e-2, warmup_ratio=0.0, seed=3, checkpoint_every=10)

OTHERS: dict[str, Any] = {
    "olmo": lambda: hf.OlmoForCausalLM(hf.OlmoConfig(**SHARED)),
    "mamba": lambda: hf.MambaForCausalLM(
        hf.MambaConfig(vocab_size=VOCABULARY, hidden_size=HIDDEN, num_hidden_layers=LAYERS, state_size=4, **ENDS)
    ),
    "llama4_text": lambda: hf.Llama4ForCausalLM(
        hf.Llama4TextConfig(**SHARED, intermediate_size_mlp=16, head_dim=4, moe_layers=[], attention_chunk_size=4)
    ),
    "llama": lambda: hf.LlamaForCausalLM(
        hf.LlamaConfig(**SHARED, rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4})
    ),
}


def encoder(family: str, config: ReftConfig = CONFIG) -> ReftEncoder:
    model = ReftEncoder(build(ENCODERS[family]).double(), config, seed=1).eval()
    model.interventions.double()
    return model


def t5(lowest: int) -> ReftSeq2Seq:
    config = hf.T5Config(
        vocab_size=VOCABULARY, d_model=HIDDEN, d_kv=4, d_ff=24, num_layers=LAYERS, num_heads=4,
        decoder_start_token_id=0, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    base = build(lambda: hf.T5ForConditionalGeneration(config)).double()
    model = ReftSeq2Seq(base, ReftConfig((lowest, 2), "l2", 2, init="paper"), seed=1)
    model.interventions.double()
    return model


def kept(model: AdaptedModel) -> int:
    store = keeper_of(model.base).store(model.base, model.head_tensors().values())
    assert store is not None
    return store.nbytes


@pytest.mark.parametrize("family", sorted(ENCODERS))
def test_an_encoder_agrees_with_whole_rows_also_while_its_head_learns(family: str) -> None:
    model = encoder(family)
    rows = [Labelled(row.input_ids, place % 3, (0,) * row.num_tokens) for place, row in enumerate(ROWS)]
    for _ in range(2):
        found = difference(model, rows)
        assert found.loss <= 1e-6, found  # the head is in fp32
        assert found.gradient <= 1e-5, found
        before = kept(model)
        with torch.no_grad():
            for value in model.head_tensors().values():
                value.add_(0.1)
    assert before == kept(model) > 0
    scores = model.predict(rows, pad_id=0, batch_size=3)
    set_cone(model.base, ConeConfig(enabled=False))
    torch.testing.assert_close(scores, model.predict(rows, pad_id=0, batch_size=3))


@pytest.mark.parametrize("family", sorted(ENCODERS))
@pytest.mark.parametrize("positions", ["f1", "l2", "all"])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_what_a_head_reads_agrees(family: str, positions: str, dtype: torch.dtype, bound: float) -> None:
    """The backbone's last output and the gradients through it; a head is in fp32."""
    model = encoder(family, ReftConfig((1, 2), positions, 2, init="paper"))
    backbone = getattr(model.base, model.base.base_model_prefix).to(dtype)
    model.interventions.to(dtype)
    rows = [Labelled(row.input_ids, 0.0, (0,) * row.num_tokens) for row in ROWS]
    batch = model.collate(rows, 0)
    mask = batch.attention_mask
    parameters = list(model.interventions.parameters())
    found = []
    for part in (skipping(model, rows, batch), nullcontext()):
        with part, model.editing(mask, mask.sum(-1)):
            read = backbone(input_ids=batch.input_ids, attention_mask=mask).last_hidden_state[mask.bool()]
        gradients = torch.autograd.grad(read.pow(2).sum(), parameters)
        found.append((read.detach(), torch.cat([each.flatten() for each in gradients])))
    (cone, slopes), (whole, steep) = found
    assert (cone - whole).abs().max() <= bound * whole.abs().max()
    assert (slopes - steep).abs().max() <= bound * steep.abs().max()
    assert kept(model) > 0


def test_segments_are_part_of_a_row() -> None:
    model = encoder("bert")
    ids = (5, 6, 7, 8)
    losses = [model.row_losses([Labelled(ids, 1, segments)], 0).item() for segments in ((0, 0, 1, 1), (0, 1, 1, 1))]
    assert losses[0] != losses[1]


def test_an_encoder_decoder_agrees_with_whole_rows() -> None:
    config = hf.BartConfig(
        vocab_size=VOCABULARY, d_model=HIDDEN, encoder_layers=LAYERS, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=24, decoder_ffn_dim=24, max_position_embeddings=64,
        decoder_start_token_id=2,
    )  # fmt: skip
    model = ReftSeq2Seq(build(lambda: hf.BartForConditionalGeneration(config)), CONFIG, seed=1)
    found = difference(model, [Paired(row.input_ids, row.input_ids[:3]) for row in ROWS])
    assert found.within(1e-5), found
    assert kept(model) > 0


@pytest.mark.parametrize("lowest", [0, 1])
def test_layers_that_hand_on_more_than_their_output_are_found_and_run(
    caplog: pytest.LogCaptureFixture, lowest: int
) -> None:
    """T5's first layer makes the position bias of all."""
    model = t5(lowest)
    rows = [Paired(row.input_ids, row.input_ids[:3]) for row in ROWS]
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            found = difference(model, rows)
            assert found.within(1e-5), found
    assert caplog.text.count("are not skipped") == 1


@pytest.mark.parametrize("family", sorted(OTHERS))
def test_a_decoder_that_is_not_known_agrees_and_it_is_said_once(caplog: pytest.LogCaptureFixture, family: str) -> None:
    model = ReftModel(build(OTHERS[family]), CONFIG, seed=1)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert difference(model, ROWS).within(1e-5)
    assert caplog.text.count("keys and values of") == 1
    assert ("longest row" in caplog.text) == (family == "llama")


def _fit(rank: int, port: int, folder: Path, whole: list[float]) -> None:
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true",
    }  # fmt: skip
    AcceleratorState._reset_state(reset_partial_state=True)  # what the parent found out is of one process
    model = _model(ConeConfig(disk_bytes=1 << 30, folder=folder, base_sha256="ab" * 32))
    losses = [step.loss for step in fit(model, build_rows(13), ONE, pad_id=0)]
    assert losses == pytest.approx(whole, rel=1e-4)
    assert 0 < kept(model) < 13 * 3 * 5 * 200
    torch.distributed.destroy_process_group()


def _model(cone: ConeConfig) -> ReftModel:
    base = build_base()
    set_cone(base, cone)
    return ReftModel(base, ReftConfig((0, 2), "l2", 2, init="paper"), seed=1)


@pytest.mark.long
def test_two_processes_train_as_one_and_share_what_is_kept(tmp_path: Path) -> None:
    whole = [step.loss for step in fit(_model(ConeConfig(enabled=False)), build_rows(13), ONE, pad_id=0)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_fit, args=(rank, port, tmp_path, whole)) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert len(list(tmp_path.rglob("*.safetensors"))) == 13
