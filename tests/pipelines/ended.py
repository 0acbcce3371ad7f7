"""Studies that have ended, without a model: what a search leaves, with figures that follow from the recipe."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from pipelines.contracts.trials import TrialRecord
from pipelines.params.whole import Params
from pipelines.reports.search.verdict import Verdict
from pipelines.search.choice import Confirmed, Rule, candidates, choose, confirmed
from pipelines.search.proposals import random_point
from pipelines.search.worker import Found
from pipelines.tasks.measures import Proportion
from tests.searching import RAW, make_params

REPORTS, TRAINING_ROWS, ROWS = 4, 600, 200
# Around the best rate of `record`, whatever is shipped.
RATES = {"learning_rate": {"low": 5.0e-4, "high": 8.0e-3, "log": True}}
ENQUEUED = [
    {"layers": "all", "positions": "l4", "rank": 8, "learning_rate": 9.0e-4},
    {"layers": "upper-half", "positions": "l4", "rank": 8, "learning_rate": 2.0e-3},
]


def settings(others: Mapping[str, Any] | None = None, **search: Any) -> Params:
    """The default search, with other settings; four reports, and the best one is chosen."""
    default = {"search.space": RAW["search"]["space"] | RATES, "search.enqueue": ENQUEUED, "search.train_rows": 192}
    rows = {"prepare.train_rows": 2000, "search.reports": REPORTS, "search.choose": "best"}
    return make_params(
        {**default, **rows, **{f"search.{key}": value for key, value in search.items()}, **(others or {})}
    )


def record(number: int, params: dict[str, Any], **changes: Any) -> TrialRecord:
    """A complete trial: a learning rate near 0.004 and more layers are better, a higher rank costs more."""
    rate = math.log(params.get("learning_rate", 0.004) / 0.004)
    final = 0.9 - 0.03 * rate**2 - 0.02 * (params.get("layers") != "all") - 0.001 * (number * 7 % 5)
    value = round(final * ROWS) / ROWS
    rank = params.get("rank", 4)
    made = TrialRecord(
        number=number,
        state="complete",
        value=value,
        values=(value,),
        params=params,
        seed=42,
        intermediate={report: value - 0.03 * (REPORTS - report) for report in range(1, REPORTS + 1)},
        parameters=rank * 1153 * 10,
        seconds=20.0 + 2.0 * rank,
        fill_seconds=0.0,
        tokens=12_000 + number,
        memory_mb=900.0 + number,
        over=(),
        enqueued=None,
        error=None,
    )
    return replace(made, **changes)


def pruned(number: int, params: dict[str, Any], *, report: int = 2, **changes: Any) -> TrialRecord:
    """The same, stopped at a report."""
    whole = record(number, params)
    seen = {place: value for place, value in whole.intermediate.items() if place <= report}
    seconds = (whole.seconds or 0.0) * report / REPORTS
    return replace(whole, state="pruned", value=None, values=(), intermediate=seen, seconds=seconds, **changes)


def failed(number: int, params: dict[str, Any], error: str, **changes: Any) -> TrialRecord:
    """The same, failed before its first report."""
    stopped = {"state": "fail", "value": None, "values": (), "intermediate": {}, "seconds": 3.0, "error": error}
    return replace(record(number, params), **stopped, **changes)


def trials(params: Params, count: int) -> list[TrialRecord]:
    """Trials of random recipes, after those that are tried first; each third one is pruned."""
    rng = np.random.default_rng(0)
    first = [{str(part): value for part, value in point.items()} for point in params.recipe_space().first]
    points = [*first, *(random_point(params.recipe_space().space, rng) for _ in range(count - len(first)))]
    return [
        pruned(number, point) if number % 3 == 2 else record(number, point, enqueued=number if point in first else None)
        for number, point in enumerate(points)
    ]


def runs(records: Iterable[TrialRecord], rule: Rule) -> list[Confirmed]:
    """Each candidate with two other seeds."""
    found = []
    for one in candidates(list(records), rule):
        values = {42: one.value, 43: (one.value or 0.0) - 0.01, 44: (one.value or 0.0) + 0.005 * (one.number % 2)}
        found.append(confirmed(one.number, values, seconds=2 * (one.seconds or 0.0)))
    return found


def end(params: Params, records: list[TrialRecord], *, base_value: float | None = 0.71) -> Verdict:
    """The study of these trials, with what is chosen of it."""
    rule = Rule(params.search, Proportion("accuracy"), TRAINING_ROWS, ROWS, 0.95)
    confirmations = runs(records, rule)
    recipes = params.recipe_space()
    space, named = recipes.space, len(recipes.first)
    found = Found(
        "search-0123456789abcdef", "0123456789abcdef", space, named, records, confirmations, rule, base_value,
        base_value,
    )  # fmt: skip
    return Verdict(found, choose(records, confirmations, rule))
