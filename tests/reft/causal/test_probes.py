"""Probes: what is read at a site, what an edit there does, and the same by the cone as by whole prompts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from reft import Encoded, ReftModel
from reft.causal import ConeProbe, DecoderProbe, LayerSite, ModuleProbe, probe_decoder
from tests.reft.tiny import LAYERS, build_base, build_config, build_model

CHOICES = (3, 7, 11)
PROMPTS = [
    Encoded((5, 9, 2, 8, 1), 5, ((1, 3),)),
    Encoded((4, 6, 3), 3, ((0, 2),)),
    Encoded((7, 1, 2, 3, 4, 5, 6), 7, ((3, 5),)),
]
OTHERS = [Encoded(row.input_ids[::-1], row.prompt_length, row.spans) for row in PROMPTS]
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def model(kind: str) -> torch.nn.Module:
    return build_model(layers=(0, 1, 2), positions="f1+l2") if kind == "edited" else build_base(kind)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "edited"])
@pytest.mark.parametrize("layer", range(LAYERS))
@pytest.mark.parametrize("positions", ["l1", "f2", "spans", "1:2"])
def test_the_cone_gives_what_whole_prompts_give(kind: str, layer: int, positions: str) -> None:
    site = LayerSite(layer, positions)
    whole, cone = DecoderProbe(model(kind), CHOICES), ConeProbe(model(kind), CHOICES, range(LAYERS))
    states = whole.read(OTHERS, site)
    torch.testing.assert_close(cone.read(OTHERS, site), states, **CLOSE)
    torch.testing.assert_close(cone.logits(PROMPTS), whole.logits(PROMPTS), **CLOSE)
    given = [states.clone().requires_grad_(True) for _ in range(2)]
    expected, found = (probe.answers(PROMPTS, site, own) for probe, own in zip((whole, cone), given, strict=True))
    if layer < LAYERS - 1 or positions == "l1":  # what the top layer says of earlier tokens is no answer
        assert (expected - whole.logits(PROMPTS)).abs().max() > 1e-3, "a swap of nothing compares nothing"
    torch.testing.assert_close(found, expected, **CLOSE)
    for answers in (found, expected):
        answers.square().sum().backward()
    torch.testing.assert_close(given[1].grad, given[0].grad, **CLOSE)


@pytest.mark.parametrize("kind", ["llama", "edited"])
@pytest.mark.parametrize("make", [DecoderProbe, lambda model, choices: ConeProbe(model, choices, (1, 2))])
def test_putting_back_what_was_read_changes_nothing(kind: str, make: Callable[..., DecoderProbe]) -> None:
    probe = make(model(kind), CHOICES)
    site = LayerSite(1, "f2")
    torch.testing.assert_close(probe.answers(PROMPTS, site, probe.read(PROMPTS, site)), probe.logits(PROMPTS), **CLOSE)


@pytest.mark.parametrize("change", ["weights", "edits", "hook", "mode", "setting"])
def test_a_probe_keeps_nothing_of_a_model_that_changed(change: str) -> None:
    """Against whole prompts, which keep nothing; dropout draws the same after the same seed."""
    edited = build_model(layers=(0, 1, 2), positions="f1+l2")
    layer = edited.stack.layers[0]
    probe, whole = ConeProbe(edited, CHOICES, range(LAYERS)), DecoderProbe(edited, CHOICES)
    site = LayerSite(1, "l1")
    before = probe.answers(PROMPTS, site, probe.read(OTHERS, site)).detach()
    if change == "weights":
        layer.get_submodule("mlp.down_proj").weight.data.mul_(1.5)
    elif change == "edits":
        for parameter in edited.interventions.parameters():
            parameter.data.add_(0.5)
    elif change == "hook":
        layer.register_forward_hook(lambda _module, _given, output: output * 1.5)
    elif change == "mode":
        layer.get_submodule("self_attn").attention_dropout = 0.5
        edited.base.train()
    else:
        layer.get_submodule("input_layernorm").variance_epsilon = 0.5
    found = []
    for each in (probe, whole):
        torch.manual_seed(1)
        found.append(each.answers(PROMPTS, site, each.read(OTHERS, site)).detach())
    assert (found[1] - before).abs().max() > 1e-3
    torch.testing.assert_close(found[0], found[1], **CLOSE)


def test_the_last_tokens_state_of_the_top_layer_is_the_answer() -> None:
    probe = ConeProbe(build_base(), CHOICES, [LAYERS - 1])
    site = LayerSite(LAYERS - 1, "l1")
    torch.testing.assert_close(probe.answers(PROMPTS, site, probe.read(OTHERS, site)), probe.logits(OTHERS), **CLOSE)


def test_an_adapter_is_read_behind_its_own_edits() -> None:
    site = LayerSite(1, "f1")
    edited, base = build_model(layers=(1,), positions="f1"), build_base()
    plain = DecoderProbe(base, CHOICES).read(PROMPTS, site)
    expected = edited.interventions[next(iter(edited.interventions))](plain)
    assert (expected - plain).abs().max() > 1e-2
    torch.testing.assert_close(DecoderProbe(edited, CHOICES).read(PROMPTS, site), expected, **CLOSE)


def test_a_family_without_a_proved_cone_is_probed_by_whole_prompts() -> None:
    base = build_base("llama")
    assert isinstance(probe_decoder(base, CHOICES, [1]), ConeProbe)
    base.config.model_type = "unheard-of"
    assert type(probe_decoder(base, CHOICES, [1])) is DecoderProbe
    with pytest.raises(ValueError, match="cannot be probed by its cone"):
        ConeProbe(base, CHOICES, [1])


def test_a_module_is_read_and_edited_at_its_submodules() -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    probe = ModuleProbe(network)
    one, other = torch.randn(2, 5, 3)
    states = probe.read(list(other), "1")
    torch.testing.assert_close(states, network[:2](other))
    torch.testing.assert_close(probe.answers(list(one), "1", states), network(other))
    torch.testing.assert_close(probe.logits(one), network(one))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: DecoderProbe(build_base(), [3, 3]), "two answers or more, each a token of its own"),
        (lambda: DecoderProbe(build_base(), [3]), "two answers or more"),
        (lambda: _read("l1", layer=LAYERS), "layer is from 0 to 2; got 3"),
        (lambda: _read("5:7"), "as many tokens, one or more"),
        (lambda: _read("l9"), r"got \[3, 5, 7\] for 'l9'"),
        (lambda: _read("last"), "positions are fN, lN"),
        (lambda: _read("l1+g1"), "a prompt's tokens, and gN is behind it"),
        (lambda: ModuleProbe(torch.nn.Sequential(torch.nn.ReLU())).read([torch.ones(4)], "layers.0"), "0; got 'lay"),
    ],
)
def test_what_is_refused(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


def _read(positions: str, *, layer: int = 0) -> object:
    return DecoderProbe(build_base(), CHOICES).read(PROMPTS, LayerSite(layer, positions))


def test_a_probe_freezes_what_it_reads() -> None:
    edited = ReftModel(build_base(), build_config(), seed=1)
    DecoderProbe(edited, CHOICES)
    assert not any(value.requires_grad for value in edited.parameters())
