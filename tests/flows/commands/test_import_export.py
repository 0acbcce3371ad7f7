"""``reft import`` and ``reft export`` as a user types them, in this process: what is written, and what mistakes get."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from flows.cli import main
from pipelines.bases.load import load_base
from pipelines.bases.store import obtain
from pipelines.contracts.base import read_base, write_record
from pipelines.exchange.export import export_adapter
from pipelines.exchange.imports import load_published
from reft import AdapterInfo, ReftConfig, ReftModel, load_adapter, save_adapter
from reft.adapters.any_method import build_method, save_method
from reft.adapters.files import adapter_sha256
from reft.models.decoding import Decoding
from reft.peers.lora import LoraConfig
from tests.tiny import write_tiny_base

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project with a base and a trained adapter, as `reft run` leaves them; no stage need run for that."""
    root, home = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFT_HOME", str(home))
        write_tiny_base(root / "models" / "own" / "tiny", layers=2)
        record = obtain("file:models/own/tiny", None, "float32", root=root)
        write_record(root / "models" / "base.json", record)
        for name in ("params.yaml", "dvc.yaml"):
            (root / name).write_bytes((ROOT / name).read_bytes())
        base = load_base(record).model
        info = AdapterInfo(
            record.sha256, record.source, "d" * 64, {"template": "{text}", "chat": False, "labels": {}}, 1
        )
        for name, method in (("adapter", "loreft"), ("free", "direft")):
            config = ReftConfig((0, 1), "f2+l2", 2, method=method, init="paper", tied=False)
            save_adapter(ReftModel(base, config, seed=1), root / "models" / name, info)
        lora = build_method(base, LoraConfig((0,), ("q_proj",), 2, 4.0, 0.0), seed=1)
        save_method(lora, root / "models" / "lora", info)
        (root / "home").symlink_to(home)
        yield root


