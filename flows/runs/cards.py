"""Figures as Markdown: what the flow puts on the run's page in Prefect."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flows.runs.outcome import StageRun, outcome_line
from pipelines.contracts.card import DataCard, Overlap
from pipelines.contracts.evaluation import Evaluation
from pipelines.contracts.registration import Registration
from pipelines.contracts.search import SearchResult
from pipelines.contracts.trials import TrialRecord
from pipelines.markdown import code, table, text
from pipelines.reports.evaluation import rows_words
from pipelines.wording import (
    duration,
    many,
    measure_words,
    points,
    recipe_words,
    share,
)

Figures = Mapping[str, Mapping[str, float]]


def run_summary(runs: Sequence[StageRun], evaluation: Evaluation, registration: Registration) -> str:
    """What a run did, stage by stage, and where that leaves the adapter."""
    lines = ["# Run", "", f"{outcome_line(runs)}.", ""]
    lines += _table(["stage", "outcome", "seconds"], [[run.stage, run.outcome, f"{run.seconds:.1f}"] for run in runs])
    version = f"{text(registration.model)} version {registration.version}"
    measure = text(measure_words(evaluation.measure))
    base, adapter = share(evaluation.base.value), share(evaluation.adapter.value)
    lines += ["", f"{version}: {measure} {adapter} on {rows_words(evaluation)}, frozen base {base}."]
    return "\n".join(lines)


def data_card(card: DataCard) -> str:
    """The data card: rows by split and label, lengths, what was rejected."""
    splits, first = card.splits, next(iter(card.splits.values()))
    labels, lengths = list(first.labels), list(first.tokens)
    lines = ["# Data card", "", f"Source: {code(card.source)}", ""]
    lines += [f"Content sha256: {code(card.content_sha256)}", ""]
    lines += _table(
        ["split", "rows", *labels, *(f"tokens {name}" for name in lengths)],
        [
            [name, split.rows, *(split.labels.get(x, 0) for x in labels), *(split.tokens[x] for x in lengths)]
            for name, split in splits.items()
        ],
    )
    lines += [
        "",
        f"Read {card.read} rows; {sum(card.rejected.values())} were rejected "
        "(rejected.jsonl beside the splits names each), ",
    ]
    lines += [f"{card.unused} are good and were not needed.", ""]
    lines += _table(["reason", "rows"], [[reason, count] for reason, count in card.rejected.items()])
    if card.tasks:
        drawn = [
            [name, *(task.rows[split] for split in splits), task.read, task.rejected, task.unused]
            for name, task in card.tasks.items()
        ]
        lines += ["", *_table(["task", *splits, "read", "rejected", "not needed"], drawn)]
    if (overlap := card.overlap) is not None:
        lines += ["", f"Overlap of splits: {_overlap_words(overlap)}."]
    return "\n".join(lines)


def _overlap_words(overlap: Overlap) -> str:
    return (
        f"{many(overlap.left_out, 'row')} stood in the sources of two splits and are in one alone; nearly a training "
        f"row are {many(overlap.test_near_train, 'test row')} and {many(overlap.validation_near_train, 'row')} of "
        f"validation, nearly one of validation {many(overlap.test_near_validation, 'test row')} (near.jsonl beside "
        "the splits names them)"
    )


def search_card(figures: SearchResult, trials: Sequence[TrialRecord], *, page: Path) -> str:
    """Which recipe won the search, against what, what that cost, and where the page with the rest is."""
    winner = next(trial for trial in trials if trial.number == figures.best_trial)
    spread = "" if figures.best_spread is None else f" ± {points(figures.best_spread, sign=False)} over its runs"
    rows = [[f"trial {winner.number}, which won", f"{share(figures.best_value)}{spread}", ""]]
    for name, value in (
        ("the recipe that was tried first", figures.first_value), ("the frozen base", figures.base_value)
    ):  # fmt: skip
        if value is not None:
            rows.append([name, share(value), points(figures.best_value - value)])
    spent = duration(figures.seconds + figures.confirm_seconds)
    saved = f"; pruning saved about {duration(figures.saved_seconds)}" if figures.saved_seconds else ""
    ends = ", ".join(f"{getattr(figures, state)} {state}" for state in ("complete", "pruned", "failed"))
    lines = [f"# Search: trial {winner.number} won", "", f"{text(recipe_words(winner.params))}.", ""]
    lines += _table(["", f"{measure_words(figures.measure)} on the same rows", "the winner's lead"], rows)
    lines += ["", f"{many(len(trials), 'trial')} ({ends}) in {spent} of training and scoring{saved}. "]
    lines += [f"The winner's recipe was {text(figures.best_origin)}.", ""]
    lines += [page_link(page)]
    return "\n".join(lines)


def page_link(page: Path) -> str:
    """Where a page with the rest is."""
    return f"The whole report, for a browser: [{text(page.name)}]({page.resolve().as_uri()}) ({code(page)})."


def pages(store: str) -> str:
    """How to see the pages of a store: those of a server are at its address."""
    return store if store.startswith("http") else f"mlflow ui --backend-store-uri {shlex.quote(store)}"


def version_card(registration: Registration, *, store: str) -> str:
    """The version in the registry, and how to use it; ``store`` is the registry's address."""
    alias = f"alias {code(registration.alias)}" if registration.alias else "no alias"
    name, version = registration.model, registration.version
    load = f'mlflow.pyfunc.load_model("models:/{name}/{version}")'
    return "\n".join(
        [
            f"# {text(name)} version {version} ({alias})",
            "",
            f"- registry: {code(store)}",
            f"- adapter sha256: {code(registration.adapter_sha256)}",
            f"- load: {code(load)}",
            f"- pages: {code(pages(store))}",
        ]
    )


def _table(header: list[str], rows: list[list[Any]]) -> list[str]:
    return table([text(name) for name in header], [[text(cell) for cell in row] for row in rows])
