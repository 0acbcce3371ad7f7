from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from reft.adapters.directory import AdapterInfo, load_adapter, read_adapter, save_adapter
from reft.adapters.files import adapter_sha256
from reft.data import Collator
from reft.edits.orthogonal import orthonormality_error
from reft.files import sha256
from reft.training.fit import fit
from tests.reft.tiny import build_base, build_fit, build_model, build_rows

BASE = "b" * 64
INFO = AdapterInfo(BASE, "tiny", "d" * 64, {"template": "{text}", "labels": {"z": " no", "a": " yes"}}, 42)
CONFIG = build_fit(checkpoint_every=100)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_adapter(build_model(), tmp_path / "adapter", INFO)
    return tmp_path / "adapter"


def rewrite(path: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    """Change the tensors as someone would who also makes the recorded hash fit."""
    tensors = safetensors.torch.load_file(path / "adapter.safetensors")
    change(tensors)
    content = safetensors.torch.save(tensors)
    (path / "adapter.safetensors").write_bytes(content)
    edit_config(path, lambda record: record.update(tensors_sha256=sha256(content)))


def edit_config(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    record = json.loads((path / "adapter_config.json").read_text())
    change(record)
    (path / "adapter_config.json").write_text(json.dumps(record))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("positions", ["f2+l2", "f1+l1+g2"])
def test_a_loaded_adapter_gives_the_same_bits(tmp_path: Path, family: str, positions: str, tied: bool) -> None:
    model = build_model(family, positions=positions, tied=tied)
    list(fit(model, build_rows(8), CONFIG, pad_id=0))
    save_adapter(model, tmp_path / "adapter", INFO)
    loaded = load_adapter(tmp_path / "adapter", build_base(family), base_sha256=BASE)
    batch = Collator(0)(build_rows(5, seed=1))
    with torch.no_grad():
        assert torch.equal(loaded(batch), model(batch))
    assert loaded.config == model.config


def test_saving_what_was_loaded_gives_the_same_hash(saved: Path, tmp_path: Path) -> None:
    """At whatever strength it is used: that is no part of it."""
    loaded = load_adapter(saved, build_base(), base_sha256=BASE)
    loaded.scale = 0.5
    assert save_adapter(loaded, tmp_path / "again", INFO) == adapter_sha256(saved)


def test_training_goes_on_after_a_load_with_r_orthonormal(saved: Path) -> None:
    loaded = load_adapter(saved, build_base(), base_sha256=BASE)
    list(fit(loaded, build_rows(20), CONFIG, pad_id=0))
    for _, intervention in loaded.named_interventions():
        assert orthonormality_error(intervention.rotation()) < 1e-5


def test_saved_values_are_the_counted_ones(saved: Path) -> None:
    tensors = safetensors.torch.load_file(saved / "adapter.safetensors")
    assert sum(tensor.numel() for tensor in tensors.values()) == build_model().num_trainable()
    assert {path.name for path in saved.iterdir()} == {"adapter.safetensors", "adapter_config.json"}


def test_description_is_read_back_in_order(saved: Path) -> None:
    config, info = read_adapter(saved)
    assert (config, info) == (build_model().config, INFO)
    assert list(info.prompt["labels"]) == ["z", "a"]


def test_nothing_is_written_over(saved: Path) -> None:
    before = adapter_sha256(saved)
    with pytest.raises(FileExistsError, match="not written over"):
        save_adapter(build_model(seed=9), saved, INFO)
    assert adapter_sha256(saved) == before
    assert [path.name for path in saved.parent.iterdir()] == ["adapter"]


def test_a_foreign_base_is_refused(saved: Path) -> None:
    with pytest.raises(ValueError, match="trained on, tiny"):
        load_adapter(saved, build_base(), base_sha256="c" * 64)


def test_an_adapter_of_a_base_without_identity_is_loaded_without_one_alone(saved: Path, tmp_path: Path) -> None:
    """Whoever has no store of bases says so on both sides; an identity that stands on one side is never passed over."""
    model = build_model()
    save_adapter(model, tmp_path / "plain", AdapterInfo())
    batch = Collator(0)(build_rows(3))
    with torch.no_grad():
        assert torch.equal(load_adapter(tmp_path / "plain", build_base(), base_sha256=None)(batch), model(batch))
    assert read_adapter(tmp_path / "plain")[1] == AdapterInfo()
    with pytest.raises(ValueError, match=f"got {BASE}; give None"):
        load_adapter(tmp_path / "plain", build_base(), base_sha256=BASE)
    with pytest.raises(ValueError, match="got None; load that base"):
        load_adapter(saved, build_base(), base_sha256=None)


@pytest.mark.parametrize("key", ["hidden_size", "num_layers"])
def test_a_base_of_another_size_is_refused(saved: Path, key: str) -> None:
    edit_config(saved, lambda record: record["base"].update({key: 99}))
    with pytest.raises(ValueError, match="99"):
        load_adapter(saved, build_base(), base_sha256=BASE)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.update({"layer_0.weight": torch.zeros(3, 16)}), "must hold"),
        (lambda t: t.pop("layer_2.bias"), "must hold"),
        (lambda t: t.update(extra=torch.zeros(1)), "must hold"),
        (lambda t: t.update({"layer_0.bias": torch.zeros(2, dtype=torch.bfloat16)}), "float32"),
        (lambda t: t["layer_0.bias"].fill_(torch.nan), "NaN"),
        (lambda t: t["layer_0.rotation"].mul_(1.01), "orthonormal"),
    ],
)
def test_wrong_tensors_are_refused(saved: Path, change: Callable[[dict[str, Tensor]], None], words: str) -> None:
    rewrite(saved, change)
    with pytest.raises(ValueError, match=words):
        load_adapter(saved, build_base(), base_sha256=BASE)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r.update(format=3), "format"),
        (lambda r: r.pop("seed"), "what save_adapter writes"),
        (lambda r: r.update(seed="1"), "what save_adapter writes"),
        (lambda r: r.update(prompt=[]), "what save_adapter writes"),
        (lambda r: r["reft"].update(ranks=1), "did you mean rank"),
        (lambda r: r.update(tensors_sha256="0" * 64), "differs"),
    ],
)
def test_a_wrong_description_is_refused(saved: Path, change: Callable[[dict[str, Any]], object], words: str) -> None:
    edit_config(saved, change)
    with pytest.raises(ValueError, match=words):
        load_adapter(saved, build_base(), base_sha256=BASE)


@pytest.mark.parametrize("name", ["adapter.safetensors", "adapter_config.json"])
def test_links_and_missing_files_are_refused(saved: Path, name: str) -> None:
    target = (saved / name).rename(saved.parent / "target")
    with pytest.raises(ValueError, match="got none"):
        load_adapter(saved, build_base(), base_sha256=BASE)
    (saved / name).symlink_to(target)
    with pytest.raises(ValueError, match="symbolic link"):
        load_adapter(saved, build_base(), base_sha256=BASE)


def test_a_file_beyond_the_size_that_fits_is_not_read(saved: Path) -> None:
    with (saved / "adapter.safetensors").open("r+b") as handle:
        handle.truncate(50_000_000)
    with pytest.raises(ValueError, match="at most"):
        load_adapter(saved, build_base(), base_sha256=BASE)


@pytest.mark.parametrize("text", [b"\xff{", b"[" * 100_000, b"null"])
def test_text_that_is_no_json_is_refused(saved: Path, text: bytes) -> None:
    (saved / "adapter_config.json").write_bytes(text)
    with pytest.raises(ValueError, match="what save_adapter writes"):
        read_adapter(saved)
