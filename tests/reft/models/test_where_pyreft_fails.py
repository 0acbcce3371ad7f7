"""What the authors' library (pyreft 0.1.0 on pyvene 0.1.8) gets wrong, shown with it, and the same thing done here.

A test whose first half fails is good news: the authors mended it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    TrainingArguments,
)

from benchmarks.sides.authors import CLASSES, authors_intervention, pyreft
from reft.adapters.directory import AdapterInfo, load_adapter, load_encoder, save_adapter
from reft.data import Batch, Collator, Encoded
from reft.edits.config import ReftConfig
from reft.edits.formulas.loreft import Formula as LoreftIntervention
from reft.edits.formulas.table import METHODS
from reft.edits.methods.forms import EditForm
from reft.edits.orthogonal import orthonormality_error
from reft.models.decoder import ReftModel
from reft.models.decoding import Decoding
from reft.models.encoder import Labelled, ReftEncoder
from reft.training.fit import fit
from reft.training.schedule import FitConfig
from tests.reft.authors import Twins, build_twins
from tests.reft.tiny import HIDDEN, VOCABULARY, build_base, build_model, build_rows

BASE = "b" * 64
INFO = AdapterInfo(BASE, "tiny", "d" * 64, {}, 0)
FIT = FitConfig(
    epochs=10,
    batch_size=4,
    accumulation=1,
    learning_rate=1e-2,
    warmup_ratio=0.0,
    weight_decay=0.0,
    max_grad_norm=1.0,
    seed=0,
    checkpoint_every=5,
)
ROWS = build_rows(16)


def descend(module: nn.Module, steps: int, weight_decay: float = 0.0) -> None:
    """Train a module with AdamW to give what it never will, so that every number moves."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-2, weight_decay=weight_decay)
    for _ in range(steps):
        optimizer.zero_grad()
        (module(torch.randn(8, HIDDEN)) - torch.randn(8, HIDDEN)).square().mean().backward()
        optimizer.step()


def authors_rotation(module: Any) -> Tensor:
    """Return R [rank, hidden] of one of pyreft's modules."""
    rotation: Tensor = module.rotate_layer.weight.detach().mT
    return rotation


def authors_model(base: nn.Module, intervention: nn.Module, place: dict[str, Any]) -> Any:
    """Return pyreft's model with one intervention."""
    described = {**place, "low_rank_dimension": 2, "intervention": intervention}
    return pyreft.get_reft_model(base, pyreft.ReftConfig(representations=[described]))


def authors_reloaded(base: nn.Module, intervention: nn.Module, path: Path) -> Any:
    """Return an intervention of layer 1 as pyreft has it after it saved and loaded it."""
    authors_model(base, intervention, {"layer": 1, "component": "block_output"}).save(str(path))
    return next(iter(pyreft.ReftModel.load(str(path), base).interventions.values()))


def test_one_step_with_weight_decay_makes_r_zero() -> None:
    """The diagonal of its Householder parameter is cast to an integer: 0.9999 is 0, and R never comes back."""
    form = EditForm(2, "paper")
    theirs = authors_intervention("loreft", HIDDEN, form)
    assert orthonormality_error(authors_rotation(theirs)) < 1e-5
    descend(theirs, 1, weight_decay=0.01)
    assert not authors_rotation(theirs).any()
    h = torch.randn(3, HIDDEN)
    assert torch.equal(theirs(h), h), "it edits nothing any more"

    ours = LoreftIntervention(HIDDEN, form, torch.Generator().manual_seed(0))
    descend(ours, 100, weight_decay=0.5)
    assert orthonormality_error(ours.rotation()) < 1e-5


def test_its_trainer_decays_nothing(tmp_path: Path) -> None:
    """Its parameters' names lack a prefix that transformers' names have, so none is in the group that decays."""
    arguments = TrainingArguments(output_dir=str(tmp_path), weight_decay=0.5, use_cpu=True, report_to=[])
    config = ReftConfig((0, 2), "f2+l2", 2, init="paper")
    trainer = pyreft.ReftTrainerForCausalLM(
        model=build_twins(config).theirs, args=arguments, train_dataset=[{"input_ids": [1]}]
    )
    decayed = [group["params"] for group in trainer.create_optimizer().param_groups if group["weight_decay"]]
    assert decayed == [[]]

    start, decayed, plain = (build_model().trainable_parameters(), *(after_one_step(decay) for decay in (0.5, 0.0)))
    for name, value in start.items():
        pull = FIT.learning_rate * 0.5 * value if name.endswith(".weight") else torch.zeros_like(value)
        torch.testing.assert_close(plain[name] - decayed[name], pull, atol=1e-7, rtol=1e-3)


def after_one_step(weight_decay: float) -> dict[str, nn.Parameter]:
    model = build_model()
    next(fit(model, ROWS, replace(FIT, weight_decay=weight_decay), pad_id=0))
    return model.trainable_parameters()


