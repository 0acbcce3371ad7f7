"""Evaluations of each kind of task with answers that are made up: what pages are drawn from, without a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pipelines.contracts.base import BaseRecord
from pipelines.contracts.diagnostics import Calibration, CommonAnswer, Diagnostics, Forgetting, ReliabilityBin
from pipelines.contracts.evaluation import Evaluation
from pipelines.contracts.interval import Interval
from pipelines.contracts.predictions import Prediction
from pipelines.contracts.prepared import Row
from pipelines.contracts.task import TaskSpec
from pipelines.contracts.training import TrainResult
from pipelines.diagnostics.slices import Answered, slices
from pipelines.params.whole import EvaluateParams
from pipelines.reports.evaluation_page import PageFacts
from pipelines.reports.model_card import CardFacts, training_facts
from pipelines.stages.evaluate import by_task, compare, predictions_of
from pipelines.tasks.family import Answer, TaskFamily, open_family
from reft import AdapterInfo, ReftConfig

SETTINGS = EvaluateParams(batch_size=8, confidence=0.95, bootstrap=200, neutral="default", slices=["label"])
HOSTILE = (
    "<script>alert('it ran')</script><img src=http://evil.example/x onerror=alert(1)> & \"quoted\" \x00\x1b[31m | `x`"
)
TEXTS = {"max_new_tokens": 4, "reader": {"name": "exact"}, "measure": "exact_match", "conversation": False}
OPTIONS = {"split": None, "option_columns": ["options"], "options": None, "score": "sum", "train_on": "answer"}
LABELS = {"labels": {"negative": " negative", "positive": " positive"}}
KINDS = ("classification", "choice", "generation", "mixture")
ROWS = 60


def spec(kind: str) -> TaskSpec:
    settings = {"classification": LABELS, "choice": OPTIONS, "generation": TEXTS}
    if kind != "mixture":
        return TaskSpec(kind, "{text}", False, settings=settings[kind])
    parts = {f"a {name}": {"task": name, **spec(name).prompt(reads_domain=False)} for name in settings}
    return TaskSpec("mixture", "{text}", False, settings={"tasks": parts})


def row(kind: str, place: int) -> Row:
    """Every third prompt is hostile; of labels and options the second is right in odd places."""
    prompt, right = f"Film {place}: {HOSTILE if place % 3 == 0 else 'good'}", place % 2
    if kind == "classification":
        label = list(LABELS["labels"])[right]
        return Row(f"f:{place}", prompt, f" {label}", label)
    if kind == "choice":
        choices = (" the first", f" {HOSTILE}")
        return Row(f"f:{place}", prompt, choices[right], "AB"[right], choices=choices, choice_tokens=(2, 2))
    return Row(f"f:{place}", prompt, " yes", references=("yes", HOSTILE))


def answer(kind: str, place: int, *, right: bool) -> Answer:
    if kind == "generation":
        return "yes" if right else HOSTILE
    chosen = place % 2 if right else 1 - place % 2
    return np.log([0.2, 0.8] if chosen else [0.8, 0.2])


def answered(kind: str) -> tuple[TaskFamily[Any], Answered]:
    """The adapter is wrong in every tenth row, the base in every second of another order, so both win some."""
    task = open_family(spec(kind))
    kinds = [
        ("classification", "choice", "generation")[place % 3] if kind == "mixture" else kind for place in range(ROWS)
    ]
    own = [replace(row(each, place), task=f"a {each}" if kind == "mixture" else "") for place, each in enumerate(kinds)]

    def said(wrong: Sequence[int]) -> list[Answer]:
        return [answer(each, place, right=place not in wrong) for place, each in enumerate(kinds)]

    adapter, base = said(range(0, ROWS, 10)), said([place for place in range(ROWS) if place * 7 % 10 >= 5])
    read = [(task.read(each, two[0]), task.read(each, two[1])) for each, *two in zip(own, adapter, base, strict=True)]
    return task, Answered(own, adapter, base, read)


def evaluated(kind: str) -> tuple[Evaluation, list[Prediction]]:
    """What the stage's own functions say of them; the diagnostics are made up, but for the slices."""
    task, found = answered(kind)
    sides = found.rows, found.adapter, found.base
    evaluation = compare(task, *sides, SETTINGS, seed=0, adapter_sha256="a" * 64)
    if task.parts():
        evaluation = replace(evaluation, tasks=by_task(task, *sides, SETTINGS, seed=0))
    parts = {"topic": [("drama", "comedy", "<b>horror</b>")[place % 3] for place in range(ROWS)]}
    sliced = slices(task, found, parts, SETTINGS, seed=0)
    bins = [ReliabilityBin(0.7, 0.8, ROWS, 0.75, 0.9)]
    looked_at = Diagnostics(
        Forgetting("default", 24, 768, 20.5, 41.0, Interval(1.0, 0.8, 1.2)),
        {system: CommonAnswer(HOSTILE, 0.5) for system in ("adapter", "base")},
        {} if kind == "generation" else {system: Calibration(0.15, bins) for system in ("adapter", "base")}, 1, sliced,
    )  # fmt: skip
    return replace(evaluation, diagnostics=looked_at), predictions_of(task, found)


def page_facts(kind: str, **card: Any) -> PageFacts:
    evaluation, predictions = evaluated(kind)
    base = BaseRecord("file:models/own/tiny", None, "float32", "b" * 64, {}, "llama", 32, 2, 400, 40_000)
    trained = TrainResult(
        "a" * 64, 520, 2800, 30, 0.75, 0.25, {"rank": 4, "epochs": 2}, {"rank": 4}, "search-1", 3, "k"
    )
    config = ReftConfig(layers=(0, 1), positions="l1", rank=4, init="paper")
    info = AdapterInfo("b" * 64, base.source, "d" * 64, spec(kind).prompt(reads_domain=False), 42)
    facts = CardFacts(
        name=f"reviews & {HOSTILE}", config=config, trained=520, info=info, adapter_sha256="a" * 64, adapter_bytes=2800,
        base=base, evaluation=evaluation, training=training_facts(trained), data_source="file:data/own/films.csv",
    )  # fmt: skip
    return PageFacts(replace(facts, **card), predictions, 42, {"study": "search-1", "git.commit": "c" * 40})
