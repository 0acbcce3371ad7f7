"""A directory from elsewhere may be anything: what is no plain adapter is refused with a reason, and runs nothing."""

from __future__ import annotations

import io
import json
import os
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from reft.edits.config import ReftConfig
from reft.formats.adapterhub import read_adapterhub
from reft.formats.foreign import ForeignAdapter, rebuild_rotation
from reft.formats.pyreft import read_pyreft
from reft.formats.pyreft_write import write_pyreft
from reft.models.decoder import ReftModel
from tests.reft.tiny import build_base

KEY = "intkey_layer_0_comp_block_output_unit_pos_nunit_1#0.bin"


def read(path: Path) -> ForeignAdapter:
    return read_pyreft(path, positions="f2+l2", activation="linear", dropout=0.0)


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    config = ReftConfig((0, 2), "f2+l2", 2, init="paper")
    model = ReftModel(build_base(), config, seed=3)
    path = tmp_path_factory.mktemp("made") / "peer"
    write_pyreft(path, config, {slot: module.export_tensors() for slot, module in model.named_interventions()})
    return {file.name: file.read_bytes() for file in path.iterdir()}


@pytest.fixture
def peer(content: dict[str, bytes], tmp_path: Path) -> Path:
    path = tmp_path / "peer"
    path.mkdir()
    for name, data in content.items():
        (path / name).write_bytes(data)
    return path


def change(peer: Path, edit: Callable[[dict[str, Tensor]], object]) -> None:
    state = torch.load(peer / KEY)
    edit(state)
    torch.save(state, peer / KEY)


