"""Directories of pyreft 0.1.0 with pyvene 0.1.8: what pyreft saved gives its logits here, what is written here gives
ours there. Every expected number is pyreft's own, computed beside ours."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import BertConfig, BertForSequenceClassification, RobertaConfig, RobertaForSequenceClassification

from benchmarks.sides.authors import pyreft
from reft.data import Batch
from reft.edits.config import LayerOverride, ReftConfig
from reft.edits.orthogonal import orthonormality_error
from reft.formats.foreign import ForeignAdapter
from reft.formats.pyreft import CLASSES, read_pyreft
from reft.formats.pyreft_write import write_pyreft
from reft.models.decoder import ReftModel
from reft.models.encoder import LabelledBatch, ReftEncoder
from tests.reft.authors import authors_tensors
from tests.reft.tiny import HIDDEN, VOCABULARY, build_base

KEYWORDS = {"NoreftIntervention": {"add_bias": True}, "NodireftIntervention": {"add_bias": True}}
RELOADED = [name for name in CLASSES if name not in KEYWORDS]
LENGTH = 9
ENDS = ([0, 1], [LENGTH - 2, LENGTH - 1])
TOLERANCE = 1e-5


def ids(seed: int = 5) -> Tensor:
    return torch.randint(3, VOCABULARY, (2, LENGTH), generator=torch.Generator().manual_seed(seed))


def intervention(name: str, rank: int, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    keywords = {"embed_dim": HIDDEN, "low_rank_dimension": rank, "dtype": dtype, **KEYWORDS.get(name, {})}
    return getattr(pyreft, name)(**keywords)


def train(model: pyreft.ReftModel, locations: list[list[int]]) -> None:
    """Move every parameter, R's too, away from where it starts."""
    steps = torch.optim.SGD({id(p): p for p in model.parameters() if p.requires_grad}.values(), lr=0.05)
    for _ in range(3):
        logits_of(model, locations).pow(2).mean().backward()
        steps.step()
        steps.zero_grad()


def logits_of(model: pyreft.ReftModel, locations: list[list[int]]) -> Tensor:
    """pyreft's logits with one list of positions for each intervention."""
    units = {"sources->base": (None, [[places] * 2 for places in locations])}
    _, output = model({"input_ids": ids(), "attention_mask": torch.ones(2, LENGTH)}, unit_locations=units)
    return output.logits


def saved(path: Path, name: str, *, untied: bool = False, ranks: tuple[int, int] = (2, 3)) -> Tensor:
    """Have pyreft train two layers' interventions of a class and save them; return its logits."""
    torch.manual_seed(0)
    places = [(0, ranks[0]), (2, ranks[1])] * (2 if untied else 1)  # as its examples do: all first ones, then all last
    representations = [
        {"layer": layer, "component": "block_output", "low_rank_dimension": r, "intervention": intervention(name, r)}
        for layer, r in places
    ]
    model = pyreft.get_reft_model(build_base(), pyreft.ReftConfig(representations=representations), set_device=False)
    locations = [ENDS[0]] * 2 + [ENDS[1]] * 2 if untied else [ENDS[0] + ENDS[1]] * 2
    train(model, locations)
    model.save(str(path))
    with torch.no_grad():
        return logits_of(model, locations)


def read(path: Path, positions: str = "f2+l2", method: str | None = None) -> ForeignAdapter:
    return read_pyreft(path, positions=positions, activation="linear", dropout=0.0, method=method)


def on_base(adapter: ForeignAdapter) -> ReftModel:
    model = ReftModel(build_base(), adapter.config, seed=9)
    adapter.fill(model)
    return model


@torch.no_grad()
def our_logits(model: ReftModel) -> Tensor:
    mask = torch.ones(2, LENGTH, dtype=torch.long)
    return model(Batch(ids(), mask, torch.full((2, LENGTH), -100), torch.tensor([LENGTH] * 2)))


def tensors_of(model: ReftModel) -> dict[str, dict[str, Tensor]]:
    return {slot: module.export_tensors() for slot, module in model.named_interventions()}


@pytest.mark.parametrize("untied", [False, True])
@pytest.mark.parametrize("name", CLASSES)
def test_what_pyreft_saved_gives_its_logits(tmp_path: Path, name: str, untied: bool) -> None:
    expected = saved(tmp_path, name, untied=untied)
    adapter = read(tmp_path)
    model = on_base(adapter)
    assert (adapter.config.method, adapter.config.tied) == (CLASSES[name], not untied)
    assert adapter.config.overrides == (LayerOverride(2, rank=3),)
    assert (our_logits(model) - expected).abs().max() < TOLERANCE
    with model.disabled():
        assert (our_logits(model) - expected).abs().max() > 1000 * TOLERANCE


