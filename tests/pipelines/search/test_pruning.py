"""Which trials a pruner stops: each of those that params.yaml can name, in a real study."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from pipelines.errors import PipelineError
from pipelines.search.pruning import SCORES, make_pruner
from tests.searching import make_params

REPORTS = 4
PRUNERS: list[dict[str, Any]] = [
    {"name": "median", "startup_trials": 2, "warmup_reports": 0},
    {"name": "successive_halving", "min_reports": 1, "reduction": 3},
    {"name": "hyperband", "min_reports": 1, "reduction": 2},
    {"name": "wilcoxon", "p": 0.1, "warmup_reports": 0},
]
ROWS = 40


def carried_out(pruner: dict[str, Any], trials: int = 15) -> list[tuple[bool, int | None]]:
    """Of each trial whether it is a good one, as every third is, and the report that it was stopped at."""
    settings = make_params({"search.pruner": pruner, "search.reports": REPORTS}).search
    study = optuna.create_study(study_name="pruning", direction="maximize", pruner=make_pruner(settings))
    found: list[tuple[bool, int | None]] = []
    for number in range(trials):
        trial, good = study.ask(), number % 3 == 0
        accuracy = 0.9 if good else 0.5 - 0.01 * number
        stopped = None
        for report in range(1, REPORTS + 1):
            trial.report(accuracy, step=report)
            # Every row is scored near the accuracy, some a little above it and some below.
            trial.set_user_attr(f"{SCORES}:{report}", [accuracy + 0.05 * (row % 3 - 1) for row in range(ROWS)])
            if report < REPORTS and trial.should_prune():
                stopped = report
                break
        if stopped is None:
            study.tell(trial, accuracy)
        else:
            study.tell(trial, state=TrialState.PRUNED)
        found.append((good, stopped))
    return found


@pytest.mark.parametrize("pruner", PRUNERS, ids=lambda pruner: pruner["name"])
def test_a_pruner_stops_bad_trials_and_no_good_one(pruner: dict[str, Any]) -> None:
    found = carried_out(pruner)
    assert [stopped for good, stopped in found if good] == [None] * 5
    stopped_bad = [stopped for good, stopped in found if not good and stopped is not None]
    assert len(stopped_bad) >= 3  # hyperband has brackets that begin late, the others stop nearly all
    if pruner["name"] != "hyperband":
        assert len(stopped_bad) >= 7
        assert set(stopped_bad) == {1}


def test_no_trial_is_measured_by_one_that_is_over_a_limit() -> None:
    study = optuna.create_study(
        direction="maximize", pruner=make_pruner(make_params({"search.pruner": PRUNERS[3]}).search)
    )
    for excess, stops in ((0.5, False), (-0.5, True)):
        rival = study.ask()
        rival.set_user_attr(f"{SCORES}:1", [0.9] * ROWS)
        rival.set_constraint("seconds", excess)
        study.tell(rival, 0.9)
        trial = study.ask()
        trial.report(0.5, step=1)
        trial.set_user_attr(f"{SCORES}:1", [0.5] * ROWS)
        assert trial.should_prune() is stops


def test_without_a_pruner_every_trial_runs_to_its_end() -> None:
    assert [stopped for _, stopped in carried_out({"name": "none"}, trials=6)] == [None] * 6


def test_warm_up_reports_are_not_looked_at() -> None:
    for pruner in (PRUNERS[0], PRUNERS[3]):
        assert {stopped for _, stopped in carried_out({**pruner, "warmup_reports": 2})} == {None, 3}


@pytest.mark.parametrize(
    ("pruner", "reports", "key"),
    [
        ({"name": "median", "startup_trials": 2, "warmup_reports": 0}, 1, "warmup_reports"),
        ({"name": "wilcoxon", "p": 0.1, "warmup_reports": 3}, 4, "warmup_reports"),
        ({"name": "successive_halving", "min_reports": 2, "reduction": 3}, 2, "min_reports"),
        ({"name": "hyperband", "min_reports": 4, "reduction": 3}, 4, "min_reports"),
    ],
)
def test_a_pruner_that_could_never_stop_anything_is_refused(pruner: dict[str, Any], reports: int, key: str) -> None:
    with pytest.raises(PipelineError, match=f"got {reports} reports; raise search.reports, lower pruner.{key}"):
        make_params({"search.pruner": pruner, "search.reports": reports})