class Runs:
    """What unpickles into a call."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("place", [KEY, "pytorch_model.bin"])
def test_code_in_a_file_is_refused_and_not_run(peer: Path, place: str) -> None:
    torch.save({"weight": Runs(peer.parent / "marker")}, peer / place)
    with pytest.raises(ValueError, match="mkdir, which is code"):
        read(peer)
    assert not (peer.parent / "marker").exists()
    torch.load(peer / place, weights_only=False)  # it would have run
    assert (peer.parent / "marker").exists()


def test_code_in_adapterhubs_file_is_refused_and_not_run(tmp_path: Path) -> None:
    config = {"architecture": "reft", "prefix_positions": 1, "suffix_positions": 0, "orthogonality": True}
    config |= {"tied_weights": True, "dropout": 0.0, "non_linearity": None}
    (tmp_path / "adapter_config.json").write_text(json.dumps({"name": "a", "config": config}))
    torch.save({"weight": Runs(tmp_path / "marker")}, tmp_path / "pytorch_adapter.bin")
    with pytest.raises(ValueError, match="mkdir, which is code"):
        read_adapterhub(tmp_path)
    assert not (tmp_path / "marker").exists()


def test_whatever_is_done_to_a_file_it_is_read_or_refused(peer: Path) -> None:
    """Only ValueError, in 200 ways of damage; what is read is finite and orthonormal, as every adapter here."""
    whole, draw = (peer / KEY).read_bytes(), random.Random(0)
    refused = 0
    for _ in range(200):
        data = bytearray(whole[: draw.choice([len(whole), draw.randrange(len(whole))])])
        for _ in range(draw.choice([1, 1, 8])):
            if data:
                data[draw.randrange(len(data))] = draw.randrange(256)
        (peer / KEY).write_bytes(bytes(data))
        try:
            read(peer)
        except ValueError:
            refused += 1
    assert refused > 100


def test_an_archive_that_unpacks_to_more_than_it_is_is_refused(peer: Path, content: dict[str, bytes]) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content[KEY])) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))
    (peer / KEY).write_bytes(buffer.getvalue())
    with pytest.raises(ValueError, match="packed"):
        read(peer)


def test_a_view_that_claims_a_huge_shape_is_refused(peer: Path) -> None:
    change(peer, lambda state: state.update(weight=torch.zeros(1).expand(10**7, 10**7)))
    with pytest.raises(ValueError, match="larger than its file"):
        read(peer)


def test_the_format_before_zip_is_refused(peer: Path) -> None:
    torch.save(torch.load(peer / KEY), peer / KEY, _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match=r"torch 1\.6 or later"):
        read(peer)


@pytest.mark.parametrize("name", [KEY, "config.json"])
def test_a_file_beyond_the_size_is_not_read(peer: Path, name: str) -> None:
    with (peer / name).open("r+b") as file:
        file.truncate(3 << 30)  # sparse: takes no room
    with pytest.raises(ValueError, match="at most"):
        read(peer)


@pytest.mark.parametrize("name", [KEY, "config.json", "pytorch_model.bin"])
def test_links_are_refused(peer: Path, name: str) -> None:
    target = peer.parent / "target"
    if (peer / name).exists():
        (peer / name).rename(target)
    (peer / name).symlink_to(target)
    with pytest.raises(ValueError, match=r"symbolic link|method must be given"):
        read(peer)


def test_a_linked_directory_is_refused(peer: Path) -> None:
    (peer.parent / "link").symlink_to(peer)
    with pytest.raises(ValueError, match="symbolic link"):
        read(peer.parent / "link")


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda s: s.update(weight=torch.zeros(3, 16)), "must hold"),
        (lambda s: s.update(weight=torch.zeros(2, 15)), "must hold"),
        (lambda s: s.update(rotate_layer=torch.zeros(2, 16)), "must hold"),
        (lambda s: s.pop("bias"), "a matrix and a bias"),
        (lambda s: s.update(norm=torch.zeros(1)), "no counterpart"),
        (lambda s: s["bias"].fill_(torch.nan), "NaN"),
        (lambda s: s.update(bias=torch.zeros(2, dtype=torch.long)), "floats"),
        (lambda s: s.update(weight=torch.zeros(2, 4, 4)), "matrix or vector"),
        (lambda s: s["rotate_layer"].mul_(1.01), "orthonormal"),
        (lambda s: s.update(weight=torch.zeros(2, 16).to_sparse()), "dense tensor"),
        (lambda s: s.update(weight=3), "dense tensor"),
        (lambda s: s.update({5: torch.zeros(1)}), "tensors by name"),
        (lambda s: s.update({name: torch.zeros(0) for name in list(s)}), "a matrix and a bias"),
        (lambda s: s.update(rotate_layer=torch.eye(16)[:, :2] + torch.zeros(16, 2, dtype=torch.complex64)), "floats"),
    ],
)
def test_wrong_tensors_are_refused(peer: Path, edit: Callable[[dict[str, Tensor]], object], words: str) -> None:
    change(peer, edit)
    with pytest.raises(ValueError, match=words):
        read(peer)


@pytest.mark.parametrize(
    ("types", "words"),
    [
        (["<class 'os.system'>"] * 2, "of one class of pyreft"),
        (["__import__('os').system('true')"] * 2, "of one class of pyreft"),
        (["<class 'mine.LoreftIntervention'>"] * 2, "of one class of pyreft"),
        (["<class 'pyreft.interventions.LoreftIntervention'>"], "a class for each of 2"),
        (
            [f"<class 'pyreft.interventions.{name}Intervention'>" for name in ("Loreft", "Direft")],
            "of one class of pyreft",
        ),
        ([["deep"], None], "of one class of pyreft"),
        ("text", "a class for each of 2"),
        (["<class 'pyreft.interventions.NoreftIntervention'>"] * 2, None),
        (["<class 'pyreft.interventions.LobireftIntervention'>"] * 2, "must hold"),
    ],
)
def test_classes_are_names_and_nothing_else(peer: Path, types: object, words: str | None) -> None:
    config = json.loads((peer / "config.json").read_text())
    (peer / "config.json").write_text(json.dumps(config | {"intervention_types": types}))
    if words is None:
        assert read(peer).config.method == "noreft"  # R is then a W2 like any other
    else:
        with pytest.raises(ValueError, match=words):
            read(peer)


@pytest.mark.parametrize("text", [b"\xff{", b"[" * 100_000, b"null", b"[]"])
def test_a_config_that_is_no_json_object_is_refused(peer: Path, text: bytes) -> None:
    (peer / "config.json").write_bytes(text)
    with pytest.raises(ValueError, match="JSON"):
        read(peer)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("intkey_layer_0_comp_block_output_unit_pos_nunit_1#2.bin", "numbered from 0"),
        ("intkey_layer.0.comp.block_output.unit.pos.nunit.1#0.bin", "numbered from 0"),
        ("intkey_layer_1_comp_block_input_unit_pos_nunit_1#0.bin", "at a layer's output"),
        ("intkey_layer_1_comp_block_output_unit_h_nunit_1#0.bin", "at a layer's output"),
        ("intkey_comp_decoder_layers[1]_output_unit_pos_nunit_1#0.bin", "one stack"),
        ("intkey_layer_0_comp_block_output_unit_pos_nunit_1#1.bin", "each layer must have one intervention, or each"),
    ],
)
def test_names_that_do_not_make_an_adapter_are_refused(peer: Path, name: str, words: str) -> None:
    (peer / name).write_bytes((peer / KEY).read_bytes())
    with pytest.raises(ValueError, match=words):
        read_pyreft(peer, positions="f2+l2", activation="linear", dropout=0.0, method="loreft")


def test_an_empty_or_missing_directory_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ValueError, match=r"intkey_\*\.bin; got none"):
            read(path)


def test_r_is_rebuilt_as_torch_computes_it() -> None:
    layer = torch.nn.utils.parametrizations.orthogonal(torch.nn.Linear(3, 12, bias=False))
    with torch.no_grad():
        layer.parametrizations.weight.original.add_(torch.randn(12, 3).tril(-1))
    parts = layer.parametrizations.weight
    got = rebuild_rotation(parts[0].base, parts.original.detach())
    torch.testing.assert_close(got, layer.weight.detach().mT, atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match=r"\[hidden, rank\]"):
        rebuild_rotation(parts[0].base, parts.original.detach().mT)
