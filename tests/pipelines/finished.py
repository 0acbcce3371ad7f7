"""What a project folder holds when every stage before register has run: a tiny base, an adapter, and their files."""

from __future__ import annotations

from pathlib import Path

import yaml

from pipelines.bases.load import load_base
from pipelines.bases.store import obtain
from pipelines.contracts.base import BaseRecord, read_base, write_record
from pipelines.contracts.prepared import Row, data_sha256, write_rows
from pipelines.contracts.task import TaskSpec, write_task
from pipelines.files import write_json, write_jsonl
from pipelines.params.whole import Params, check_params
from reft import AdapterInfo, ReftConfig, ReftModel, adapter_sha256, save_adapter
from tests.tiny import write_tiny_base

PROJECT = Path(__file__).parents[2]
RECIPE = {"layers": "all", "positions": "l1", "rank": 2, "learning_rate": 0.001}
STUDY, TRAIN_KEY = "search-0123456789abcdef", "fedcba9876543210"


def make_params(model: str = "tiny", uri: str = "sqlite:///mlflow/mlflow.db", **prepare: object) -> Params:
    raw = yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
    raw["tracking"]["uri"], raw["register"]["model"] = uri, model
    raw["base"] |= {"source": "file:models/own/tiny", "sha256": None}
    raw["prepare"] |= prepare
    return check_params(raw, "params.yaml")


def make_base(root: Path) -> BaseRecord:
    """A tiny Llama with random weights, in the base store."""
    folder = root / "models" / "own" / "tiny"
    if not folder.exists():
        write_tiny_base(folder, layers=2)
    return obtain("file:models/own/tiny", None, "float32", root=root)


def finish_stages(root: Path, *, seed: int = 0, better: bool = True) -> dict[str, Path]:
    """Write the files; another seed is another adapter. Returns register's path arguments, without ``out``."""
    folder = root / f"stages-{seed}"
    paths = {
        "base": folder / "base.json",
        "prepared": folder / "prepared",
        "card": folder / "data.json",
        "search": folder / "search",
        "search_metrics": folder / "search.json",
        "adapter": folder / "adapter",
        "train_metrics": folder / "train.json",
        "train_plots": folder / "train",
        "evaluation": folder / "evaluation.json",
        "predictions": folder / "predictions.jsonl",
        "evaluate_plots": folder / "evaluate",
    }
    if not folder.exists():
        write_record(paths["base"], make_base(root))
        _write_prepared(paths["prepared"], paths["card"])
        _write_search(paths["search"], paths["search_metrics"])
        _write_adapter(paths, seed)
        (paths["evaluate_plots"]).mkdir()
        (paths["evaluate_plots"] / "confusion.csv").write_text("actual,predicted\npositive,positive\n")
        write_jsonl(paths["predictions"], [{"id": "a:1", "adapter": "positive"}])
    write_evaluation(paths, better=better)
    return paths


def write_evaluation(paths: dict[str, Path], *, better: bool, accuracy: float = 0.8) -> None:
    figures = {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 5}
    system = {"low": 0.6, "high": 0.9, "per_class": {"negative": figures, "positive": figures}}
    low = 0.1 if better else -0.1
    write_json(
        paths["evaluation"],
        {
            "adapter_sha256": adapter_sha256(paths["adapter"]),
            "rows": 10,
            "confidence": 0.95,
            "adapter": {"accuracy": accuracy, **system},
            "base": {"accuracy": 0.5, **system},
            "difference": {"value": 0.3, "low": low, "high": 0.5},
            "better": better,
        },
    )


def _write_prepared(prepared: Path, card: Path) -> None:
    prepared.mkdir(parents=True)
    row = Row(id="a:1", prompt="Review: good film\nSentiment:", completion=" positive", label="positive")
    for split in ("train", "validation", "test"):
        write_rows(prepared, split, [row])
    labels = {"negative": " negative", "positive": " positive"}
    write_task(prepared, TaskSpec("classification", "Review: {text}\nSentiment:", False, settings={"labels": labels}))
    write_json(card, {"splits": {"train": {"rows": 1}}})


def _write_search(search: Path, metrics: Path) -> None:
    search.mkdir()
    best = {"chosen": RECIPE, "study": STUDY, "trial": 0, "value": 0.9, "spread": None}
    (search / "best.yaml").write_text(yaml.safe_dump(best), encoding="utf-8")
    trial = {"params": RECIPE, "seconds": 1.5, "parameters": 66, "error": None}
    trials = [
        {**trial, "number": 0, "state": "complete", "value": 0.9, "intermediate": {"1": 0.7, "2": 0.9}},
        {**trial, "number": 1, "state": "pruned", "value": None, "intermediate": {"1": 0.5}},
        {**trial, "number": 2, "state": "fail", "value": None, "intermediate": {}, "error": "NaN"},
    ]
    write_json(search / "trials.json", trials)
    write_json(metrics, {"study": STUDY, "best_trial": 0, "best_value": 0.9})


def _write_adapter(paths: dict[str, Path], seed: int) -> None:
    loaded = load_base(read_base(paths["base"]))
    model = ReftModel(loaded.model, ReftConfig(layers=(0, 1), positions="l1", rank=2, init="paper"), seed=seed)
    prompt = {
        "template": "Review: {text}\nSentiment:",
        "chat": False,
        "labels": {"negative": " negative", "positive": " positive"},
    }
    info = AdapterInfo(loaded.record.sha256, loaded.record.source, data_sha256(paths["prepared"]), prompt, seed)
    sha256 = save_adapter(model, paths["adapter"], info)
    paths["train_plots"].mkdir()
    curve = "step,loss,learning_rate\n1,0.75,0.001\n2,0.5,0.0005\n"
    (paths["train_plots"] / "loss.csv").write_text(curve, encoding="utf-8")
    write_json(
        paths["train_metrics"],
        {
            "adapter_sha256": sha256,
            "trainable_parameters": model.num_trainable(),
            "adapter_bytes": 100,
            "steps": 2,
            "first_loss": 0.75,
            "last_loss": 0.5,
            "recipe": RECIPE,
            "study": STUDY,
            "trial": 0,
            "input_hash": f"{TRAIN_KEY}-{seed}",
        },
    )
