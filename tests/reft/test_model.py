from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pytest
import torch
from torch import Tensor

from reft.config import ReftConfig
from reft.data import Batch, Collator, Encoded
from reft.decoding import Decoding
from reft.model import ReftModel
from reft.positions import position_masks
from tests.reft.tiny import FAMILIES, VOCABULARY, build_base, build_model, build_rows

CLOSE = {"atol": 1e-4, "rtol": 1e-5}  # of logits of size 10: padding changes the order of fp32 sums


def collate(rows: Sequence[Encoded], side: Literal["left", "right"] = "left") -> Batch:
    return Collator(pad_id=0, padding_side=side)(rows)


def layer_outputs(model: ReftModel, layer: int, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the output of a layer before and after the edit."""
    seen: list[Tensor] = []

    def keep(module: torch.nn.Module, args: object, output: object) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        assert isinstance(hidden, Tensor)
        seen.append(hidden.detach().clone())

    module = model.stack.layers[layer]
    early = module.register_forward_hook(keep)
    with model.editing(batch.attention_mask, batch.prompt_lengths):
        late = module.register_forward_hook(keep)
        with torch.no_grad():
            model.base(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
        late.remove()
    early.remove()
    return seen[0], seen[1]


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_edit_is_where_the_mask_says_and_all_else_keeps_its_bits(family: str) -> None:
    model = build_model(family, layers=(1,))
    batch = collate(build_rows(5))
    before, after = layer_outputs(model, 1, batch)
    mask = position_masks(model.config.positions_at(1), batch.attention_mask, batch.prompt_lengths).either
    assert torch.equal(before[~mask], after[~mask])
    assert (before[mask] != after[mask]).any(-1).all()
    with torch.no_grad():
        assert torch.equal(after[mask], model.interventions["layer_1"](before[mask]))


def test_logits_before_the_first_edit_keep_their_bits() -> None:
    model = build_model(positions="l1")
    batch = collate([Encoded((5, 6, 7, 8, 9), 4)])
    with torch.no_grad():
        edited = model(batch)
        with model.disabled():
            plain = model(batch)
    assert torch.equal(edited[:, :3], plain[:, :3])
    assert (edited[:, 3:] != plain[:, 3:]).any(-1).all()


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("tied", [True, False])
def test_a_padded_batch_equals_each_row_alone(family: str, tied: bool) -> None:
    model = build_model(family, tied=tied)
    rows = build_rows(5)
    for side in ("left", "right"):
        batch = collate(rows, side)
        with torch.no_grad():
            together = model(batch)
            for place, row in enumerate(rows):
                alone = model(collate([row]))[0]
                torch.testing.assert_close(together[place][batch.attention_mask[place].bool()], alone, **CLOSE)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_identity_start_gives_the_bases_logits(family: str) -> None:
    model = build_model(family, init="identity")
    batch = collate(build_rows(4))
    with torch.no_grad():
        edited = model(batch)
        with model.disabled():
            assert torch.equal(edited, model(batch))


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


def prompts(lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
    torch.manual_seed(3)
    rows = [Encoded(tuple(torch.randint(1, VOCABULARY, (n,)).tolist()), n) for n in lengths]
    batch = collate(rows)
    return batch.input_ids, batch.attention_mask


def by_hand_greedy(model: ReftModel, ids: Tensor, mask: Tensor, count: int) -> Tensor:
    """Decode by whole forward passes, with the prompt's length kept."""
    lengths = mask.sum(-1)
    for _ in range(count):
        with torch.no_grad():
            logits = model(Batch(ids, mask, ids, lengths), logits_to_keep=1)
        ids = torch.cat([ids, logits.argmax(-1)], dim=-1)
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=-1)
    return ids


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("positions", ["f2+l2", "l3"])
def test_cache_on_off_and_chunked_decode_alike(family: str, positions: str) -> None:
    model = build_model(family, positions=positions)
    ids, mask = prompts([7, 4, 1])
    expected = by_hand_greedy(model, ids, mask, 6)
    for use_cache in (True, False):
        assert torch.equal(model.generate(ids, mask, Decoding(max_new_tokens=6, use_cache=use_cache)), expected)
    if family != "bloom":  # its own mask code takes one chunk alone
        assert torch.equal(model.generate(ids, mask, Decoding(max_new_tokens=6, prefill_chunk_size=3)), expected)
    with model.disabled():
        assert not torch.equal(model.generate(ids, mask, Decoding(max_new_tokens=6)), expected)


def test_generation_in_a_padded_batch_equals_each_prompt_alone() -> None:
    model = build_model()
    lengths = [7, 4, 2]
    ids, mask = prompts(lengths)
    together = model.generate(ids, mask, Decoding(max_new_tokens=5))
    for place, length in enumerate(lengths):
        alone = model.generate(
            ids[place : place + 1, -length:], mask[place : place + 1, -length:], Decoding(max_new_tokens=5)
        )
        assert torch.equal(together[place, -length - 5 :], alone[0])


@pytest.mark.parametrize("use_cache", [True, False])
def test_beams_edit_each_rows_own_tokens(use_cache: bool) -> None:
    model = build_model()
    lengths = [6, 3]
    ids, mask = prompts(lengths)
    together = model.generate(ids, mask, Decoding(max_new_tokens=4, num_beams=3, use_cache=use_cache))
    for place, length in enumerate(lengths):
        alone = model.generate(
            ids[place : place + 1, -length:], mask[place : place + 1, -length:], Decoding(max_new_tokens=4, num_beams=3)
        )
        assert torch.equal(together[place, -length - 4 :], alone[0])


def test_several_samples_of_a_prompt_are_edited() -> None:
    model = build_model(positions="l1")
    ids, mask = prompts([5, 4])
    torch.manual_seed(0)
    drawn = model.generate(ids, mask, Decoding(max_new_tokens=1, do_sample=True, top_p=1e-6, num_return_sequences=2))
    assert torch.equal(drawn, model.generate(ids, mask, Decoding(max_new_tokens=1)).repeat_interleave(2, dim=0))


def test_generation_from_padding_on_the_right_is_refused() -> None:
    with pytest.raises(ValueError, match="pad left"):
        build_model().generate(torch.ones(1, 2).long(), torch.tensor([[1, 0]]), Decoding(max_new_tokens=1))


def test_a_layer_the_base_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="below 3"):
        build_model(layers=(0, 3))


def test_a_base_without_one_list_of_layers_is_refused() -> None:
    base = build_base()
    base.second = torch.nn.ModuleList(torch.nn.Identity() for _ in range(3))
    with pytest.raises(ValueError, match="exactly one list of 3 layers"):
        ReftModel(base, ReftConfig((0,), "l1", 1), seed=0)
