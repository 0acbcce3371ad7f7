"""The authors' library and this one on the same weights: formulas, gradients, edited tokens, numbers of parameters."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, RobertaConfig, RobertaForSequenceClassification

from benchmarks.sides.authors import CLASSES, authors_intervention, pyreft
from reft.edits.config import ReftConfig, count_parameters
from reft.edits.formulas.table import METHODS
from reft.edits.interventions import ACTIVATIONS
from reft.edits.methods.forms import EditForm
from reft.edits.methods.table import METHOD_NAMES
from reft.edits.positions import parse_positions, position_masks
from reft.models.adapted import AdaptedModel
from reft.models.decoder import ReftModel
from reft.models.encoder import ReftEncoder
from tests.reft.authors import (
    assert_same_gradient,
    pull_back,
    record_rotations,
    rotation_gradient,
    tangent,
    twin_interventions,
)

CLOSE = {"atol": 1e-6, "rtol": 0.0}
WITH_ACTIVATION = ("loreft", "noreft", "direft", "direft_orthogonal")
FORMS = [
    *((method, EditForm(4, "paper", activation=f)) for method, f in product(WITH_ACTIVATION, ACTIVATIONS)),
    *((method, EditForm(4, "paper")) for method in ("consreft", "lobireft")),
    *(("noreft", EditForm(4, "paper", activation=f, projection_bias=True)) for f in ("linear", "relu", "gelu")),
]
HIDDEN = 48


def test_every_method_is_compared() -> None:
    assert {method for method, _ in FORMS} == set(CLASSES)
    assert set(CLASSES) <= set(METHOD_NAMES)


@pytest.mark.parametrize(("method", "form"), FORMS)
def test_forward(method: str, form: EditForm) -> None:
    ours, theirs = twin_interventions(method, form, HIDDEN)
    h = torch.randn(3, 5, HIDDEN)
    expected = theirs(h)
    assert (expected - h).abs().max() > 0.1, "an edit of nothing compares nothing"
    torch.testing.assert_close(ours(h), expected, **CLOSE)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(h), theirs.eval()(h), **CLOSE)


@pytest.mark.parametrize("method", sorted(set(CLASSES) - {"consreft"}))
def test_dropout_on_the_output_drops_the_same_numbers(method: str) -> None:
    ours, theirs = twin_interventions(method, EditForm(4, "paper", dropout=0.3, dropout_on="output"), HIDDEN)
    h = torch.randn(3, 5, HIDDEN)
    torch.manual_seed(5)
    expected = theirs(h)
    torch.manual_seed(5)
    torch.testing.assert_close(ours(h) * 0.7, expected * 0.7, **CLOSE)  # both divide what is kept by 0.7
    assert 0.2 < (expected == 0).float().mean() < 0.4


def test_consreft_drops_where_the_authors_class_takes_a_dropout_and_has_none() -> None:
    ours, theirs = twin_interventions("consreft", EditForm(4, "paper", dropout=0.3, dropout_on="output"), HIDDEN)
    h = torch.randn(3, 5, HIDDEN)
    assert (theirs(h) != 0).all()
    assert 0.2 < (ours(h) == 0).float().mean() < 0.4


@pytest.mark.parametrize(("method", "form"), FORMS)
def test_gradients(method: str, form: EditForm) -> None:
    """Of R, the gradient along the manifold of orthonormal rows is what can be compared.

    pyreft's is that of its own forward with respect to R; pulled back through its Householder parametrisation, ours
    must be the gradient that its optimiser sees.
    """
    ours, theirs = twin_interventions(method, form, HIDDEN)
    h, target = torch.randn(3, 5, HIDDEN), torch.randn(3, 5, HIDDEN)
    given = record_rotations(ours.rotation) if hasattr(ours, "rotation") else []
    (ours(h) * target).sum().backward()
    with nn.utils.parametrize.cached():  # one R for the whole forward, whose gradient can be kept
        if hasattr(theirs, "rotate_layer"):
            theirs.rotate_layer.weight.retain_grad()
        (theirs(h) * target).sum().backward()
        full = theirs.rotate_layer.weight.grad if hasattr(theirs, "rotate_layer") else None
    own = dict(theirs.named_parameters())
    names = {"weight": "learned_source.weight", "bias": "learned_source.bias"}
    if method in ("consreft", "lobireft"):
        names = {"bias": "learned_source"}
    if full is None:
        names |= {"projection": "proj_layer.weight"}
    if form.projection_bias:
        names |= {"projection_bias": "proj_layer.bias"}
    for name, theirs_name in names.items():
        assert_same_gradient(getattr(ours, name).grad, own[theirs_name].grad)
    if full is not None:
        rotation = theirs.rotate_layer.weight.detach()
        along = tangent(rotation, rotation_gradient(given))
        assert_same_gradient(along, tangent(rotation, full))
        assert_same_gradient(pull_back(theirs, along), own["rotate_layer.parametrizations.weight.original"].grad)
        (turn,) = torch.autograd.grad(ours.rotation(), ours.rotation.turn, full.mT)
        assert_same_gradient(ours.rotation.turn.grad, turn)


# pyreft's get_intervention_locations, a list for each intervention; what a short prompt has no room for is at -1.
@pytest.mark.parametrize(
    ("spec", "length", "interventions", "tied", "places"),
    [
        ("f7+l7", 20, 2, False, [[*range(7)], [*range(13, 20)]]),
        ("f7+l7", 20, 1, True, [[*range(7), *range(13, 20)]]),
        ("f7+l7", 6, 2, False, [[0, 1, 2, -1, -1, -1, -1], [3, 4, 5, -1, -1, -1, -1]]),
        ("f7+l7", 6, 1, True, [[*range(6), *[-1] * 8]]),
        ("f2+l5", 20, 2, False, [[0, 1, -1, -1, -1], [15, 16, 17, 18, 19]]),
        ("f3", 4, 1, True, [[0, 1, -1]]),
        ("f3", 1, 1, True, [[-1, -1, -1]]),
    ],
)
def test_the_authors_table_of_positions(
    spec: str, length: int, interventions: int, tied: bool, places: list[list[int]]
) -> None:
    assert authors_places(spec, length, tied=tied, interventions=interventions) == places


def authors_places(spec: str, length: int, *, tied: bool, interventions: int) -> list[list[int]]:
    return pyreft.get_intervention_locations(
        last_position=length, positions=spec, num_interventions=interventions, share_weights=tied
    )


def authors_edited(spec: str, length: int) -> tuple[set[int], set[int]]:
    """Return the tokens that pyreft edits as first ones and as last ones of a prompt."""
    both = [set(places) - {-1} for places in authors_places(spec, length, tied=False, interventions=2)]
    if "+" in spec:
        return both[0], both[1]
    return (both[0], set()) if spec.startswith("f") else (set(), both[0])


def edited(spec: str, length: int) -> tuple[set[int], set[int]]:
    masks = position_masks(parse_positions(spec), torch.ones(1, length + 4), torch.tensor([length]))
    return set(masks.first[0].nonzero().flatten().tolist()), set(masks.last[0].nonzero().flatten().tolist())


@pytest.mark.parametrize("spec", ["f1+l1", "f7+l7", "f2+l5", "f9+l3", "f11+l11"])
def test_two_ended_positions_are_the_authors_but_for_one_token(spec: str) -> None:
    for length in range(2, 65):
        assert edited(spec, length) == authors_edited(spec, length)
        first, last = edited(spec, length)
        assert first | last == set(authors_places(spec, length, tied=True, interventions=1)[0]) - {-1}
    assert authors_edited(spec, 1) == (set(), set()), "a prompt of one token is not edited"
    assert edited(spec, 1) == ({0}, set()), "here it is"


@pytest.mark.parametrize(("end", "count"), product("fl", (1, 3, 7)))
def test_one_ended_positions_are_the_authors_but_for_short_prompts(end: str, count: int) -> None:
    """pyreft takes at most half of the prompt though the other half is free; here it is taken too."""
    for length in range(1, 65):
        ours, theirs = (set.union(*found(f"{end}{count}", length)) for found in (edited, authors_edited))
        assert len(theirs) == min(count, length // 2)
        assert len(ours) == min(count, length)
        assert theirs <= ours
        assert (ours == theirs) == (length >= 2 * count)


@pytest.mark.parametrize("spec", ["", "7"])
def test_positions_that_pyreft_reads_as_none_are_refused(spec: str) -> None:
    assert pyreft.parse_positions(spec) == (0, 0)
    with pytest.raises(ValueError, match="fN, lN or fN"):
        parse_positions(spec)


def test_all_is_a_position() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        pyreft.parse_positions("all")
    assert edited("all", 5) == (set(range(5)), set())


def llama(hidden: int, layers: int) -> nn.Module:
    return LlamaForCausalLM(
        LlamaConfig(hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=hidden // 128)
    )


def roberta(hidden: int, layers: int) -> nn.Module:
    return RobertaForSequenceClassification(
        RobertaConfig(hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=hidden // 64)
    )


# The totals that pyreft's log, its README and the paper's shares of trained parameters give; a head is not among them.
@pytest.mark.parametrize(
    ("build", "hidden", "depth", "layers", "positions", "rank", "tied", "total"),
    [
        pytest.param(llama, 4096, 32, range(15, 16), "l1", 4, True, 32_772, id="readme"),
        pytest.param(llama, 4096, 32, range(32), "f7+l7", 8, True, 2_097_408, id="commonsense-7b"),
        pytest.param(llama, 5120, 40, range(40), "f7+l7", 8, True, 3_277_120, id="commonsense-13b"),
        pytest.param(llama, 4096, 32, (3, 9, 18, 24), "f5+l5", 4, False, 262_176, id="instructions-7b"),
        pytest.param(roberta, 768, 12, range(12), "f1", 1, True, 18_444, id="glue-base"),
        pytest.param(roberta, 1024, 24, range(24), "f3", 1, True, 49_176, id="glue-large"),
    ],
)
def test_parameter_counts_are_the_published_ones(
    build: Callable[[int, int], nn.Module],
    hidden: int,
    depth: int,
    layers: range | tuple[int, ...],
    positions: str,
    rank: int,
    tied: bool,
    total: int,
) -> None:
    """On the meta device, where no weight is kept in memory."""
    config = ReftConfig(tuple(layers), positions, rank, tied=tied)
    model_class: type[AdaptedModel] = ReftModel if build is llama else ReftEncoder
    with torch.device("meta"):
        model = model_class(build(hidden, depth), config, seed=0)
    assert count_parameters(config, hidden) == total
    assert model.num_trainable() - sum(value.numel() for value in model.head_tensors().values()) == total
    assert all(value.is_meta for value in (*model.parameters(), *model.buffers()))


@pytest.mark.parametrize("method", CLASSES)
@pytest.mark.parametrize("bias", [False, True])
def test_pyreft_trains_as_many(method: str, bias: bool) -> None:
    form = EditForm(4, "paper", projection_bias=bias and method == "noreft")
    ours, theirs = twin_interventions(method, form, HIDDEN)
    assert numbers(theirs) == numbers(ours)


def test_a_bias_that_direfts_formula_never_uses_is_not_there() -> None:
    form = EditForm(4, "paper", projection_bias=True)
    theirs = authors_intervention("direft", HIDDEN, form)
    theirs(torch.randn(3, HIDDEN)).sum().backward()
    assert theirs.proj_layer.bias.grad is None
    with pytest.raises(ValueError, match="only noreft has a projection bias"):
        METHODS["direft"](HIDDEN, form, torch.Generator())


def numbers(module: nn.Module) -> int:
    return sum(value.numel() for value in module.parameters())