@pytest.mark.parametrize("name", CLASSES)
def test_the_tensors_are_those_that_pyreft_holds(tmp_path: Path, name: str) -> None:
    torch.manual_seed(1)
    theirs = intervention(name, 3)
    representation = {"layer": 1, "component": "block_output", "low_rank_dimension": 3, "intervention": theirs}
    pyreft.get_reft_model(build_base(), pyreft.ReftConfig(representations=representation), set_device=False).save(
        str(tmp_path)
    )
    expected = authors_tensors(theirs)
    if name == "NodireftIntervention":
        expected.pop("projection_bias")  # its formula does not use it
    adapter = read(tmp_path)
    (ours,) = adapter.interventions.values()
    assert ours.keys() == expected.keys()
    for key, tensor in expected.items():
        torch.testing.assert_close(ours[key], tensor, atol=1e-6, rtol=0)
    assert bool(adapter.notes) == (name == "NodireftIntervention")


@pytest.mark.parametrize("name", ["LoreftIntervention", "DireftIntervention"])
def test_the_older_names_of_files_are_read(tmp_path: Path, name: str) -> None:
    """pyvene up to 0.1.6 wrote dots; the content of the files is the same."""
    expected = saved(tmp_path, name, untied=True)
    for file in tmp_path.glob("intkey_*.bin"):
        key = file.name.removeprefix("intkey_").removesuffix(".bin").replace("block_output", "BLOCK")
        file.rename(tmp_path / f"intkey_{key.replace('_', '.').replace('BLOCK', 'block_output')}.bin")
    assert (tmp_path / "intkey_layer.0.comp.block_output.unit.pos.nunit.1#1.bin").exists()
    assert (our_logits(on_base(read(tmp_path))) - expected).abs().max() < TOLERANCE


@pytest.mark.parametrize("name", ["LoreftIntervention", "NoreftIntervention", "NodireftIntervention"])
def test_pyrefts_default_of_bf16_is_read(tmp_path: Path, name: str) -> None:
    """Its numbers are bf16 and its arithmetic too; here they are the same numbers, in fp32 arithmetic."""
    torch.manual_seed(6)
    theirs = intervention(name, 2, torch.bfloat16)
    representation = {"layer": 1, "component": "block_output", "low_rank_dimension": 2, "intervention": theirs}
    config = pyreft.ReftConfig(representations=representation)
    model = pyreft.get_reft_model(build_base(), config, set_device=False)
    model.save(str(tmp_path))
    state = torch.load(next(tmp_path.glob("intkey_*.bin")))
    assert any(value.dtype == torch.bfloat16 for value in state.values())
    theirs.float()
    with torch.no_grad():
        expected = logits_of(model, [ENDS[0]])
    assert (our_logits(on_base(read(tmp_path, "f2"))) - expected).abs().max() < TOLERANCE


def test_a_wrong_rank_in_the_config_does_no_harm(tmp_path: Path) -> None:
    saved(tmp_path, "LoreftIntervention")
    config = json.loads((tmp_path / "config.json").read_text())
    for representation in config["representations"]:
        representation[4] = 7
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert [read(tmp_path).config.form(layer).rank for layer in (0, 2)] == [2, 3]


def test_a_trainers_checkpoint_is_read_when_the_method_is_named(tmp_path: Path) -> None:
    expected = saved(tmp_path, "LoreftIntervention")
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match="the method must be given"):
        read(tmp_path)
    assert (our_logits(on_base(read(tmp_path, method="loreft"))) - expected).abs().max() < TOLERANCE


@pytest.mark.parametrize("name", RELOADED)
@pytest.mark.parametrize("tied", [True, False])
def test_pyreft_loads_what_is_written_and_gives_our_logits(tmp_path: Path, name: str, tied: bool) -> None:
    overrides = (LayerOverride(2, rank=3),)
    config = ReftConfig((0, 2), "f2+l2", 2, method=CLASSES[name], init="paper", tied=tied, overrides=overrides)
    model = ReftModel(build_base(), config, seed=3)
    write_pyreft(tmp_path / "peer", config, tensors_of(model))
    loaded = pyreft.ReftModel.load(str(tmp_path / "peer"), build_base())
    for theirs in loaded.interventions.values():
        if isinstance(theirs.learned_source, torch.nn.Linear):
            assert theirs.learned_source.weight.dtype == torch.bfloat16  # what pyreft makes of fp32
            theirs.learned_source.float()
    with torch.no_grad():
        locations = [ENDS[0] + ENDS[1]] * 2 if tied else [ENDS[0]] * 2 + [ENDS[1]] * 2
        got = logits_of(loaded, locations)
        for _, ours in model.named_interventions():
            if "weight" in ours.tensor_shapes(HIDDEN, ours.form):
                ours.weight.copy_(ours.weight.bfloat16())
                ours.bias.copy_(ours.bias.bfloat16())
    assert (our_logits(model) - got).abs().max() < TOLERANCE


