from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pytest
import torch
from torch import Tensor

from reft.data import Batch, Collator, Encoded
from reft.edits.config import LayerOverride, ReftConfig
from reft.models.decoder import ReftModel
from tests.reft.tiny import build_base, build_model, build_rows, layer_outputs

CLOSE = {"atol": 1e-4, "rtol": 1e-5}  # of logits of size 10: padding changes the order of fp32 sums


def collate(rows: Sequence[Encoded], side: Literal["left", "right"] = "left") -> Batch:
    return Collator(pad_id=0, padding_side=side)(rows)


def test_logits_before_the_first_edit_keep_their_bits() -> None:
    model = build_model(positions="l1")
    batch = collate([Encoded((5, 6, 7, 8, 9), 4)])
    with torch.no_grad():
        edited = model(batch)
        with model.disabled():
            plain = model(batch)
    assert torch.equal(edited[:, :3], plain[:, :3])
    assert (edited[:, 3:] != plain[:, 3:]).any(-1).all()


def test_the_base_is_left_as_it_was() -> None:
    """No hook stays after a call, also after one that failed; so models can share a base."""
    base = build_base()
    batch = collate(build_rows(3))
    with torch.no_grad():
        plain = base(batch.input_ids, attention_mask=batch.attention_mask).logits
        model = ReftModel(base, ReftConfig((0, 1), "l1", 2, init="paper"), seed=0)
        model(batch)
        with pytest.raises(IndexError):
            model(Batch(batch.input_ids + 10_000, batch.attention_mask, batch.labels, batch.prompt_lengths))
        assert torch.equal(plain, base(batch.input_ids, attention_mask=batch.attention_mask).logits)


def test_the_base_stays_frozen_and_in_evaluation_mode() -> None:
    model = build_model().train()
    assert not model.base.training
    assert all(name.startswith("interventions.") for name in model.trainable_parameters())
    model.loss(collate(build_rows(3))).backward()
    assert all(parameter.grad is None for parameter in model.base.parameters())
    assert all(parameter.grad is not None for parameter in model.trainable_parameters().values())


@pytest.mark.parametrize("side", ["left", "right"])
def test_loss_is_the_mean_over_label_tokens(side: Literal["left", "right"]) -> None:
    model = build_model()
    rows = build_rows(4)
    by_hand = []
    with torch.no_grad():
        for row in rows:
            log_probabilities = model(collate([row]))[0].log_softmax(-1)
            for column in range(row.prompt_length, len(row.input_ids)):
                by_hand.append(-log_probabilities[column - 1, row.input_ids[column]])
        torch.testing.assert_close(model.loss(collate(rows, side)), torch.stack(by_hand).mean(), **CLOSE)


def test_logits_to_keep_are_the_last_columns_also_where_the_base_cannot() -> None:
    model = build_model()
    batch = collate(build_rows(4))
    with torch.no_grad():
        full = model(batch)
        torch.testing.assert_close(model(batch, logits_to_keep=2), full[:, -2:])
        whole = model.base.forward
        model.base.forward = lambda input_ids, attention_mask, use_cache, position_ids: whole(  # type: ignore[method-assign]
            input_ids=input_ids, attention_mask=attention_mask, use_cache=use_cache, position_ids=position_ids
        )
        assert torch.equal(model(batch, logits_to_keep=2), full[:, -2:])


def test_both_ends_have_their_own_intervention_when_untied() -> None:
    model = build_model(tied=False, layers=(1,))
    batch = collate([Encoded(tuple(range(1, 9)), 8)])
    before, after = layer_outputs(model, 1, batch)
    with torch.no_grad():
        first = model.interventions["layer_1_first"](before[0, :2])
        last = model.interventions["layer_1_last"](before[0, -2:])
    assert torch.equal(after[0, :2], first)
    assert torch.equal(after[0, -2:], last)


@pytest.mark.parametrize("tied", [True, False])
def test_each_layer_is_edited_at_its_own_positions(tied: bool) -> None:
    own = (LayerOverride(0, rank=1, positions="all"), LayerOverride(1, positions="1:2,4:5"))
    base = build_base()
    model = ReftModel(base, ReftConfig((0, 1, 2), "f1+l2", 4, init="paper", tied=tied, overrides=own), seed=1)
    batch = collate([Encoded(tuple(range(1, 9)), 6), Encoded(tuple(range(11, 15)), 3)], "right")
    edited = {0: ([0, 1, 2, 3, 4, 5], [0, 1, 2]), 1: ([1, 4], [1])}
    for layer, places in edited.items():
        before, after = layer_outputs(model, layer, batch)
        changed = (before != after).any(-1)
        assert [row.nonzero().flatten().tolist() for row in changed] == [list(row) for row in places]
    before, after = top_outputs(model, batch)
    assert [row.nonzero().flatten().tolist() for row in (before != after).any(-1)] == [[0, 4, 5], [0, 2]]


def top_outputs(model: ReftModel, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the last layer's output before the edit and what the final norm gets."""
    seen: list[Tensor] = []
    hooks = [
        model.stack.layers[-1].register_forward_hook(lambda _module, _args, output: seen.append(output)),
        model.base.model.norm.register_forward_pre_hook(lambda _module, args: seen.append(args[0])),
    ]
    with torch.no_grad():
        model(batch)
    for hook in hooks:
        hook.remove()
    return seen[0], seen[1]


def test_a_layer_the_base_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="below 3"):
        build_model(layers=(0, 3))


def test_a_base_without_one_list_of_layers_is_refused() -> None:
    base = build_base()
    base.second = torch.nn.ModuleList(torch.nn.Identity() for _ in range(3))
    with pytest.raises(ValueError, match="exactly one list of 3 layers"):
        ReftModel(base, ReftConfig((0,), "l1", 1), seed=0)