def test_an_activation_a_dropout_and_a_dtype_are_lost_in_a_directory(tmp_path: Path) -> None:
    form = EditForm(2, "paper", activation="relu", dropout=0.5, dropout_on="output")
    theirs = authors_intervention("loreft", HIDDEN, form)
    back = authors_reloaded(build_base(), theirs, tmp_path / "theirs")
    assert (theirs.learned_source.weight.dtype, back.learned_source.weight.dtype) == (torch.float32, torch.bfloat16)
    assert (theirs.dropout.p, back.dropout.p) == (0.5, 0.0)
    h = torch.randn(50, HIDDEN)
    assert (theirs.eval()(h) - back.float().eval()(h)).abs().max() > 0.1, "the activation has become linear"

    config = ReftConfig((1,), "f2+l2", 2, init="paper", activation="relu", dropout=0.5, dropout_on="output")
    assert_the_same_after_a_load(ReftModel(build_base(), config, seed=0), tmp_path / "ours")


@pytest.mark.parametrize(("method", "bias"), [("noreft", True), ("noreft", False), ("direft", False)])
def test_what_has_a_projection_does_not_load(tmp_path: Path, method: str, bias: bool) -> None:
    theirs = authors_intervention(method, HIDDEN, EditForm(2, "paper", projection_bias=bias))
    with pytest.raises(KeyError, match="add_bias"):
        authors_reloaded(build_base(), theirs, tmp_path / "theirs")

    config = ReftConfig((1,), "f2+l2", 2, method=method, init="paper", projection_bias=bias)
    assert_the_same_after_a_load(ReftModel(build_base(), config, seed=0), tmp_path / "ours")


def assert_the_same_after_a_load(model: ReftModel, path: Path) -> None:
    """Train a little, save, load; then compare bits in evaluation, and what dropout draws in training."""
    list(fit(model, ROWS, FIT, pad_id=0, max_steps=3))
    save_adapter(model, path, INFO)
    loaded = load_adapter(path, build_base(), base_sha256=BASE)
    assert loaded.config == model.config
    assert {value.dtype for value in loaded.trainable_parameters().values()} == {torch.float32}
    batch = Collator(0)(ROWS)
    with torch.no_grad():
        for mode in (False, True):
            outputs = []
            for each in (model, loaded):
                torch.manual_seed(0)
                outputs.append(each.train(mode)(batch))
            assert torch.equal(*outputs)
    assert (model.config.dropout > 0) != torch.equal(model(batch), model.eval()(batch))


def test_r_leaves_the_manifold_when_training_goes_on_after_a_load(tmp_path: Path) -> None:
    """R's columns are put into a basis whose other columns are those of another random R."""
    theirs = authors_intervention("loreft", HIDDEN, EditForm(2, "paper"))
    descend(theirs, 20)
    assert orthonormality_error(authors_rotation(theirs)) < 1e-5
    back = authors_reloaded(build_base(), theirs, tmp_path / "theirs").float()
    assert orthonormality_error(authors_rotation(back)) < 1e-5
    descend(back, 50)
    assert orthonormality_error(authors_rotation(back)) > 1e-2

    model = build_model()
    list(fit(model, ROWS, FIT, pad_id=0, max_steps=20))
    save_adapter(model, tmp_path / "ours", INFO)
    loaded = load_adapter(tmp_path / "ours", build_base(), base_sha256=BASE)
    steps = list(fit(loaded, ROWS, FIT, pad_id=0))
    assert len(steps) == 40
    assert steps[-1].loss < steps[0].loss
    for _, intervention in loaded.named_interventions():
        assert orthonormality_error(intervention.rotation()) < 1e-5


def test_a_run_does_not_resume_without_a_gpu(tmp_path: Path) -> None:
    config = ReftConfig((0, 2), "f2+l2", 2, init="paper")
    if not torch.cuda.is_available():
        theirs = build_twins(config).theirs
        theirs.save_intervention(str(tmp_path / "theirs"))
        with pytest.raises(RuntimeError, match="CUDA"):
            theirs.load_intervention(str(tmp_path / "theirs"))

    whole, resumed = build_model(), build_model()
    list(fit(whole, ROWS, FIT, pad_id=0))
    list(islice(fit(build_model(), ROWS, FIT, pad_id=0, checkpoint=tmp_path / "ours"), 12))
    steps = list(fit(resumed, ROWS, FIT, pad_id=0, checkpoint=tmp_path / "ours"))
    assert [metrics.replayed for metrics in steps].count(True) == 10
    for name, value in whole.trainable_parameters().items():
        assert torch.equal(value, resumed.trainable_parameters()[name])
    for _, intervention in resumed.named_interventions():
        assert orthonormality_error(intervention.rotation()) < 1e-5


