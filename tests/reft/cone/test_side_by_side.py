"""Rows that run side by side to fill constants have the bits of each alone, or run alone."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reft.cone.compute
from reft.cone.compute import Prompts
from reft.cone.constants import Constants, RowKey, Want
from reft.cone.keeper import ConeConfig, keeper_of, set_cone
from reft.cone.side_by_side import SideBySide, by_twos, padded_length, whole_vectors
from reft.data import Encoded
from reft.edits.config import ReftConfig
from reft.models.decoder import ReftModel, causal_stack
from reft.training.fit import fit
from reft.training.schedule import FitConfig
from tests.reft.families import DECODERS, build


def wide(family: str = "llama", intermediate: int = 512) -> Any:
    """A base whose products are no longer those for tiny matrices."""
    base = build(DECODERS[family])
    config = copy.deepcopy(base.config)
    config.update({"hidden_size": 192, "intermediate_size": intermediate})
    if "head_dim" in config.to_dict():
        config.head_dim = 48
    torch.manual_seed(0)
    return type(base)(config).eval()


def lacking(count: int, tokens: int, after: int = 2) -> dict[RowKey, Want]:
    """Prompts of one length; each is continued by tokens of its own, every other by one less."""
    keys = [(tuple((place * 7 + token * 3) % 30 for token in range(tokens)),) for place in range(count)]
    afters = [tuple((place + token) % 30 for token in range(after - place % 2)) for place in range(count)]
    return {key: Want(frozenset([(0, ()), (1, ()), (1, after)]), 1) for key, after in zip(keys, afters, strict=True)}


def each_alone(base: Any, wanted: Mapping[RowKey, Want]) -> list[Constants]:
    return [Prompts(base, causal_stack(base), SideBySide()).compute({key: want})[0] for key, want in wanted.items()]


def same_bits(some: Sequence[Constants], others: Sequence[Constants]) -> bool:
    return all(
        one.record() == other.record()
        and one.tensors().keys() == other.tensors().keys()
        and all(torch.equal(tensor, other.tensors()[name]) for name, tensor in one.tensors().items())
        for one, other in zip(some, others, strict=True)
    )


@pytest.fixture(params=[2, 5])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(1)


@pytest.mark.parametrize("family", sorted(DECODERS))
def test_of_any_type_rows_have_the_same_bits_side_by_side_as_alone(family: str) -> None:
    """Whatever the processor; only experts are known never to run side by side."""
    base, known = wide(family), SideBySide()
    for count, tokens in ((5, 8), (4, 13)):
        wanted = lacking(count, tokens, after=4)
        assert same_bits(Prompts(base, causal_stack(base), known).compute(wanted), each_alone(base, wanted))
    tried = {(0, 8, 4), (0, 13, 4), (8, 4, 2), (13, 4, 2), (8, 3, 2), (13, 3, 2)}
    assert {shape for shape, _ in known.same} == (set() if family in ("gpt_oss", "mixtral") else tried)


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_of_any_length_and_number_too(family: str) -> None:
    base, known = wide(family), SideBySide()
    for tokens in (8, 13, 32):
        for count in (7, 2, 16):
            wanted = lacking(count, tokens, after=8)
            assert same_bits(Prompts(base, causal_stack(base), known).compute(wanted), each_alone(base, wanted))
    assert {rows for (_, _, rows), _ in known.same} == {2, 4, 8, 16}  # whatever was found of them


@pytest.mark.parametrize("family", ["bloom", "gemma3_text", "gpt2", "llama"])
def test_rows_of_about_one_length_share_a_pass_and_have_the_bits_of_each_alone(family: str) -> None:
    """33 tokens are made 34; what continues them comes after their own."""
    base, known = wide(family), SideBySide()
    prompts = [lacking(1, tokens) for tokens in (33, 34)]
    bare: dict[RowKey, Want] = {key: Want(frozenset([(0, ())]), 1) for each in prompts for key in each}
    found = Prompts(base, causal_stack(base), known).compute(bare)
    assert same_bits(found, each_alone(base, bare))
    assert {shape for shape, _ in known.same} == {(0, 34, 2)}
    assert [len(each.outputs[0, ()]) for each in found] == [33, 34]
    assert [each.keys_values.shape[3] for each in found if each.keys_values is not None] == [32, 33]
    continued = {key: want for each in prompts for key, want in each.items()}
    assert same_bits(Prompts(base, causal_stack(base), known).compute(continued), each_alone(base, continued))


@pytest.mark.parametrize("family", ["bloom", "gemma2", "gemma3_text", "gpt2", "llama"])
def test_no_token_sees_those_that_make_its_row_longer(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    base, wanted = wide(family).double(), lacking(1, 33)
    (padded,) = each_alone(base, wanted)
    monkeypatch.setattr(reft.cone.compute, "padded_length", lambda tokens: tokens)
    (plain,) = each_alone(base, wanted)
    for name, tensor in plain.tensors().items():
        torch.testing.assert_close(padded.tensors()[name], tensor, rtol=1e-10, atol=1e-12)


def test_a_row_is_made_no_longer_than_its_base_has_places() -> None:
    config = copy.deepcopy(wide("gpt2").config)
    config.n_positions = 65
    torch.manual_seed(0)
    base = type(wide("gpt2"))(config).eval()
    (found,) = each_alone(base, {key: Want(frozenset([(0, ())])) for key in lacking(1, 65)})
    assert len(found.outputs[0, ()]) == 65


def test_a_row_is_made_at_most_a_sixteenth_longer() -> None:
    lengths = [padded_length(tokens) for tokens in range(1, 3000)]
    assert lengths == sorted(lengths)
    assert all(tokens <= length < tokens * (1 + 1 / 16) for tokens, length in enumerate(lengths, start=1))
    assert [padded_length(tokens) for tokens in (32, 33, 65, 68, 69)] == [32, 34, 68, 68, 72]


def test_in_several_threads_too(threads: int) -> None:
    """Four rows have activations that are split between threads, one has not; 81 tokens are made 84."""
    base, known, wanted = wide("llama"), SideBySide(), lacking(4, 81)
    assert same_bits(Prompts(base, causal_stack(base), known).compute(wanted), each_alone(base, wanted))
    if threads == 5:
        assert known.same[(0, 84, 4), 0] is False  # the largest share is of 34407 numbers, which is no multiple of 64


def test_every_kind_of_layer_is_tried_and_layers_of_one_kind_once() -> None:
    """Layers that look at a window are of another kind than those that do not; weights' values are none."""
    base, known = wide("gemma3_text"), SideBySide()
    assert list(known.kinds(causal_stack(base))) == [0, 1, 0]
    Prompts(base, causal_stack(base), known).compute(lacking(4, 32))
    assert {layer for shape, layer in known.same if shape == (0, 32, 4)} == {0, 1}
    assert set(SideBySide().kinds(causal_stack(wide("llama")))) == {0}


