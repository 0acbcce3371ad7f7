"""Adapters in and out of a project with a tiny base: what comes back computes what went out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from torch import Tensor

from pipelines.bases.load import LoadedBase, load_base
from pipelines.contracts.base import read_base
from pipelines.contracts.prepared import data_sha256
from pipelines.errors import PipelineError
from pipelines.exchange.export import export_adapter
from pipelines.exchange.imports import BaseChoice, DeclaredSettings, import_adapter, load_published
from pipelines.files import read_json, sha256_file, write_json
from reft import AdapterInfo, Batch, ReftConfig, ReftModel, adapter_sha256, load_adapter, read_adapter, save_adapter
from reft.adapters.directory import read_interventions
from reft.formats.pyreft_write import write_pyreft
from tests.hub_server import files_of, repository, running_hub
from tests.pipelines.finished import PROJECT, finish_stages

SAID = DeclaredSettings(positions="l1", activation="linear", dropout=0.0)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project whose stages have run, with a base store of its own."""
    root, home = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFT_HOME", str(home))
        paths = finish_stages(root)
        graph = yaml.safe_load((PROJECT / "dvc.yaml").read_text(encoding="utf-8"))
        graph["vars"] = [{"paths": {name: str(path.relative_to(root)) for name, path in paths.items()}}]
        graph["vars"][0]["paths"]["registration"] = "registration.json"
        (root / "dvc.yaml").write_text(yaml.safe_dump(graph), encoding="utf-8")
        lock = {"stages": {"prepare": {"params": {"params.yaml": {"prepare": {"source": "file:data/own/films.csv"}}}}}}
        (root / "dvc.lock").write_text(yaml.safe_dump(lock), encoding="utf-8")
        (root / "home").symlink_to(home)
        yield root