def test_pyreft_stays_orthonormal_when_it_trains_on_what_is_written(tmp_path: Path) -> None:
    """The stored base is orthogonal as a whole, not only in the columns that are used."""
    config = ReftConfig((0, 2), "f2+l2", 2, method="consreft", init="paper")
    write_pyreft(tmp_path / "peer", config, tensors_of(ReftModel(build_base(), config, seed=3)))
    loaded = pyreft.ReftModel.load(str(tmp_path / "peer"), build_base())
    train(loaded, [ENDS[0] + ENDS[1]] * 2)
    for theirs in loaded.interventions.values():
        assert orthonormality_error(theirs.rotate_layer.weight.detach().mT) < TOLERANCE


def test_writing_and_reading_gives_the_same_bits(tmp_path: Path) -> None:
    config = ReftConfig((0, 2), "f2+l2", 2, init="paper", tied=False, dropout_on="output")
    tensors = tensors_of(ReftModel(build_base(), config, seed=3))
    write_pyreft(tmp_path / "peer", config, tensors)
    adapter = read(tmp_path / "peer")
    assert adapter.config == config
    for slot, expected in tensors.items():
        assert all(torch.equal(adapter.interventions[slot][name], value) for name, value in expected.items())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"method": "noreft"}, "cannot load"),
        ({"method": "direft"}, "cannot load"),
        ({"activation": "relu"}, "would load a linear one"),
        ({"positions": "f2+g3"}, "edits in the first pass, so those of tokens that follow would be lost"),
    ],
)
def test_what_pyreft_would_load_wrongly_is_not_written(tmp_path: Path, change: dict[str, str], words: str) -> None:
    config = ReftConfig(**{"layers": (0,), "positions": "f2", "rank": 2, "init": "paper", **change})
    with pytest.raises(ValueError, match=words):
        write_pyreft(tmp_path / "peer", config, tensors_of(ReftModel(build_base(), config, seed=3)))
    assert not list(tmp_path.iterdir())


def test_the_readme_says_the_positions_that_the_format_does_not(tmp_path: Path) -> None:
    config = ReftConfig(
        (0, 2), "f2+l3", 2, init="paper", tied=False, overrides=(LayerOverride(2, positions="0:2,5:9"),)
    )
    write_pyreft(tmp_path / "peer", config, tensors_of(ReftModel(build_base(), config, seed=3)))
    text = (tmp_path / "peer" / "README.md").read_text()
    for line in ("0_comp_block_output_unit_pos_nunit_1#0` | the first 2 |", "#1` | the last 3 |", "| 0 to 1, 5 to 8,"):
        assert line in text


def rounded(path: Path, dtype: torch.dtype) -> None:
    """Store everything as a user who cast the module did."""
    for file in path.glob("intkey_*.bin"):
        state = torch.load(file)
        torch.save({name: value.to(dtype) for name, value in state.items()}, file)


def test_an_r_rounded_to_bf16_is_made_orthonormal_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected = saved(tmp_path, "LoreftIntervention")
    rounded(tmp_path, torch.bfloat16)
    with caplog.at_level(logging.WARNING):
        adapter = read(tmp_path)
    assert len(adapter.notes) == 2
    assert "nearest orthonormal" in caplog.text
    model = on_base(adapter)
    assert all(orthonormality_error(each["rotation"]) < 1e-6 for each in adapter.interventions.values())
    assert (our_logits(model) - expected).abs().max() < 0.01


@pytest.mark.parametrize(("name", "method"), [("LoreftIntervention", "noreft"), ("DireftIntervention", "direft")])
def test_an_r_that_training_after_a_load_broke_is_read_without_the_constraint(
    tmp_path: Path, name: str, method: str
) -> None:
    """pyreft's own defect: R leaves the orthonormal matrices. Its edit is then NoReFT's with W2 = R."""
    saved(tmp_path / "first", name)
    loaded = pyreft.ReftModel.load(str(tmp_path / "first"), build_base())
    for theirs in loaded.interventions.values():
        theirs.learned_source.float()
        theirs.rotate_layer.parametrizations.weight[0].base.add_(0.02)
    loaded.save(str(tmp_path / "second"))
    with torch.no_grad():
        expected = logits_of(loaded, [ENDS[0] + ENDS[1]] * 2)
    with pytest.raises(ValueError, match=f"must be orthonormal.*import it as method {method}"):
        read(tmp_path / "second")
    adapter = read(tmp_path / "second", method=method)
    assert (our_logits(on_base(adapter)) - expected).abs().max() < TOLERANCE


