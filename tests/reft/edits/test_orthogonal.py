"""R's parametrisation: the map that pyreft and pyvene give to torch, so that a learning rate is the same training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.sides.authors import authors_intervention
from reft.edits.formulas.loreft import Formula as LoreftIntervention
from reft.edits.methods.forms import EditForm
from reft.edits.orthogonal import OrthonormalRows, _Turned, orthonormality_error, qf
from tests.reft.authors import authors_tensors

RATE = 2e-3


def build_rows(hidden: int, rank: int, seed: int = 0) -> OrthonormalRows:
    return OrthonormalRows(hidden, rank, torch.Generator().manual_seed(seed))


def build_torchs(start: Tensor) -> nn.Module:
    """Return torch's parametrisation, as pyreft asks for it, of an R^T [hidden, rank] that starts at ``start``."""
    layer = nn.Module()
    layer.weight = nn.Parameter(start.clone())
    return nn.utils.parametrizations.orthogonal(layer)


def whole_frame(rows: OrthonormalRows) -> Tensor:
    """Return B [hidden, hidden], made one reflection after the other."""
    hidden = rows.frame.shape[1]
    frame = torch.eye(hidden, dtype=rows.frame.dtype)
    for vector in rows.frame:
        frame = frame - 2 * torch.outer(frame @ vector, vector) / (vector @ vector)
    signs = torch.ones(hidden, dtype=frame.dtype)
    signs[: len(rows.signs)] = rows.signs[:, 0]
    return frame * signs


def angle(start: Tensor, rotation: Tensor) -> float:
    """Return the norm of the principal angles between the rows of two matrices [rank, hidden]."""
    cosines = torch.linalg.svdvals(start @ rotation.mT).clamp(-1, 1)
    return cosines.acos().norm().item()


def angles(module: nn.Module, rotation: Callable[[], Tensor], loss: Callable[[], Tensor]) -> dict[int, float]:
    """Return how far R stands from its start after 1, 10 and 30 steps of Adam at one rate."""
    start, optimizer = rotation().detach().clone(), torch.optim.Adam(module.parameters(), lr=RATE)
    found = {}
    for step in range(1, 31):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        if step in (1, 10, 30):
            found[step] = angle(start, rotation().detach())
    return found


@pytest.mark.parametrize(("hidden", "rank"), [(40, 1), (40, 5), (6, 5)])
def test_r_moves_with_torchs_map_step_for_step(hidden: int, rank: int) -> None:
    """With the same B, thirty steps of Adam end at the same R, to rounding in fp64."""
    ours = build_rows(hidden, rank).double()
    ours.set_rotation(qf(ours().detach().mT).mT)  # what it was built of in fp32, made anew in fp64
    theirs: Any = build_torchs(ours().detach().mT)
    theirs.parametrizations.weight[0].base = whole_frame(ours)
    torch.manual_seed(1)
    target, cubic = torch.randn(2, rank, hidden, dtype=torch.float64)
    sides = {ours: lambda: ours(), theirs: lambda: theirs.weight.mT}
    for module, rotation in sides.items():
        optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
        for _ in range(30):
            optimizer.zero_grad()
            ((rotation() - target).square().sum() + (cubic * rotation() ** 3).sum()).backward()
            optimizer.step()
    torch.testing.assert_close(ours(), theirs.weight.mT, atol=1e-12, rtol=0)