@pytest.fixture(autouse=True)
def own_home(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFT_HOME", str((root / "home").resolve()))


@pytest.fixture(scope="module")
def base(root: Path) -> LoadedBase:
    return load_base(read_base(finish_stages(root)["base"]))


@torch.no_grad()
def logits(model: ReftModel) -> Tensor:
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    return model.eval()(Batch(ids, torch.ones_like(ids), torch.full_like(ids, -100), torch.tensor([4])))


def of_project(root: Path, base: LoadedBase) -> Tensor:
    return logits(load_adapter(finish_stages(root)["adapter"], base.model, base_sha256=base.record.sha256))


def peer(root: Path, tmp_path: Path) -> Path:
    export_adapter(None, tmp_path / "peer", layout="pyreft", root=root)
    return tmp_path / "peer"


def base_json(root: Path) -> BaseChoice:
    return BaseChoice(str(finish_stages(root)["base"]))


def test_what_went_out_for_pyreft_comes_back_with_the_same_bits(root: Path, base: LoadedBase, tmp_path: Path) -> None:
    source, out = peer(root, tmp_path), tmp_path / "adapter"
    made = import_adapter(str(source), out, library="pyreft", root=root, declared=SAID, base=base_json(root))
    model = load_adapter(out, base.model, base_sha256=base.record.sha256)
    assert torch.equal(logits(model), of_project(root, base))
    assert (made.adapter_sha256, made.trained, made.notes) == (adapter_sha256(out), model.num_trainable(), ())
    origin = read_json(out / "imported.json")
    assert (origin["library"], origin["source"], origin["said"]["positions"]) == ("pyreft", "peer", "l1")
    assert origin["files"]["config.json"] == sha256_file(source / "config.json")
    assert str(tmp_path) not in (out / "imported.json").read_text(encoding="utf-8")


def test_an_imported_adapter_stands_alone(root: Path, base: LoadedBase, tmp_path: Path) -> None:
    """With its base.json beside it, it can be loaded and published without the project."""
    out = tmp_path / "adapter"
    import_adapter(str(peer(root, tmp_path)), out, library="pyreft", root=root, declared=SAID, base=base_json(root))
    assert torch.equal(logits(load_published(str(out)).model), of_project(root, base))
    export_adapter(str(out), tmp_path / "published", layout="hub", root=tmp_path)
    card = ModelCard.load(tmp_path / "published" / "README.md")
    assert card.data.pipeline_tag == "text-generation"  # nobody knows what its prompts were
    assert card.data.eval_results is None


def test_what_was_not_said_is_told(root: Path, tmp_path: Path) -> None:
    declared = DeclaredSettings(positions="l1")
    out = tmp_path / "adapter"
    made = import_adapter(
        str(peer(root, tmp_path)), out, library="pyreft", root=root, declared=declared, base=base_json(root)
    )
    assert [("activation" in note, "dropout" in note) for note in made.notes] == [(True, False), (False, True)]
    assert read_json(out / "imported.json")["notes"] == list(made.notes)


def test_a_published_adapter_loads_alone_with_the_same_bits(root: Path, base: LoadedBase, tmp_path: Path) -> None:
    sha256 = export_adapter(None, tmp_path / "films", layout="hub", root=root)
    loaded = load_published(str(tmp_path / "films"), root=root)
    assert torch.equal(logits(loaded.model), of_project(root, base))
    assert list(loaded.prompt["labels"]) == ["negative", "positive"]
    assert adapter_sha256(tmp_path / "films") == sha256 == adapter_sha256(finish_stages(root)["adapter"])
    again = import_adapter(
        str(tmp_path / "films"), tmp_path / "again", library="hub", root=root, declared=DeclaredSettings(), base=None
    )
    assert again.adapter_sha256 == sha256


def test_the_card_says_what_the_stages_found(root: Path, tmp_path: Path) -> None:
    export_adapter(None, tmp_path / "films", layout="hub", root=root)
    card = ModelCard.load(tmp_path / "films" / "README.md")
    assert (card.data.library_name, card.data.pipeline_tag) == ("reft-pipeline", "text-classification")
    assert {"reft", "loreft"} <= set(card.data.tags)
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_value) == ("accuracy", 0.8)
    assert result.dataset_name == "file:data/own/films.csv"
    assert card.data.base_model is None  # the base is no repository of a hub
    for said in (
        "Yes: accuracy is 80.0 % with the adapter and 50.0 % without on 10 test rows, +30.0 points (95 % interval",
        "| adapter | 80.0 % | 60.0 % to 90.0 % |",
        "| paired difference | +30.0 points | +10.0 to +50.0 points |",
        "| majority baseline | 50.0 % |",
        "| macro F1 | 0.500 | 0.500 |",
        "optimiser steps",
        "| learning_rate | 0.001 |",
        "260 trained numbers",  # 2 layers, rank 2: 2 * 2 * (2 * 32 + 1)
        read_base(finish_stages(root)["base"]).sha256,
        '"template": "Review: {text}\\nSentiment:"',
        "load_published",
    ):
        assert said in card.text, said


def test_figures_of_another_adapter_are_not_on_the_card(root: Path, tmp_path: Path) -> None:
    evaluation = finish_stages(root)["evaluation"]
    before = evaluation.read_text(encoding="utf-8")
    write_json(evaluation, json.loads(before) | {"adapter_sha256": "0" * 64})
    export_adapter(None, tmp_path / "films", layout="hub", root=root)
    evaluation.write_text(before, encoding="utf-8")
    card = ModelCard.load(tmp_path / "films" / "README.md")
    assert card.data.eval_results is None
    assert "points" not in card.text


def test_a_base_of_a_hub_is_named_as_one(root: Path, tmp_path: Path) -> None:
    made = tmp_path / "adapter"
    made.mkdir()
    for file in finish_stages(root)["adapter"].iterdir():
        (made / file.name).write_bytes(file.read_bytes())
    raw = read_json(finish_stages(root)["base"])
    write_json(made / "base.json", raw | {"source": f"hub:org/tiny@{'a' * 40}"})
    export_adapter(str(made), tmp_path / "films", layout="hub", root=root)
    card = ModelCard.load(tmp_path / "films" / "README.md")
    assert (card.data.base_model, card.data["base_model_relation"]) == ("org/tiny", "adapter")