@pytest.fixture(autouse=True)
def own_home(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFT_HOME", str((project / "home").resolve()))
    monkeypatch.chdir(project)


def reft(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """Run the command line; return its exit code."""
    monkeypatch.setattr(sys, "argv", ["reft", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_out_for_pyreft_and_in_again(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    peer, made = tmp_path / "peer", tmp_path / "made"
    assert reft(monkeypatch, "export", "--format", "pyreft", "--out", peer) == 0
    assert reft(monkeypatch, "import", peer, "--format", "pyreft", "--positions", "f2+l2", "--out", made) == 0
    said = capsys.readouterr().out
    assert "loreft at f2+l2 of 2 layers, 520 trained numbers" in said
    assert "note: the activation is taken to be linear" in said
    loaded = load_published(str(made))
    base = loaded.model.base
    before = load_adapter(project / "models" / "adapter", base, base_sha256=read_base(made / "base.json").sha256)
    for (_, one), (_, other) in zip(before.named_interventions(), loaded.model.named_interventions(), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_out_for_a_hub_and_in_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published = tmp_path / "films"
    assert reft(monkeypatch, "export", "--format", "hub", "--out", published) == 0
    assert {file.name for file in published.iterdir()} == {
        "README.md", "adapter.safetensors", "adapter_config.json", "base.json",
    }  # fmt: skip
    assert reft(monkeypatch, "import", published, "--format", "hub", "--out", tmp_path / "made") == 0
    assert {file.name for file in (tmp_path / "made").iterdir()} == {
        "adapter.safetensors", "adapter_config.json", "base.json",
    }  # fmt: skip


def test_out_for_people_without_this_project(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "films"
    assert reft(monkeypatch, "export", "models/free", "--format", "standalone", "--out", out) == 2
    assert "needs base.json, the record of its base" in capsys.readouterr().err
    assert reft(monkeypatch, "export", "--format", "standalone", "--out", out) == 0
    readme = (out / "README.md").read_text(encoding="utf-8")
    record = read_base(project / "models" / "base.json")
    assert all(digest in readme for digest in record.files.values())
    assert 'load("path/to/the/base")' in readme  # it is of a folder, not of a hub
    monkeypatch.syspath_prepend(out)
    loader = importlib.import_module("load_reft")
    model, tokenizer = loader.load(load_base(record).path)
    prompts = ["Review: a good film.\nSentiment:", "bad"]
    inputs = tokenizer(prompts, return_tensors="pt", padding=True)
    own = load_adapter(project / "models" / "adapter", load_base(record).model, base_sha256=record.sha256).eval()
    assert torch.equal(
        model.generate(**inputs, max_new_tokens=4, do_sample=False),
        own.generate(inputs["input_ids"], inputs["attention_mask"], Decoding(max_new_tokens=4)),
    )


def test_out_for_vllm_is_the_adapter_and_its_bases_record(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "films"
    assert reft(monkeypatch, "export", "--format", "vllm", "--out", out) == 0
    assert {file.name for file in out.iterdir()} == {"adapter.safetensors", "adapter_config.json", "base.json"}
    assert adapter_sha256(out) == adapter_sha256(project / "models" / "adapter")
    assert (out / "base.json").read_bytes() == (project / "models" / "base.json").read_bytes()


def test_out_for_easysteer_is_a_vector_for_each_window_and_its_bases_record(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "films"
    assert reft(monkeypatch, "export", "--format", "easysteer", "--out", out) == 0
    assert {file.name for file in out.iterdir()} == {"steering.json", "README.md", "base.json"}
    assert len(json.loads((out / "steering.json").read_text())["vectors"]) == 4  # two layers, untied f2+l2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("export models/lora --format easysteer --out {out}", "hidden states. Got: lora. Use --format hub"),
        ("export models/lora --format vllm --out {out}", "hidden states. Got: lora. Use --format hub"),
        ("export models/adapter --format vllm --out {out}", "needs base.json"),
        ("export --format pyreft --out models/adapter", "not written over"),
        ("export models/lora --format standalone --out {out}", "hidden states. Got: lora. Use --format hub"),
        ("export models/lora --format pyreft --out {out}", "hidden states. Got: lora. Use --format hub"),
        ("export nowhere --format pyreft --out {out}", "adapter_config.json; got none"),
        ("export models/free --format pyreft --out {out}", "got direft, whose class it saves but cannot load"),
        ("export models/adapter --format hub --out {out}", "needs base.json"),
        ("export models:/x --format hub --out {out}", "a version is models:/NAME@ALIAS"),
        ("export hub:org/x@main --format hub --out {out}", "a commit of 40 hex digits"),
        ("import nowhere --format pyreft --positions l1 --out {out}", "files intkey_*.bin; got none"),
        ("import {peer} --format pyreft --out {out}", "give --positions as in training"),
        ("import {peer} --format pyreft --positions 7 --out {out}", "positions are fN, lN"),
        ("import {peer} --format pyreft --positions l2 --out {out}", "write them like f7+l7"),
        ("import {peer} --format pyreft --positions f2+l2 --activation x --out {out}", "activation must be one of"),
        ("import {peer} --format pyreft --positions f2+l2 --dropout 1 --out {out}", "dropout must be a number in"),
        ("import {peer} --format pyreft --positions f2+l2 --method x --out {out}", "method must be one of"),
        ("import {peer} --format pyreft --positions f2+l2 --base nowhere.json --out {out}", "the file must exist"),
        ("import {peer} --format pyreft --positions f2+l2 --base pypi:a==1/a.whl#a --out {out}", "its base.json"),
        ("import {peer} --format pyreft --positions f2+l2 --out {peer}", "not written over"),
        ("import {peer} --format pyreft --positions f2+l2 --project {peer} --out {out}", "the base must be named"),
        ("import {peer} --format adapterhub --out {out}", "must hold adapter_config.json"),
        ("import {peer} --format adapterhub --positions f1 --out {out}", "leave them out"),
        ("import {peer} --format hub --out {out}", "folder of plain files with base.json"),
        ("import models/adapter --format hub --positions l1 --out {out}", "says all of itself"),
    ],
)
def test_a_mistake_is_told_and_writes_nothing(
    tmp_path: Path,
    made_peer: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: str,
    said: str,
) -> None:
    out = tmp_path / "out"
    assert reft(monkeypatch, *(word.format(out=out, peer=made_peer) for word in words.split())) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.startswith("error: ")
    assert "Traceback" not in told
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def made_peer(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "peer"
    export_adapter(str(project / "models" / "adapter"), path, layout="pyreft", root=project)
    return path