def bert() -> nn.Module:
    return BertForSequenceClassification(BertConfig(**ENCODER))


def roberta() -> nn.Module:
    return RobertaForSequenceClassification(RobertaConfig(**ENCODER))


ENCODER = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
    "num_labels": 3,
}


@pytest.mark.parametrize(("build", "component"), [(bert, "bert.encoder.layer"), (roberta, "roberta.encoder.layer")])
def test_an_encoder_does_not_load(tmp_path: Path, build: Callable[[], nn.Module], component: str) -> None:
    torch.manual_seed(0)
    base = build()
    edit = authors_intervention("loreft", HIDDEN, EditForm(2, "paper"))
    theirs = authors_model(base, edit, {"component": f"{component}[1].output"})
    theirs.save(str(tmp_path / "theirs"), include_model=True)
    with pytest.raises(KeyError, match="ForSequenceClassification"):
        pyreft.ReftModel.load(str(tmp_path / "theirs"), base, include_model=True)

    rows = [Labelled(row.input_ids, label=len(row.input_ids) % 3) for row in ROWS]
    model = ReftEncoder(base, ReftConfig((1,), "f1", 2), seed=0)
    list(fit(model, rows, FIT, pad_id=1, max_steps=3))
    save_adapter(model, tmp_path / "ours", INFO)
    torch.manual_seed(0)
    loaded = load_encoder(tmp_path / "ours", build(), base_sha256=BASE)
    assert torch.equal(*(each.predict(rows, pad_id=1, batch_size=4) for each in (loaded, model)))


@pytest.fixture(scope="module")
def pair() -> Twins:
    return build_twins(ReftConfig((0, 2), "f2+l2", 2, init="paper", tied=False))


@pytest.fixture(scope="module")
def prompts() -> Batch:
    """Prompts of several lengths, without a token that begins each, padded on the left."""
    return Collator(0)([Encoded(row.prompt_ids, row.prompt_length) for row in ROWS if row.prompt_length > 3][:4])


def starts(batch: Batch) -> list[int]:
    return (batch.attention_mask.shape[1] - batch.prompt_lengths).tolist()


def text(pair: Twins, batch: Batch, decoding: Decoding) -> Tensor:
    return pair.ours.generate(batch.input_ids, batch.attention_mask, decoding)


def test_without_a_cache_the_edit_is_lost_after_the_first_token(pair: Twins, prompts: Batch) -> None:
    """It edits the first pass of a generation, whichever tokens that holds; here places are counted, not passes."""
    cached, whole = (
        pair.authors_text(prompts, starts(prompts), use_cache=cached, max_new_tokens=8) for cached in (True, False)
    )
    assert not torch.equal(cached, whole)

    for use_cache in (True, False):
        assert torch.equal(text(pair, prompts, Decoding(max_new_tokens=8, use_cache=use_cache)), cached)


def test_padding_on_the_left_moves_the_edits_to_other_tokens(pair: Twins, prompts: Batch) -> None:
    """Its places count columns. Its example scripts find a prompt's start by its BOS token, and these have none."""
    by_column = pair.authors_text(prompts, [0] * len(starts(prompts)), max_new_tokens=8)
    ours = text(pair, prompts, Decoding(max_new_tokens=8))
    right = []
    for place, start in enumerate(starts(prompts)):
        ids = tuple(prompts.input_ids[place, start:].tolist())
        alone = pair.authors_text(Collator(0)([Encoded(ids, len(ids))]), [0], max_new_tokens=8)[0]
        assert torch.equal(ours[place, start:], alone)
        right.append(torch.equal(by_column[place, start:], alone))
    assert not all(right)


def test_beams_are_refused(pair: Twins, prompts: Batch) -> None:
    with pytest.raises(IndexError, match="shape mismatch"):
        pair.authors_text(prompts, starts(prompts), num_beams=3, max_new_tokens=4)

    ours = text(pair, prompts, Decoding(max_new_tokens=4, num_beams=3))
    assert torch.equal(ours, pair.authors_text(prompts, starts(prompts), copies=3, num_beams=3, max_new_tokens=4))


@pytest.mark.parametrize("method", ["loreft", "noreft", "direft"])
def test_a_model_in_fp32_does_not_go_with_its_default_settings(method: str) -> None:
    theirs = CLASSES[method](embed_dim=HIDDEN, low_rank_dimension=2, add_bias=False)
    with pytest.raises(RuntimeError, match="same dtype"):
        theirs(torch.randn(3, HIDDEN))

    for dtype in (torch.float32, torch.bfloat16):
        ours = METHODS[method](HIDDEN, EditForm(2, "paper"), torch.Generator().manual_seed(0))
        assert ours(torch.randn(3, HIDDEN).to(dtype)).dtype == dtype
