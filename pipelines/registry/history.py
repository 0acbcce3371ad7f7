"""From the files that the stages left to complete runs in MLflow: one pipeline run over a search and a train run.

What a stage logged live is found and completed; what it did not log, since the store was down or DVC restored its
outputs, is made here. So a second time changes nothing.
"""

from __future__ import annotations

import csv
import hashlib
import logging
import re
import tempfile
from dataclasses import asdict
from pathlib import Path

from pipelines.contracts.evaluation import Evaluation
from pipelines.contracts.identities import read_identities, seen_of, write_seen
from pipelines.contracts.trials import TrialRecord
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
SEEN = "seen.json"  # in the folder data of the artifacts of a pipeline run
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
    run.log_params({**params.logged(facts.train.recipe), "seed": params.seed})
    run.add_missing([(key, 0, value) for key, value in evaluation_metrics(facts.evaluation).items()])
    _log_data(run, facts)
    run.log_files("base", [files.base])
    run.log_files("data", [files.card])
    _log_seen(run, files.prepared)
    shown = [files.evaluation_page, files.model_card]
    run.log_files("evaluation", [files.evaluation, files.predictions, files.evaluate_plots, *shown])


def _log_seen(run: Run, prepared: Path) -> None:
    """Keep which rows the adapter was made with, so that it is never compared on them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / SEEN
        write_seen(path, seen_of(read_identities(prepared)))
        run.log_files("data", [path])


def _complete_search(store: Store, params: Params, facts: Facts) -> Run:
    study = facts.best.study
    seconds = facts.search.seconds + facts.search.confirm_seconds
    run = ensure_run(store, study, {STAGE: "search", INPUT_HASH: facts.search.input_hash}, seconds=seconds)
    run.log_params({"trials": params.search.trials, "train_rows": params.search.train_rows})
    run.set_tags({"reft.study": study, "reft.best_trial": facts.best.trial})
    run.add_missing([("best_value", 0, facts.search.best_value)])
    if not run.has_dataset():  # the rows of today may be others, where a recipe is kept for rows that came later
        _log_data(run, facts)
    for trial in facts.trials:
        if trial.state in TRIAL_STATUS:
            _complete_trial(run, trial)
    run.log_files("search", [facts.files.search])
    run.end("FINISHED")
    return run


def _complete_trial(search: Run, trial: TrialRecord) -> None:
    name = f"trial-{trial.number}"
    run = ensure_run(search.store, name, child_tags(search, name), seconds=trial.seconds or 0.0)
    run.describe(*trial_title(name, trial))
    run.log_params(trial.params)
    run.set_tags({"reft.state": trial.state, **({"reft.error": trial.error} if trial.error else {})})
    points = [("reported_value", report, value) for report, value in trial.intermediate.items()]
    points += [(key, 0, float(cost)) for key in ("value", *COSTS) if (cost := getattr(trial, key)) is not None]
    run.add_missing(points)
    run.end(TRIAL_STATUS[trial.state], seconds=trial.seconds)


def _complete_train(store: Store, params: Params, facts: Facts) -> Run:
    run = ensure_run(store, "train", {STAGE: "train", INPUT_HASH: facts.train.input_hash})
    run.log_params({**params.logged(facts.train.recipe), "seed": params.seed})
    run.set_tags({"reft.adapter_sha256": facts.adapter_sha256, "reft.study": facts.train.study})
    figures = ("trainable_parameters", "adapter_bytes", "first_loss", "last_loss")
    curve = read_curve(facts.files.train_plots / "loss.csv")
    run.add_missing([*curve, *((key, 0, float(getattr(facts.train, key))) for key in figures)])
    _log_data(run, facts)
    run.log_files("train", [facts.files.train_metrics, facts.files.train_plots])
    run.end("FINISHED")
    return run


def _log_data(run: Run, facts: Facts) -> None:
    run.log_dataset(
        name="prepared", sha256=facts.data_sha256, source=facts.data_source, profile=canonical_json(asdict(facts.card))
    )


def read_curve(path: Path) -> list[tuple[str, int, float]]:
    """The (key, step, value) points of a CSV file with a column "step"."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [(key, int(row["step"]), float(row[key])) for row in rows for key in row if key != "step"]


def evaluation_metrics(evaluation: Evaluation) -> dict[str, float]:
    """evaluation.json as flat names that MLflow takes: ``adapter.accuracy``, ``base.negative.f1`` and so on."""
    return evaluation.flat(metric_label)


def metric_label(label: str) -> str:
    """Return a label, which may be any text, as a part of a metric's name in MLflow, where c++ and c# stay two.

    Other signs than MLflow takes become their hex code between colons, and a long label ends in a hash of the whole.
    """
    name = "".join(sign if re.fullmatch(r"[\w. -]", sign) else f":{ord(sign):x}:" for sign in label)
    if len(name) <= LONGEST_LABEL:
        return name
    return f"{name[:LONGEST_LABEL]}:{hashlib.sha256(label.encode()).hexdigest()[:16]}"