ENCODERS: dict[str, Callable[[], torch.nn.Module]] = {
    "roberta": lambda: RobertaForSequenceClassification(
        RobertaConfig(**SIZES, pad_token_id=1, max_position_embeddings=40)
    ),
    "bert": lambda: BertForSequenceClassification(BertConfig(**SIZES, max_position_embeddings=40)),
}
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "num_labels": 3,
}


def encoder(family: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return ENCODERS[family]().eval()


def saved_encoder(path: Path, family: str, *, include_model: bool = True) -> Tensor:
    """Have pyreft train and save an encoder that it cannot load again; return its logits."""
    torch.manual_seed(2)
    representations = [
        {
            "component": f"{family}.encoder.layer[{layer}].output",
            "low_rank_dimension": 1,
            "intervention": intervention("LoreftIntervention", 1),
        }
        for layer in range(3)
    ]
    model = pyreft.get_reft_model(encoder(family), pyreft.ReftConfig(representations=representations), set_device=False)
    model.model.classifier.requires_grad_(True)
    train(model, [[0, 1]] * 3)
    model.save(str(path), include_model=include_model)
    with torch.no_grad():
        return logits_of(model, [[0, 1]] * 3)


@torch.no_grad()
def judged(model: ReftEncoder) -> Tensor:
    return model.eval()(LabelledBatch(ids(), torch.ones(2, LENGTH, dtype=torch.long), None, torch.zeros(2)))


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("family", ENCODERS)
def test_an_encoder_with_its_head_gives_pyrefts_logits(tmp_path: Path, family: str, older: bool) -> None:
    expected = saved_encoder(tmp_path, family)
    if older:
        for file in tmp_path.glob("intkey_comp_*.bin"):
            file.rename(tmp_path / f"intkey_{file.name.removeprefix('intkey_').replace('_', '.')}")
        assert (tmp_path / f"intkey_comp.{family}.encoder.layer[0].output.unit.pos.nunit.1#0.bin").exists()
    adapter = read(tmp_path, "f2")
    model = ReftEncoder(encoder(family), adapter.config, seed=9)
    adapter.fill(model)
    assert adapter.head.keys() == model.head_tensors().keys()
    assert (judged(model) - expected).abs().max() < TOLERANCE


def test_an_encoder_without_its_head_keeps_the_models(tmp_path: Path) -> None:
    saved_encoder(tmp_path, "bert", include_model=False)
    adapter = read(tmp_path, "f2")
    model = ReftEncoder(encoder("bert"), adapter.config, seed=9)
    before = {name: value.clone() for name, value in model.head_tensors().items()}
    adapter.fill(model)
    assert not adapter.head
    assert all(torch.equal(value, before[name]) for name, value in model.head_tensors().items())


def test_a_head_that_the_model_does_not_have_is_refused(tmp_path: Path) -> None:
    saved_encoder(tmp_path, "bert")
    adapter = read(tmp_path, "f2")
    base = encoder("bert")
    base.classifier = torch.nn.Linear(HIDDEN, 2)
    with pytest.raises(ValueError, match=r"classifier.weight of shape \(3, 16\)"):
        adapter.fill(ReftEncoder(base, adapter.config, seed=0))
    with pytest.raises(ValueError, match=r"a parameter classifier\.weight"):
        on_base(adapter)


def test_positions_must_go_with_the_number_of_interventions(tmp_path: Path) -> None:
    saved(tmp_path, "LobireftIntervention", untied=True)
    with pytest.raises(ValueError, match="first and the last tokens; got the positions 'f2'"):
        read(tmp_path, "f2")
    with pytest.raises(ValueError, match="none of those that follow; got the positions 'f2\\+g3'"):
        read(tmp_path, "f2+g3")


def test_a_model_of_another_config_or_width_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, "LobireftIntervention")
    adapter = read(tmp_path)
    other = ReftConfig((0, 2), "l2", 2, method="lobireft", init="paper")
    with pytest.raises(ValueError, match=r"built with the adapter.s config"):
        adapter.fill(ReftModel(build_base(), other, seed=0))


@pytest.mark.parametrize(
    ("component", "words"),
    [("mlp_output", "at a layer's output"), ("model.layers[0].mlp.output", "at a layer's output")],
)
def test_an_edit_elsewhere_than_at_a_layers_output_is_refused(tmp_path: Path, component: str, words: str) -> None:
    representation = {
        "layer": 0,
        "component": component,
        "low_rank_dimension": 2,
        "intervention": intervention("LobireftIntervention", 2),
    }
    config = pyreft.ReftConfig(representations=representation)
    pyreft.get_reft_model(build_base(), config, set_device=False).save(str(tmp_path))
    with pytest.raises(ValueError, match=words):
        read(tmp_path)
