"""The authors' library and this one on the same tiny Llama with the same weights: logits, losses, gradients, text."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import RobertaConfig, RobertaForSequenceClassification

from benchmarks.sides.authors import CLASSES, authors_intervention, pyreft
from reft.data import Batch, Collator, Encoded
from reft.edits.config import LayerOverride, ReftConfig
from reft.models.decoding import Decoding
from reft.models.encoder import Labelled, ReftEncoder
from tests.reft.authors import (
    Twins,
    assert_same_gradient,
    authors_tensors,
    build_twins,
    pull_back,
    record_rotations,
    rotation_gradient,
    tangent,
)
from tests.reft.tiny import HIDDEN, VOCABULARY, build_rows

CLOSE = {"atol": 1e-5, "rtol": 0.0}  # of logits of size 1
NEW = {"max_new_tokens": 8}
ROWS = [row for row in build_rows(12) if row.prompt_length > 1]  # of a prompt of one token pyreft edits nothing


def twins(method: str = "loreft", positions: str = "f2+l2", *, tied: bool = True) -> Twins:
    return build_twins(ReftConfig((0, 2), positions, 2, method=method, init="paper", tied=tied))


def logits(pair: Twins, rows: list[Encoded]) -> tuple[Tensor, Tensor, Tensor]:
    """Return our logits, pyreft's, and those of the base, of the real tokens of a batch padded on the right."""
    batch = Collator(0, "right")(rows)
    real = batch.attention_mask.bool()
    with torch.no_grad():
        ours, theirs = pair.ours(batch), pair.authors_logits(rows)
        with pair.ours.disabled():
            return ours[real], theirs[real], pair.ours(batch)[real]


@pytest.mark.parametrize("method", CLASSES)
@pytest.mark.parametrize("tied", [True, False])
def test_logits_of_a_padded_batch(method: str, tied: bool) -> None:
    assert {row.prompt_length < 4 for row in ROWS} == {True, False}, "prompts too short for f2+l2 among them"
    ours, theirs, plain = logits(twins(method, tied=tied), ROWS)
    torch.testing.assert_close(ours, theirs, **CLOSE)
    assert (theirs - plain).abs().max() > 0.1


@pytest.mark.parametrize("positions", ["f3", "l3", "f1+l3"])
def test_logits_at_other_positions(positions: str) -> None:
    rows = [row for row in ROWS if row.prompt_length >= 6]
    assert len(rows) > 1
    ours, theirs, _ = logits(twins(positions=positions, tied=False), rows)
    torch.testing.assert_close(ours, theirs, **CLOSE)


def test_logits_with_a_rank_of_its_own_for_a_layer() -> None:
    config = ReftConfig((0, 1, 2), "f2+l2", 2, init="paper", overrides=(LayerOverride(1, rank=5),))
    ours, theirs, _ = logits(build_twins(config), ROWS)
    torch.testing.assert_close(ours, theirs, **CLOSE)


def test_a_prompt_of_one_token_is_edited_here_alone() -> None:
    ours, theirs, plain = logits(twins(), [Encoded((5, 6, 7), 1)])
    torch.testing.assert_close(theirs, plain, **CLOSE)
    assert (ours - plain).abs().max() > 0.1


@pytest.mark.parametrize("method", ["loreft", "direft"])
def test_loss_and_gradients(method: str) -> None:
    # Not the last layer: there no label depends on the first tokens.
    pair = build_twins(ReftConfig((0, 1), "f2+l2", 2, method=method, init="paper", tied=False))
    given = {ours: record_rotations(ours.rotation) for ours, _ in pair.interventions() if method == "loreft"}
    loss = pair.ours.loss(Collator(0, "right")(ROWS))
    loss.backward()
    inputs = pair.authors_inputs(ROWS)
    labels = torch.full_like(inputs["base"]["input_ids"], -100)
    for place, row in enumerate(ROWS):
        labels[place, 1 + row.prompt_length : 1 + row.num_tokens] = torch.tensor(row.input_ids[row.prompt_length :])
    expected = pair.theirs(**inputs, labels=labels)[1].loss
    expected.backward()
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=0)
    for ours, theirs in pair.interventions():
        assert_same_gradient(ours.weight.grad, theirs.learned_source.weight.grad, 1e-5)
        assert_same_gradient(ours.bias.grad, theirs.learned_source.bias.grad, 1e-5)
        if method == "direft":
            assert_same_gradient(ours.projection.grad, theirs.proj_layer.weight.grad, 1e-5)
        else:
            along = tangent(theirs.rotate_layer.weight.detach(), rotation_gradient(given[ours]))
            seen = theirs.rotate_layer.parametrizations.weight.original.grad
            assert_same_gradient(pull_back(theirs, along), seen, 1e-5)


