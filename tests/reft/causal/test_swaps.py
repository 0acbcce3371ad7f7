"""Interchange interventions: their identities, and the same figures as pyvene's classes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from reft.causal import BoundlessSwap, RotatedSwap, UnitSwap, VectorSwap
from reft.edits.orthogonal import qf

HIDDEN = 12
CLOSE = {"rtol": 0.0, "atol": 1e-6}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def states(seed: int = 1, *, tokens: int = 3) -> tuple[Tensor, Tensor]:
    drawn = torch.randn(2, 4, tokens, HIDDEN, generator=generator(seed)) / 4  # rounding in fp32 is then below 1e-6
    return drawn[0], drawn[1]


def rotated(**ranks: int) -> RotatedSwap:
    return RotatedSwap(HIDDEN, ranks, generator())


def boundless(temperature: float, share: float) -> BoundlessSwap:
    swap = BoundlessSwap(HIDDEN, "v", generator())
    swap.temperature = temperature
    with torch.no_grad():
        swap.boundary.fill_(share)
    return swap


def test_a_rotation_of_full_rank_gives_the_source() -> None:
    base, source = states()
    torch.testing.assert_close(rotated(v=HIDDEN)(base, source, "v"), source, **CLOSE)


@pytest.mark.parametrize(
    "swap", [rotated(v=4), boundless(2.0, 0.5), UnitSwap(HIDDEN, {"v": [0, 3]}), VectorSwap(["v"])]
)
def test_the_same_input_changes_nothing(swap: torch.nn.Module) -> None:
    base, _ = states()
    torch.testing.assert_close(swap(base, base, "v"), base, **CLOSE)


def test_a_rotation_within_the_subspace_changes_nothing() -> None:
    base, source = states()
    swap, turned = rotated(v=5), rotated(v=5)
    within = qf(torch.randn(5, 5, generator=generator(3)))
    turned.rotation.set_rotation(within @ swap.rotation().detach())
    assert not torch.allclose(turned.rotation(), swap.rotation(), atol=0.1)
    torch.testing.assert_close(turned(base, source, "v"), swap(base, source, "v"), **CLOSE)


def test_a_swap_moves_the_subspace_and_leaves_what_is_orthogonal_to_it() -> None:
    base, source = states()
    swap = rotated(v=3)
    with torch.no_grad():
        edited, rotation = swap(base, source, "v"), swap.rotation()
    assert (edited - base).abs().max() > 0.1
    torch.testing.assert_close(edited @ rotation.mT, source @ rotation.mT, **CLOSE)
    rest = torch.eye(HIDDEN) - rotation.mT @ rotation
    torch.testing.assert_close(edited @ rest, base @ rest, **CLOSE)


def test_variables_take_from_different_sources_in_any_order() -> None:
    base, one = states(1)
    _, other = states(2)
    swap = rotated(v=4, w=3)
    there = swap(swap(base, one, "v"), other, "w")
    back = swap(swap(base, other, "w"), one, "v")
    torch.testing.assert_close(there, back, **CLOSE)
    rotation = swap.rotation().detach()
    torch.testing.assert_close((there @ rotation.mT)[..., :4], (one @ rotation.mT)[..., :4], **CLOSE)
    torch.testing.assert_close((there @ rotation.mT)[..., 4:], (other @ rotation.mT)[..., 4:], **CLOSE)


def test_units_are_a_rotation_along_the_axes() -> None:
    base, source = states()
    along = rotated(v=2)
    along.rotation.set_rotation(torch.eye(HIDDEN)[[1, 6]])
    expected = along(base, source, "v")
    torch.testing.assert_close(UnitSwap(HIDDEN, {"v": [1, 6]})(base, source, "v"), expected, **CLOSE)


def test_a_swap_keeps_the_states_dtype() -> None:
    base, source = (each.bfloat16() for each in states())
    for swap in (rotated(v=3), boundless(1.0, 0.3), UnitSwap(HIDDEN, {"v": [2]})):
        assert swap(base, source, "v").dtype == torch.bfloat16


def test_a_cold_boundless_swap_is_the_rotation_of_its_first_rows() -> None:
    base, source = states()
    swap = boundless(1e-4, 0.42)  # the boundary at row 5.04: five rows and the halved first
    mask = swap.mask()
    torch.testing.assert_close(mask, torch.tensor([0.5] + [1.0] * 5 + [0.0] * 6))
    hard = swap.hardened()
    assert hard.ranks == {"v": 5}
    rows = swap.rotation().detach()[:5]
    torch.testing.assert_close(hard(base, source, "v"), base + (source - base) @ rows.mT @ rows, **CLOSE)


def pyvene(name: str) -> Callable[..., torch.nn.Module]:
    return getattr(pytest.importorskip("pyvene.models.interventions"), name)


def test_parity_with_a_low_rank_rotation() -> None:
    base, source = (each.flatten(0, 1) for each in states())
    theirs = pyvene("LowRankRotatedSpaceIntervention")(embed_dim=HIDDEN, low_rank_dimension=4)
    swap = rotated(v=4)
    swap.rotation.set_rotation(theirs.rotate_layer.weight.detach().mT)
    torch.testing.assert_close(swap(base, source, "v"), theirs(base, source), **CLOSE)


def test_parity_with_the_subspaces_of_a_low_rank_rotation() -> None:
    base, source = (each[:, 0] for each in states())
    make = pyvene("LowRankRotatedSpaceIntervention")
    theirs = make(embed_dim=HIDDEN, low_rank_dimension=5, subspace_partition=[[0, 3], [3, 5]])
    swap = rotated(v=3, w=2)
    swap.rotation.set_rotation(theirs.rotate_layer.weight.detach().mT)
    for place, name in enumerate(("v", "w")):
        expected = theirs(base, source, subspaces=[[place]] * len(base))
        torch.testing.assert_close(swap(base, source, name), expected, **CLOSE)


@pytest.mark.parametrize("rank", [1, 5, HIDDEN])
def test_parity_with_a_full_rotation(rank: int) -> None:
    base, source = (each.flatten(0, 1) for each in states())
    theirs = pyvene("RotatedSpaceIntervention")(embed_dim=HIDDEN)
    theirs.interchange_dim = torch.tensor(rank)
    swap = rotated(v=rank)
    swap.rotation.set_rotation(theirs.rotate_layer.weight.detach().mT[:rank])
    torch.testing.assert_close(swap(base, source, "v"), theirs(base, source), **CLOSE)


@pytest.mark.parametrize(("temperature", "share"), [(50.0, 0.5), (1.0, 0.3), (0.1, 1.0), (2.0, -0.5), (2.0, 7.0)])
def test_parity_with_a_boundless_rotation(temperature: float, share: float) -> None:
    base, source = (each.flatten(0, 1) for each in states())
    theirs = pyvene("BoundlessRotatedSpaceIntervention")(embed_dim=HIDDEN)
    theirs.set_temperature(torch.tensor(temperature))
    theirs.set_intervention_boundaries(share)
    swap = boundless(temperature, share)
    swap.rotation.set_rotation(theirs.rotate_layer.weight.detach().mT)
    ours, expected = swap(base, source, "v"), theirs(base, source)
    torch.testing.assert_close(ours, expected, **CLOSE)
    ours.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(swap.boundary.grad, theirs.intervention_boundaries.grad[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: RotatedSwap(HIDDEN, {}, generator()), "one causal variable or more"),
        (lambda: rotated(v=0), "dimension of 1 or more"),
        (lambda: rotated(v=8, w=5), "rank must be between 1 and the hidden size 12"),
        (lambda: UnitSwap(HIDDEN, {"v": [12]}), "places from 0 to 11"),
        (lambda: UnitSwap(HIDDEN, {"v": [1], "w": [1]}), "each of one variable"),
        (lambda: rotated(v=2)(*states(), "w"), "of the variables v; got 'w'"),
    ],
)
def test_what_is_refused(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()