def test_a_rate_turns_r_as_far_as_in_pyreft() -> None:
    """pyreft completes B by chance, so the paths differ and the angles agree to some percent.

    R^T = qf(A), which this was before, turned 0.51, 0.53 and 0.60 times as far after 1, 10 and 30 of these steps.
    """
    torch.manual_seed(0)
    form = EditForm(4, "paper")
    theirs: Any = authors_intervention("loreft", 96, form, dtype=torch.float64)
    ours = LoreftIntervention(96, form, torch.Generator().manual_seed(0)).double()
    theirs = theirs.double()
    ours.import_tensors(authors_tensors(theirs))
    h, target = torch.randn(2, 32, 96, dtype=torch.float64)
    here = angles(ours, lambda: ours.rotation(), lambda: (ours(h) - target).square().mean())
    there = angles(theirs, lambda: theirs.rotate_layer.weight.mT, lambda: (theirs(h) - target).square().mean())
    assert there[1] < there[10] < there[30]
    assert {step: here[step] / there[step] for step in here} == pytest.approx({1: 1, 10: 1, 30: 1}, abs=0.05)


def test_a_square_r_turns_as_far_as_under_torchs_exponential() -> None:
    """torch's map of a square matrix is another one: equal in the first step, and near it for small turns."""
    ours = build_rows(24, 24).double()
    theirs: Any = build_torchs(ours().detach().mT)
    target = torch.randn(24, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    distances = []
    for module, rotation in ((ours, lambda: ours()), (theirs, lambda: theirs.weight.mT)):
        start, optimizer = rotation().detach().clone(), torch.optim.Adam(module.parameters(), lr=RATE)
        for step in range(10):
            optimizer.zero_grad()
            (rotation() - target).square().sum().backward()
            optimizer.step()
            if step in (0, 9):
                distances.append((rotation() - start).norm().item())
    assert distances[0] / distances[2] == pytest.approx(1, abs=1e-3)
    assert distances[1] / distances[3] == pytest.approx(1, abs=3e-2)


@pytest.mark.parametrize(("hidden", "rank"), [(9, 1), (9, 4), (5, 5), (1, 1)])
def test_the_derivative_is_that_of_the_map(hidden: int, rank: int) -> None:
    rows = build_rows(hidden, rank).double()
    turn = torch.randn(rank, hidden, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    assert torch.autograd.gradcheck(
        lambda turn: _Turned.apply(turn, rows.frame, rows.frame_factor, rows.signs), turn.requires_grad_()
    )


@pytest.mark.parametrize(("hidden", "rank"), [(2048, 8), (576, 32), (64, 64), (1, 1)])
def test_r_is_orthonormal_in_fp32_however_far_it_is_turned(hidden: int, rank: int) -> None:
    rows = build_rows(hidden, rank)
    torch.manual_seed(0)
    for size in (0.0, 1e-3, 1e-1, 10.0):
        rows.turn.data = size * torch.randn(rank, hidden)
        assert orthonormality_error(rows()) < 1e-6


def test_a_state_dict_holds_the_whole_of_r() -> None:
    """Both have a turn of 0, so what an R is read by must go with it, and what was kept of the other R must go."""
    one, other = build_rows(16, 3, seed=0), build_rows(16, 3, seed=1)
    with torch.no_grad():
        assert not torch.allclose(one(), other())
        other.load_state_dict(one.state_dict())
        assert torch.equal(other(), one())


def test_rows_along_the_axes_can_be_set() -> None:
    """LAPACK leaves out the reflections that such columns do not need."""
    rows = build_rows(8, 3)
    wanted = torch.eye(8)[[0, 1, 6]] * torch.tensor([[1.0], [-1.0], [1.0]])
    rows.set_rotation(wanted)
    torch.testing.assert_close(rows(), wanted, atol=1e-6, rtol=0)
    torch.testing.assert_close(qf(rows().mT).mT, rows(), atol=1e-6, rtol=0)


def test_a_backward_pass_inside_autocast_has_the_bits_of_one_outside() -> None:
    rows = build_rows(16, 3)
    seed = torch.randn(3, 16, generator=torch.Generator().manual_seed(1))
    (outside,) = torch.autograd.grad(rows(), list(rows.parameters()), seed)
    rotation = rows()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (inside,) = torch.autograd.grad(rotation, list(rows.parameters()), seed)
    assert outside.abs().max() > 0.1
    assert torch.equal(inside, outside)