def prompts() -> tuple[Batch, list[int]]:
    """Return prompts of three lengths, padded on the left, and the columns where they start."""
    rows = [Encoded(row.prompt_ids, row.prompt_length) for row in build_rows(40) if row.prompt_length in (4, 6, 8)][:4]
    batch = Collator(0, "left")(rows)
    starts = [batch.input_ids.shape[1] - row.prompt_length for row in rows]
    assert len(set(starts)) == 3
    return batch, starts


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("method", ["loreft", "direft"])
def test_greedy_text(method: str, tied: bool) -> None:
    """pyreft edits the first pass of a generation alone, which with a cache is the prompt's; left padding is moved."""
    pair, (batch, starts) = twins(method, tied=tied), prompts()
    theirs = pair.authors_text(batch, starts, use_cache=True, **NEW)
    ours = pair.ours.generate(batch.input_ids, batch.attention_mask, Decoding(**NEW))
    assert torch.equal(ours, theirs)
    with pair.ours.disabled():
        assert not torch.equal(ours, pair.ours.generate(batch.input_ids, batch.attention_mask, Decoding(**NEW)))
    for place, start in enumerate(starts):
        row = slice(place, place + 1)
        alone = pair.ours.generate(batch.input_ids[row, start:], batch.attention_mask[row, start:], Decoding(**NEW))
        assert torch.equal(alone[0], theirs[place, start:]), "the same text without padding"


def test_text_of_a_beam_search() -> None:
    """pyreft takes beams when its places are repeated for each of them by hand."""
    pair, (batch, starts) = twins(tied=False), prompts()
    theirs = pair.authors_text(batch, starts, copies=3, num_beams=3, **NEW)
    ours = pair.ours.generate(batch.input_ids, batch.attention_mask, Decoding(num_beams=3, **NEW))
    assert torch.equal(ours, theirs)


def test_answers_of_an_encoder() -> None:
    """At the first two tokens of a text, as in the authors' GLUE recipes."""
    torch.manual_seed(0)
    base = RobertaForSequenceClassification(
        RobertaConfig(
            vocab_size=VOCABULARY,
            hidden_size=HIDDEN,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=40,
            num_labels=3,
            initializer_range=0.2,
        )
    )
    model = ReftEncoder(base, ReftConfig((0, 1), "f2", 2, init="paper"), seed=0)
    representations = []
    for layer, (_, intervention) in enumerate(model.named_interventions()):
        theirs = authors_intervention("loreft", HIDDEN, intervention.form)
        intervention.import_tensors(authors_tensors(theirs))
        representations.append({"component": f"roberta.encoder.layer[{layer}].output", "intervention": theirs})
    rows = [Labelled(row.input_ids, label=0) for row in ROWS]
    batch = model.collate(rows, pad_id=1)
    authors = pyreft.get_reft_model(base, pyreft.ReftConfig(representations=representations))
    places = {"sources->base": (None, [[[0, 1]] * len(rows)] * 2)}
    with torch.no_grad():
        inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        expected = authors(inputs, unit_locations=places)[1].logits
        torch.testing.assert_close(model.eval()(batch), expected, **CLOSE)
        with model.disabled():
            assert (model(batch) - expected).abs().max() > 0.1
