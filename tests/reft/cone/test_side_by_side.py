"""Rows that run side by side to fill constants have the bits of each alone, or run alone."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reft.cone.compute
from reft.cone.compute import Prompts
from reft.cone.constants import Constants, RowKey, Want
from reft.cone.keeper import ConeConfig, keeper_of, set_cone
from reft.data import Encoded
from reft.edits.config import ReftConfig
from reft.models.decoder import ReftModel, causal_stack
from reft.training.fit import fit
from reft.training.schedule import FitConfig
from tests.reft.families import DECODERS, build
from tests.reft.tiny import build_base


def wide(family: str = "llama") -> Any:
    """A base whose products are no longer those for tiny matrices."""
    base = build(DECODERS[family])
    config = copy.deepcopy(base.config)
    config.update({"hidden_size": 192, "intermediate_size": 512, "head_dim": 48})
    torch.manual_seed(0)
    return type(base)(config).eval()


def lacking(count: int, tokens: int, after: int = 2) -> dict[RowKey, Want]:
    """Prompts of one length; each is continued by tokens of its own, every other by one less."""
    keys = [(tuple((place * 7 + token * 3) % 30 for token in range(tokens)),) for place in range(count)]
    afters = [tuple((place + token) % 30 for token in range(after - place % 2)) for place in range(count)]
    return {key: Want(frozenset([(0, ()), (1, ()), (1, after)]), 1) for key, after in zip(keys, afters, strict=True)}


def each_alone(base: Any, wanted: Mapping[RowKey, Want]) -> list[Constants]:
    return [Prompts(base, causal_stack(base), {}).compute({key: want})[0] for key, want in wanted.items()]


def same_bits(some: Sequence[Constants], others: Sequence[Constants]) -> bool:
    return all(
        one.record() == other.record()
        and one.tensors().keys() == other.tensors().keys()
        and all(torch.equal(tensor, other.tensors()[name]) for name, tensor in one.tensors().items())
        for one, other in zip(some, others, strict=True)
    )


@pytest.mark.parametrize("family", sorted(DECODERS))
def test_of_any_type_rows_have_the_same_bits_side_by_side_as_alone(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reft.cone.compute, "_FEW", 0)
    base, wanted = build(DECODERS[family]), lacking(5, 8, after=4)
    same: dict[tuple[int, int, int], bool] = {}
    assert same_bits(Prompts(base, causal_stack(base), same).compute(wanted), each_alone(base, wanted))
    assert set(same) == (set() if family in ("gpt_oss", "mixtral") else {(0, 8, 5), (8, 4, 3), (8, 3, 2)})


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_of_any_length_and_number_too_where_they_do_run_side_by_side(family: str) -> None:
    base = wide(family)
    same: dict[tuple[int, int, int], bool] = {}
    for tokens in (8, 13, 31, 32, 47):
        for count in (7, 2, 5, 16):
            wanted = lacking(count, tokens, after=8)
            assert same_bits(Prompts(base, causal_stack(base), same).compute(wanted), each_alone(base, wanted))
    assert {tokens for before, tokens, _ in same if not before} == {8, 13, 31, 32, 47}  # whatever was found of them
    assert (31, 8, 8) in same


def test_experts_run_each_row_alone() -> None:
    """How large their products are follows from what the rows say, so that no row vouches for another."""
    base, wanted = wide("mixtral"), lacking(16, 31)
    skewed = {((5,) * (31 - place) + (7,) * place,): want for place, want in enumerate(wanted.values())}
    same: dict[tuple[int, int, int], bool] = {}
    for each in (wanted, skewed):
        assert same_bits(Prompts(base, causal_stack(base), same).compute(each), each_alone(base, each))
    assert same == {}


def test_many_continuations_of_a_prompt_are_run_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    base = build_base()
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
    monkeypatch.setattr(reft.cone.compute, "_FEW", 0)
    assert same_bits(Prompts(base, causal_stack(base), {}).compute(wanted), alone)
    assert 1 < largest <= 16


def test_a_machine_that_gives_other_bits_side_by_side_runs_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    base, wanted = wide(), lacking(4, 13)
    alone = each_alone(base, wanted)
    passes: list[int] = []
    run_behind = reft.cone.compute.run_behind

    def noted(*given: Any) -> Tensor:
        passes.append(len(given[1]))
        return run_behind(*given)

    def other_bits(_module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output * (1 + 2**-20) if len(given[0]) > 1 else output

    monkeypatch.setattr(reft.cone.compute, "run_behind", noted)
    base.get_input_embeddings().register_forward_hook(other_bits)
    same: dict[tuple[int, int, int], bool] = {}
    for known in (False, True):
        passes.clear()
        assert same_bits(Prompts(base, causal_stack(base), same).compute(wanted), alone)
        assert same == {(0, 13, 4): False}  # of the continuations there are too few numbers
        assert passes == ([] if known else [4, 1, 1, 1, 1]) + [1] * 8


def test_a_training_on_such_rows_ends_with_the_same_bits_within_every_budget() -> None:
    """Within a small one rows run by fewer, or alone, and again in every epoch."""
    rows = [Encoded(tuple((place * 5 + token * 3) % 30 for token in range(26)), 24) for place in range(12)]
    config = FitConfig(
        epochs=2, batch_size=4, accumulation=1, learning_rate=1e-2, warmup_ratio=0.0, weight_decay=0.0,
        max_grad_norm=1.0, seed=3, checkpoint_every=100,
    )  # fmt: skip
    found, kept, together = [], [], []
    for share in (1.0, 0.5, 0.0):
        base = wide()
        set_cone(base, ConeConfig(memory_bytes=int(share * (kept[0] if kept else 1 << 30))))
        model = ReftModel(base, ReftConfig((0,), "l2", 2, init="paper"), seed=1)
        losses = [step.loss for step in fit(model, rows, config, pad_id=0)]
        store = keeper_of(base).store(base)
        assert store is not None
        kept.append(store.nbytes)
        together.append(max((count for _, _, count in keeper_of(base).side_by_side), default=1))
        found.append((losses, [value.detach().clone() for value in model.trainable_parameters().values()]))
    assert kept[0] > kept[1] > kept[2] == 0
    assert together[0] > together[1] > together[2] == 1
    for losses, values in found[1:]:
        assert losses == found[0][0]
        assert all(torch.equal(*pair) for pair in zip(values, found[0][1], strict=True))
