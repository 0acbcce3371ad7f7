"""From the files that the stages left to complete runs in MLflow: one pipeline run over a search and a train run.

What a stage logged live is found and completed; what it did not log, since the store was down or DVC restored its
outputs, is made here. So a second time changes nothing.
"""

from __future__ import annotations

import csv
import hashlib
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.files import canonical_json
from pipelines.params.whole import Params
from pipelines.registry.facts import Facts
from pipelines.registry.titles import pipeline_title, search_title, train_title, trial_title
from pipelines.tracking.runs import (
    INPUT_HASH,
    PARENT,
    STAGE,
    Run,
    Status,
    Store,
    child_tags,
    ensure_run,
)

log = logging.getLogger(__name__)
LONGEST_LABEL = 150  # characters of a label in a metric's name, which has at most 250

PIPELINE = "reft.pipeline"
COSTS = ("parameters", "seconds", "tokens", "memory_mb")  # of a trial
TRIAL_STATUS: dict[str, Status] = {"complete": "FINISHED", "pruned": "KILLED", "fail": "FAILED"}


def complete_runs(store: Store, params: Params, facts: Facts, *, project: str) -> Run:
    """Make sure that the pipeline run of this adapter, its search run and its train run are there and complete.

    A run that is made here stands for work that is over, and has its time: the pipeline's that of search and training.
    """
    search = _complete_search(store, params, facts)
    search.describe(*search_title(project, facts))
    train = _complete_train(store, params, facts)
    train.describe(*train_title(project, facts))
    name, description = pipeline_title(project, facts)
    seconds = search.seconds() + train.seconds()
    pipeline = ensure_run(store, name, {PIPELINE: facts.adapter_sha256}, seconds=seconds)
    pipeline.describe(name, description)
    for child in (search, train):
        child.set_tags({PARENT: pipeline.id})
    _complete_pipeline(pipeline, params, facts)
    pipeline.set_tags({"reft.search_run": search.id, "reft.train_run": train.id})
    pipeline.end("FINISHED")
    return pipeline


def _complete_pipeline(run: Run, params: Params, facts: Facts) -> None:
    files = facts.files
    run.set_tags({STAGE: "pipeline", "base.source": facts.base.source, "data.source": facts.data_source})
    run.log_params({**params.logged(facts.train["recipe"]), "seed": params.seed})
    run.add_missing([(key, 0, value) for key, value in evaluation_metrics(facts.evaluation).items()])
    _log_data(run, facts)
    run.log_files("base", [files.base])
    run.log_files("data", [files.card])
    run.log_files("evaluation", [files.evaluation, files.predictions, files.evaluate_plots])


def _complete_search(store: Store, params: Params, facts: Facts) -> Run:
    study = str(facts.best["study"])
    key = facts.search.get("input_hash", study.rpartition("-")[2])  # the name of a study ends in its input hash
    seconds = sum(float(facts.search.get(name) or 0) for name in ("seconds", "confirm_seconds"))
    run = ensure_run(store, study, {STAGE: "search", INPUT_HASH: key}, seconds=seconds)
    run.log_params({"trials": params.search.trials, "train_rows": params.search.train_rows})
    run.set_tags({"reft.study": study, "reft.best_trial": facts.best["trial"]})
    run.add_missing([("best_value", 0, float(facts.best["value"]))])
    _log_data(run, facts)
    for trial in facts.trials:
        if trial["state"].lower() in TRIAL_STATUS:
            _complete_trial(run, trial)
    run.log_files("search", [facts.files.search])
    run.end("FINISHED")
    return run


def _complete_trial(search: Run, trial: Mapping[str, Any]) -> None:
    name, state = f"trial-{trial['number']}", trial["state"].lower()
    run = ensure_run(search.store, name, child_tags(search, name), seconds=float(trial.get("seconds") or 0))
    run.describe(*trial_title(name, trial))
    run.log_params(trial["params"])
    run.set_tags({"reft.state": state, **({"reft.error": trial["error"]} if trial["error"] else {})})
    points = [("reported_value", int(step), float(value)) for step, value in trial["intermediate"].items()]
    points += [(key, 0, float(trial[key])) for key in ("value", *COSTS) if trial.get(key) is not None]
    run.add_missing(points)
    run.end(TRIAL_STATUS[state], seconds=trial.get("seconds"))


def _complete_train(store: Store, params: Params, facts: Facts) -> Run:
    key = facts.train.get("input_hash", facts.adapter_sha256)
    run = ensure_run(store, "train", {STAGE: "train", INPUT_HASH: key})
    run.log_params({**params.logged(facts.train["recipe"]), "seed": params.seed})
    run.set_tags({"reft.adapter_sha256": facts.adapter_sha256, "reft.study": facts.train["study"]})
    figures = ("trainable_parameters", "adapter_bytes", "first_loss", "last_loss")
    curve = read_curve(facts.files.train_plots / "loss.csv")
    run.add_missing([*curve, *((key, 0, float(facts.train[key])) for key in figures)])
    _log_data(run, facts)
    run.log_files("train", [facts.files.train_metrics, facts.files.train_plots])
    run.end("FINISHED")
    return run


def _log_data(run: Run, facts: Facts) -> None:
    run.log_dataset(
        name="prepared", sha256=facts.data_sha256, source=facts.data_source, profile=canonical_json(facts.card)
    )


def read_curve(path: Path) -> list[tuple[str, int, float]]:
    """The (key, step, value) points of a CSV file with a column "step"."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [(key, int(row["step"]), float(row[key])) for row in rows for key in row if key != "step"]


def evaluation_metrics(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """evaluation.json as flat names: ``adapter.accuracy``, ``difference.low``, ``base.negative.f1`` and so on."""
    flat = {f"difference.{key}": float(value) for key, value in evaluation["difference"].items()}
    found = {f"difference.{key}": evaluation.get(key) for key in ("p_value", "detectable")}
    flat |= {key: float(value) for key, value in found.items() if value is not None}
    flat |= {f"baseline.{key}": float(value) for key, value in evaluation.get("baselines", {}).items()}
    over = evaluation.get("over_majority")
    if over is not None:
        lead = {**over["difference"], "p_value": over["p_value"]}
        flat |= {f"over_majority.{key}": float(value) for key, value in lead.items()}
    for system in ("adapter", "base"):
        figures = evaluation[system]
        flat |= {f"{system}.{key}": float(figures[key]) for key in ("accuracy", "low", "high")}
        flat |= {f"{system}.{key}": float(value) for key, value in figures.get("summary", {}).items()}
        for label, per_class in figures["per_class"].items():
            flat |= {f"{system}.{metric_label(label)}.{key}": float(value) for key, value in per_class.items()}
    return flat


def metric_label(label: str) -> str:
    """Return a label, which may be any text, as a part of a metric's name in MLflow, where c++ and c# stay two.

    Other signs than MLflow takes become their hex code between colons, and a long label ends in a hash of the whole.
    """
    name = "".join(sign if re.fullmatch(r"[\w. -]", sign) else f":{ord(sign):x}:" for sign in label)
    if len(name) <= LONGEST_LABEL:
        return name
    return f"{name[:LONGEST_LABEL]}:{hashlib.sha256(label.encode()).hexdigest()[:16]}"