def other_bits(_module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """What a processor may do: the last token beside others than alone has one bit more."""
    changed = output.clone()
    changed[:, -1, 0] *= 1 + (2**-20 if len(given[0]) > 1 else 0)
    return changed


@pytest.mark.parametrize("layer", [0, 1])
def test_a_layer_of_another_kind_that_has_other_bits_is_seen(layer: int) -> None:
    """As on a processor where the first layer, which looks at a window of 4, has the same and the second has not."""
    base, known, wanted = wide("gemma3_text"), SideBySide(), lacking(4, 32)
    base.model.layers[layer].mlp.down_proj.register_forward_hook(other_bits)
    alone = each_alone(base, wanted)
    assert same_bits(Prompts(base, causal_stack(base), known).compute(wanted), alone)
    assert known.same[(0, 32, 4), layer] is False


@pytest.mark.parametrize(
    ("numbers", "threads", "whole"),
    [
        (13 * 1536, 1, True),
        (13 * 24, 1, False),  # 312 = 4 * 64 + 56
        (13 * 1536, 5, True),  # too few to be split
        (16 * 13 * 1536, 2, True),
        (16 * 13 * 1536, 5, False),  # shares of 63898
        (16 * 13 * 1536, 3, True),
        (0, 2, True),
    ],
)
def test_activations_that_leave_numbers_over_are_told_by_counting(numbers: int, threads: int, whole: bool) -> None:
    assert whole_vectors(numbers, threads) is whole


def test_an_activation_that_leaves_numbers_over_runs_each_row_alone() -> None:
    """Those numbers have another formula, whose bits differ in one of some thousand rows."""
    base, known = wide("llama", intermediate=24), SideBySide()
    wanted = lacking(4, 13)
    assert same_bits(Prompts(base, causal_stack(base), known).compute(wanted), each_alone(base, wanted))
    assert known.same[(0, 13, 4), 0] is False


def test_rows_are_taken_by_powers_of_two() -> None:
    for rows in range(1, 40):
        counts = by_twos(rows)
        assert sum(counts) == rows
        assert counts == sorted({1 << bit for bit in range(6)} & set(counts), reverse=True)


def test_experts_run_each_row_alone() -> None:
    """How large their products are follows from what the rows say, so that no row vouches for another."""
    base, wanted = wide("mixtral"), lacking(16, 31)
    skewed: dict[RowKey, Want] = {
        ((5,) * (31 - place) + (7,) * place,): want for place, want in enumerate(wanted.values())
    }
    known = SideBySide()
    for each in (wanted, skewed):
        assert same_bits(Prompts(base, causal_stack(base), known).compute(each), each_alone(base, each))
    assert known.same == {}


def test_many_continuations_of_a_prompt_are_run_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    base = wide()
    afters = [(place % 30, place // 30) for place in range(50)]
    want = Want(frozenset([(0, ()), *((0, after) for after in afters)]), 1)
    wanted: dict[RowKey, Want] = {((1, 2, 3),): want, ((4, 5, 6),): want}
    largest = 0
    run_behind = reft.cone.compute.run_behind

    def noted(*given: Any) -> Tensor:
        nonlocal largest
        largest = max(largest, *(len(keys) for keys, _ in given[3].frozen.values()), 0)
        assert all(layer == 0 for layer in given[3].frozen)
        return run_behind(*given)

    alone = each_alone(base, wanted)
    monkeypatch.setattr(reft.cone.compute, "run_behind", noted)
    assert same_bits(Prompts(base, causal_stack(base), SideBySide()).compute(wanted), alone)
    assert 1 < largest <= 16


def test_a_machine_that_gives_other_bits_side_by_side_runs_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    base, wanted = wide(), lacking(4, 32)
    passes: list[int] = []
    run_behind = reft.cone.compute.run_behind

    def noted(*given: Any) -> Tensor:
        passes.append(len(given[1]))
        return run_behind(*given)

    base.model.layers[0].self_attn.k_proj.register_forward_hook(other_bits)
    alone = each_alone(base, wanted)
    monkeypatch.setattr(reft.cone.compute, "run_behind", noted)
    known = SideBySide()
    for first in (True, False):
        passes.clear()
        assert same_bits(Prompts(base, causal_stack(base), known).compute(wanted), alone)
        assert passes[: 9 if first else 4] == ([4, 1, 1, 1, 1] if first else []) + [1, 1, 1, 1]
        assert (4 in passes, 2 in passes) == (first, first)  # of continuations there are two of each length
    assert not any(known.same.values())


def test_a_training_on_such_rows_ends_with_the_same_bits_within_every_budget() -> None:
    """Within a small one rows run by fewer, or alone, and again in every epoch."""
    rows = [Encoded(tuple((place * 5 + token * 3) % 30 for token in range(26)), 24) for place in range(12)]
    config = FitConfig(
        epochs=2, batch_size=4, accumulation=1, learning_rate=1e-2, warmup_ratio=0.0, weight_decay=0.0,
        max_grad_norm=1.0, seed=3, checkpoint_every=100,
    )  # fmt: skip
    found, together = [], []
    kept: list[int] = []
    for share in (1.0, 0.5, 0.0):
        base = wide()
        set_cone(base, ConeConfig(memory_bytes=int(share * (kept[0] if kept else 1 << 30))))
        model = ReftModel(base, ReftConfig((0,), "l2", 2, init="paper"), seed=1)
        losses = [step.loss for step in fit(model, rows, config, pad_id=0)]
        store = keeper_of(base).store(base)
        assert store is not None
        kept.append(store.nbytes)
        together.append(max((rows for (_, _, rows), _ in keeper_of(base).side_by_side.same), default=1))
        found.append((losses, [value.detach().clone() for value in model.trainable_parameters().values()]))
    assert kept[0] > kept[1] > kept[2] == 0
    assert together[0] > together[1] > together[2] == 1
    for losses, values in found[1:]:
        assert losses == found[0][0]
        assert all(torch.equal(*pair) for pair in zip(values, found[0][1], strict=True))
