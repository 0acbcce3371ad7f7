"""What an earlier stage left, and what the base can have: found by the later stages."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bad_inputs.case import BadInput, params
from tests.project import Project

RECIPE = {"layers": "upper-third", "positions": "l4", "rank": 4, "learning_rate": 0.02}
SPACE = "search.space must hold only what the base can have"
ADAPTER = "the adapter must be the one that was trained on this base"
TRAIN = "Run: dvc repro -f -s train"


def written(name: str, content: str) -> Callable[[Project], None]:
    """Spoil a stage's output by another content."""
    return lambda project: (project.root / name).write_text(content, encoding="utf-8") and None


def store_cut(project: Project) -> Path:
    """The base in the store is cut short; returns the source's folder."""
    weights = next((project.root.parent / "home" / "reft" / "bases").glob("*/model.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    return project.root / "models" / "own" / "tiny"


def store_and_source_lost(project: Project) -> None:
    """The store is cut short and its source is gone."""
    shutil.rmtree(store_cut(project))


def store_cut_and_source_changed(project: Project) -> None:
    """The store is cut short and its source is another model."""
    config = store_cut(project) / "config.json"
    raw = json.loads(config.read_text(encoding="utf-8"))
    config.write_text(json.dumps(raw | {"rms_norm_eps": 0.5}), encoding="utf-8")


def adapter(change: Callable[[dict[str, Any]], object]) -> Callable[[Project], None]:
    """Spoil the adapter's description."""

    def spoil(project: Project) -> None:
        path = project.root / "models" / "adapter" / "adapter_config.json"
        raw = json.loads(path.read_text(encoding="utf-8"))
        change(raw)
        path.write_text(json.dumps(raw), encoding="utf-8")

    return spoil


def adapter_cut(project: Project) -> None:
    """The adapter's tensors are cut short."""
    path = project.root / "models" / "adapter" / "adapter.safetensors"
    path.write_bytes(path.read_bytes()[:200])


def row_cut(project: Project) -> None:
    """A prepared row is cut short."""
    path = project.root / "data" / "prepared" / "train.jsonl"
    path.write_text(path.read_text(encoding="utf-8")[:-20], encoding="utf-8")


def _case(name: str, run: str, spoil: Callable[[Project], None], rule: str, got: str, do: str) -> BadInput:
    return BadInput(f"stage: {name}", run, spoil, rule, got, do)


def _both(name: str, spoil: Callable[[Project], None], rule: str, got: str, do: str) -> tuple[BadInput, BadInput]:
    """Found before the rows are read, and again when only the space has changed."""
    return (
        _case(f"{name}, before any row", "prepare", spoil, rule, got, do),
        _case(f"{name}, before any trial", "search", spoil, rule, got, do),
    )


STAGES = (
    *_both("rank above the hidden size", params(search__space__rank=[4, 64]), SPACE, "hidden size 32; got 64",
          "Correct search.space"),
    *_both("layer that does not exist", params(search__space__layers=["upper-third", "1,7"]), SPACE,
          "'1,7', which reaches 7", "Correct search.space"),
    _case("base.json cut short", "prepare", written("models/base.json", '{"format": 1,'), "must be JSON",
          "Expecting property name", "Run the stage that writes it again"),
    _case("base.json of another base", "prepare", written("models/base.json", "[]"), "must be a base record", "[]",
          "Run the base stage"),
    _case("base cut short, source gone", "train", store_and_source_lost, "the source must exist", "models/own/tiny",
          "Copy the model there"),
    _case("base cut short, source changed", "train", store_cut_and_source_changed,
          "the source must give the recorded base", "which differs in ['config.json']", "Restore the source"),
    _case("prepared row cut short", "search", row_cut, "must hold one JSON value a line", "line 64",
          "Run the stage that writes it again"),
    _case("device that is not there", "search", params(run__device="cuda:7"), "run.device must be on this machine",
          "cuda:7", "auto or cpu"),
    _case("best.yaml that is none", "train", written("search/best.yaml", "layers: all\n"),
          "best.yaml must hold the recipe", "'chosen'", "dvc repro -f -s search"),
    _case("adapter of another base", "evaluate", adapter(lambda raw: raw["base"].update(sha256="0" * 64)), ADAPTER,
          "0000", TRAIN),
    _case("adapter of another width", "evaluate", adapter(lambda raw: raw["base"].update(hidden_size=64)), ADAPTER,
          "width 64", TRAIN),
    _case("adapter of another rank", "evaluate", adapter(lambda raw: raw["reft"].update(rank=3)), ADAPTER, "must hold",
          TRAIN),
    _case("adapter cut short", "evaluate", adapter_cut, ADAPTER, "it differs in", TRAIN),
    _case("adapter's description cut short", "evaluate", written("models/adapter/adapter_config.json", '{"format"'),
          ADAPTER, "must be what save_adapter writes, or save_method", TRAIN),
    _case("metrics cut short", "register", written("metrics/evaluation.json", "{"), "must be JSON", "evaluation.json",
          "Run the stage that writes it again"),
)  # fmt: skip
