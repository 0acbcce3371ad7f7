"""What a project folder holds when every stage before register has run: a tiny base, an adapter, and their files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import yaml

from pipelines.bases.load import load_base
from pipelines.bases.store import obtain
from pipelines.contracts.base import BaseRecord, read_base, write_record
from pipelines.contracts.beside import write_near
from pipelines.contracts.best import Best, write_best
from pipelines.contracts.card import DataCard, SplitCard, write_card
from pipelines.contracts.confirmed import write_confirmed
from pipelines.contracts.evaluation import Evaluation, SystemFigures, write_evaluation
from pipelines.contracts.identities import write_identities
from pipelines.contracts.interval import Interval
from pipelines.contracts.predictions import Prediction, Said, write_predictions
from pipelines.contracts.prepared import SPLITS, Row, data_sha256, write_rows
from pipelines.contracts.search import SearchResult, write_search
from pipelines.contracts.task import TaskSpec, write_task
from pipelines.contracts.training import TrainResult, write_training
from pipelines.contracts.trials import TrialRecord, write_trials
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
        "predictions": folder / "predictions.parquet",
        "evaluate_plots": folder / "evaluate",
        "evaluation_page": folder / "evaluation.html",
        "model_card": folder / "model_card.md",
    }
    if not folder.exists():
        write_record(paths["base"], make_base(root))
        _write_prepared(paths["prepared"], paths["card"])
        _write_search(paths["search"], paths["search_metrics"])
        _write_adapter(paths, seed)
        (paths["evaluate_plots"]).mkdir()
        (paths["evaluate_plots"] / "confusion.csv").write_text("actual,predicted\npositive,positive\n")
        for name in ("evaluation_page", "model_card"):
            paths[name].write_text(f"the {name} of seed {seed}", encoding="utf-8")
        write_predictions(paths["predictions"], [Prediction("a:1", "p", Said("positive"), Said("negative"))])
    write_figures(paths, better=better)
    return paths


def write_figures(paths: dict[str, Path], *, better: bool, accuracy: float = 0.8) -> None:
    """Write evaluation.json."""
    figures = {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 5}
    per_class = {"negative": figures, "positive": figures}
    found = Evaluation(
        adapter_sha256=adapter_sha256(paths["adapter"]),
        measure="accuracy",
        rows=10,
        groups=10,
        confidence=0.95,
        adapter=SystemFigures(accuracy, 0.6, 0.9, per_class, {"macro_f1": 0.5}),
        base=SystemFigures(0.5, 0.6, 0.9, per_class, {"macro_f1": 0.5}),
        difference=Interval(0.3, 0.1 if better else -0.1, 0.5),
        p_value=0.01,
        detectable=0.2,
        least_rows=10,
        baselines={"majority": 0.5},
        over_majority=None,
        better=better,
    )
    write_evaluation(paths["evaluation"], found)


def _write_prepared(prepared: Path, card: Path) -> None:
    prepared.mkdir(parents=True)
    row = Row(
        id="a:1", prompt="Review: good film\nSentiment:", completion=" positive", label="positive", key="good film"
    )
    for split in SPLITS:
        write_rows(prepared, split, [row])
    write_identities(prepared, {split: [row] for split in SPLITS})
    write_near(prepared, [])
    labels = {"negative": " negative", "positive": " positive"}
    write_task(prepared, TaskSpec("classification", "Review: {text}\nSentiment:", False, settings={"labels": labels}))
    splits = {split: SplitCard(1, {"negative": 0, "positive": 1}, {"p50": 9.0, "max": 9}) for split in SPLITS}
    write_card(card, DataCard("file:a", None, data_sha256(prepared), 3, {}, 0, {"rows": 0}, 0, splits))


def _write_search(search: Path, metrics: Path) -> None:
    search.mkdir()
    write_best(search / "best.yaml", Best(RECIPE, STUDY, 0, "tried first", 0.9, None))
    whole = TrialRecord(
        number=0, state="complete", value=0.9, values=(0.9,), params=RECIPE, seed=42, intermediate={1: 0.7, 2: 0.9},
        parameters=66, seconds=1.5, fill_seconds=0.0, tokens=None, memory_mb=None, over=(), enqueued=0, error=None,
    )  # fmt: skip
    ended = {"value": None, "values": (), "enqueued": None}
    trials = [
        whole,
        replace(whole, number=1, state="pruned", intermediate={1: 0.5}, **ended),
        replace(whole, number=2, state="fail", intermediate={}, error="NaN", **ended),
    ]
    write_trials(search / "trials.json", trials)
    write_confirmed(search / "confirmed.json", [])
    figures = SearchResult(
        measure="accuracy", study=STUDY, input_hash=STUDY.rpartition("-")[2], complete=1, pruned=1, failed=1,
        best_trial=0, best_origin="tried first", best_value=0.9, best_spread=None, first_value=0.9, base_value=0.5,
        seconds=4.5, fill_seconds=0.0, confirm_seconds=0.0, saved_seconds=0.0,
    )  # fmt: skip
    write_search(metrics, figures)


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
    figures = TrainResult(
        adapter_sha256=sha256, trainable_parameters=model.num_trainable(), adapter_bytes=100, steps=2, first_loss=0.75,
        last_loss=0.5, recipe=RECIPE, chosen=RECIPE, study=STUDY, trial=0, input_hash=f"{TRAIN_KEY}-{seed}",
    )  # fmt: skip
    write_training(paths["train_metrics"], figures)
