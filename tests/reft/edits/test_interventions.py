from __future__ import annotations

import pkgutil
from typing import get_args

import pytest
import torch

from reft.edits import formulas, methods
from reft.edits.config import count_parameters
from reft.edits.formulas.loreft import Formula as LoreftIntervention
from reft.edits.formulas.table import METHODS
from reft.edits.interventions import ACTIVATIONS
from reft.edits.methods.forms import Activation, DropoutOn, EditForm, Init
from reft.edits.methods.table import DECLARED, METHOD_NAMES
from reft.edits.orthogonal import OrthonormalRows, orthonormality_error, qf
from tests.reft.tiny import HIDDEN, build_model, rank_of


def build(init: Init = "paper", hidden: int = 24, rank: int = 3, seed: int = 0) -> LoreftIntervention:
    return LoreftIntervention(hidden, EditForm(rank, init), torch.Generator().manual_seed(seed))


def test_forward_is_the_papers_formula() -> None:
    edit = build()
    h = torch.randn(4, 5, 24)
    rotation, weight, bias = edit.rotation(), edit.weight, edit.bias
    by_hand = h + torch.einsum("rd,bsr->bsd", rotation, torch.einsum("rd,bsd->bsr", weight, h) + bias - h @ rotation.T)
    torch.testing.assert_close(edit(h), by_hand, atol=1e-6, rtol=0)


def test_after_the_edit_the_subspace_holds_the_learned_source() -> None:
    edit = build()
    h = torch.randn(7, 24)
    torch.testing.assert_close(edit(h) @ edit.rotation().T, h @ edit.weight.T + edit.bias, atol=1e-6, rtol=0)


def test_identity_start_changes_no_bit() -> None:
    h = torch.randn(7, 24)
    assert torch.equal(build("identity")(h), h)
    with torch.no_grad():
        assert torch.equal(build("identity")(h), h)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_arithmetic_is_fp32_and_the_result_is_cast_back(dtype: torch.dtype) -> None:
    edit = build()
    h = torch.randn(7, 24).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        edited = edit(h)
    assert edited.dtype == dtype
    assert torch.equal(edited, edit(h.float()).to(dtype))


def test_the_same_seed_gives_the_same_start() -> None:
    for name, value in build(seed=5).state_dict().items():
        assert torch.equal(value, build(seed=5).state_dict()[name])
    assert not torch.equal(build(seed=5).weight, build(seed=6).weight)


def test_qf_keeps_orthonormal_columns_and_their_signs() -> None:
    q = qf(torch.randn(20, 4))
    torch.testing.assert_close(qf(q), q, atol=1e-6, rtol=0)
    torch.testing.assert_close(qf(q * torch.tensor([2.0, 0.1, 5.0, 1.0])), q, atol=1e-6, rtol=0)


def test_weight_decay_on_the_parameter_cannot_shrink_r() -> None:
    """Under torch's own orthogonal parametrisation one such step makes R zero."""
    rows = OrthonormalRows(16, 4, torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(rows.parameters(), lr=1e-2, weight_decay=0.5)
    target = torch.randn(4, 16)
    for _ in range(50):
        optimizer.zero_grad()
        (rows() - target).square().sum().backward()
        optimizer.step()
    assert orthonormality_error(rows()) < 1e-5


def test_the_parameter_is_contiguous() -> None:
    """A fused optimiser whose state was restored in another layout makes wrong steps, silently."""
    assert OrthonormalRows(16, 4, torch.Generator()).turn.is_contiguous()


def test_kept_r_follows_the_parameter() -> None:
    rows = OrthonormalRows(16, 4, torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = rows()
        assert rows() is before
        rows.turn.data.add_(1.0)  # .data, which hides the change from autograd
        assert not torch.allclose(rows(), before)


def test_a_set_r_is_exact() -> None:
    rows = OrthonormalRows(16, 4, torch.Generator().manual_seed(0))
    rotation = qf(torch.randn(16, 4)).mT.contiguous()
    rows.set_rotation(rotation)
    with torch.no_grad():
        assert torch.equal(rows(), rotation)
    torch.testing.assert_close(rows(), rotation, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("rank", "rule"), [(0, "at least 1"), (25, "between 1 and the hidden size 24")])
def test_a_rank_beyond_the_width_is_refused(rank: int, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        build(rank=rank)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("positions", ["f2+l2", "l2"])
def test_the_count_is_the_models(tied: bool, positions: str) -> None:
    model = build_model(positions=positions, tied=tied)
    assert model.num_trainable() == count_parameters(model.config, HIDDEN)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("projection_bias", [False, True])
def test_the_table_of_methods_builds_modules(name: str, projection_bias: bool) -> None:
    method = METHODS[name]
    form = EditForm(rank_of(name, 2), "paper", projection_bias=projection_bias)
    if projection_bias and name != "noreft":
        with pytest.raises(ValueError, match="only noreft"):
            method(8, form, torch.Generator())
        return
    edit = method(8, form, torch.Generator())
    assert sum(value.numel() for value in edit.parameters()) == DECLARED[name].count_parameters(8, form)
    shapes = {name: tuple(value.shape) for name, value in edit.export_tensors().items()}
    assert shapes == method.tensor_shapes(8, form)
    assert dict(edit.named_parameters()).keys() >= edit.DECAYING


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"consreft"}))
def test_every_identity_start_changes_no_bit(name: str) -> None:
    h = torch.randn(7, 24)
    assert torch.equal(METHODS[name](24, EditForm(rank_of(name, 3)), torch.Generator().manual_seed(0))(h), h)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("name", ["direft", "direft_orthogonal"])