def test_it_comes_from_a_hub(root: Path, base: LoadedBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export_adapter(None, tmp_path / "films", layout="hub", root=root)
    published = repository("models", "org/films", files_of(tmp_path / "films") | {"evil.py": b"raise SystemExit"})
    theirs = repository("models", "org/theirs", files_of(peer(root, tmp_path)))
    with running_hub(published, theirs) as hub:
        for name, value in {
            "ENDPOINT": hub.address,
            "HUGGINGFACE_CO_URL_TEMPLATE": hub.address + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(tmp_path / "cache"),
        }.items():
            monkeypatch.setattr(huggingface_hub.constants, name, value)
        loaded = load_published(f"hub:org/films@{published.commit}", root=root)
        made = import_adapter(
            f"hub:org/theirs@{theirs.commit}",
            tmp_path / "adapter",
            library="pyreft",
            root=root,
            declared=SAID,
            base=base_json(root),
        )
    assert torch.equal(logits(loaded.model), of_project(root, base))
    assert made.positions == "l1"
    asked = [path for _, path, _ in hub.log]
    assert any("intkey_" in path for path in asked)
    assert not any("evil.py" in path and "/resolve/" in path for path in asked)


def saved(root: Path, path: Path, base: LoadedBase, **changes: Any) -> Path:
    """An adapter of another form on the project's base."""
    config = ReftConfig(**{"layers": (1,), "positions": "l1", "rank": 2, "init": "paper", **changes})
    prepared = data_sha256(finish_stages(root)["prepared"])
    info = AdapterInfo(base.record.sha256, base.record.source, prepared, {}, 0)
    save_adapter(ReftModel(base.model, config, seed=0), path, info)
    return path


def test_an_adapter_without_its_bases_record_is_not_published(root: Path, base: LoadedBase, tmp_path: Path) -> None:
    path = saved(root, tmp_path / "adapter", base)
    with pytest.raises(PipelineError, match=r"needs base\.json"):
        export_adapter(str(path), tmp_path / "out", layout="hub", root=root)
    write_json(path / "base.json", read_json(finish_stages(root)["base"]) | {"files": {}, "sha256": "0" * 64})
    with pytest.raises(PipelineError, match=r"sha256 must be that of files"):
        export_adapter(str(path), tmp_path / "out", layout="hub", root=root)
    assert not (tmp_path / "out").exists()


def test_an_adapter_for_another_base_is_not_imported(root: Path, base: LoadedBase, tmp_path: Path) -> None:
    """The width and the depth are all that pyreft's files say of the base."""
    config = ReftConfig((7,), "l1", 2, init="paper")
    tensors = read_interventions(saved(root, tmp_path / "one", base))["layer_1"]
    write_pyreft(tmp_path / "deep", config, {"layer_7": tensors})
    write_pyreft(
        tmp_path / "wide",
        ReftConfig((1,), "l1", 2, init="paper"),
        {"layer_1": {"bias": tensors["bias"], "weight": torch.zeros(2, 48), "rotation": torch.eye(2, 48)}},
    )
    for name, words in (("deep", "layers must be below 2"), ("wide", "on a base of width 48")):
        with pytest.raises(PipelineError, match=words):
            import_adapter(
                str(tmp_path / name), tmp_path / "out", library="pyreft", root=root, declared=SAID, base=base_json(root)
            )
    assert not (tmp_path / "out").exists()


def test_the_project_needs_an_adapter_to_export(root: Path, tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").write_bytes((root / "dvc.yaml").read_bytes())
    with pytest.raises(PipelineError, match="the project must have an adapter"):
        export_adapter(None, tmp_path / "out", layout="hub", root=tmp_path)


def test_read_adapter_and_card_agree_on_the_config(root: Path, tmp_path: Path) -> None:
    config, info = read_adapter(finish_stages(root)["adapter"])
    export_adapter(None, tmp_path / "films", layout="hub", root=root)
    text = (tmp_path / "films" / "README.md").read_text(encoding="utf-8")
    for said in (f"| rank | {config.rank} |", f"`{config.positions}` of the layers 0, 1", info.data_sha256):
        assert said in text