def test_direft_starts_at_the_identity_under_every_activation(name: str, activation: str) -> None:
    if (name, activation) == ("direft_orthogonal", "relu"):
        with pytest.raises(ValueError, match="slope at 0"):
            METHODS[name](24, EditForm(3, activation=activation), torch.Generator())
        return
    h = torch.randn(7, 24)
    edit = METHODS[name](24, EditForm(3, activation=activation), torch.Generator().manual_seed(0))
    assert torch.equal(edit(h), h)
    edit(h).square().sum().backward()
    assert any(value.grad is not None and value.grad.any() for value in edit.parameters()), "a start that is stuck"


@pytest.mark.parametrize(
    ("name", "form", "rule"),
    [
        ("loreft", EditForm(3, activation="relu"), "needs the linear activation"),
        ("noreft", EditForm(3, activation="relu"), "needs the linear activation"),
        ("consreft", EditForm(3), "no identity"),
        ("consreft", EditForm(3, "paper", activation="relu"), "has no activation"),
        ("lobireft", EditForm(3, activation="relu"), "has no activation"),
    ],
)
def test_a_form_that_the_formula_has_no_place_for_is_refused(name: str, form: EditForm, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        METHODS[name](24, form, torch.Generator())


def test_the_names_that_are_checked_without_torch_are_those_that_are_there() -> None:
    assert tuple(METHODS) == METHOD_NAMES
    assert tuple(ACTIVATIONS) == get_args(Activation)


def test_every_method_is_two_files_and_a_line_of_the_table() -> None:
    """A declaration and a formula of the method's name; no file beside them is left out of the table."""
    for room, more in ((methods, {"forms", "table"}), (formulas, {"table"})):
        names = {module.name for module in pkgutil.iter_modules(room.__path__)}
        assert names == {*METHOD_NAMES, *more}
    for name, formula in METHODS.items():
        assert formula.METHOD is DECLARED[name]
        assert DECLARED[name].name == name


def test_consreft_is_idempotent() -> None:
    edit = METHODS["consreft"](24, EditForm(3, "paper"), torch.Generator().manual_seed(0))
    once = edit(torch.randn(7, 24))
    torch.testing.assert_close(edit(once), once, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("on", "untouched"), [("edit", True), ("output", False)])
def test_dropout_is_on_the_edit_or_on_the_whole_output(on: DropoutOn, untouched: bool) -> None:
    """On the edit, a dropped number leaves the hidden state as it was; on the output it is 0."""
    edit = LoreftIntervention(24, EditForm(3, "paper", dropout=0.5, dropout_on=on), torch.Generator().manual_seed(0))
    h = torch.randn(50, 24)
    edited = edit(h)
    share = (edited == h).float().mean() if untouched else (edited == 0).float().mean()
    assert 0.4 < share < 0.6
    assert torch.equal(edit.eval()(h), edit(h)), "in evaluation nothing is dropped"
    assert not (edit(h) == h).any()
