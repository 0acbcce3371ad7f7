"""The study: killed trials run again, none is lost or counted twice, and a resumed search is the uninterrupted one."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from optuna.trial import TrialState

from pipelines.errors import PipelineError
from pipelines.params import Params, check_params
from pipelines.search import suggest
from pipelines.study import (
    OWNER,
    best_trial,
    close_killed_trials,
    counted,
    make_sampler,
    open_study,
    this_process,
    trial_records,
    write_trials_csv,
)

ROOT = Path(__file__).parent.parent.parent
RAW = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))


def params(**search: Any) -> Params:
    raw = copy.deepcopy(RAW)
    raw["search"] |= search
    return check_params(raw, "params.yaml")


def ask(study: optuna.Study, owner: str) -> optuna.Trial:
    trial = study.ask()
    trial.set_user_attr(OWNER, owner)
    suggest(trial, params().search.space)
    trial.set_user_attr("parameters", 10)
    return trial


def dead_process() -> str:
    child = subprocess.run(
        [sys.executable, "-c", "from pipelines.study import this_process; print(this_process())"],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    return child.stdout.strip()


def test_a_killed_trial_is_closed_and_its_recipe_runs_again_once(tmp_path: Path) -> None:
    study = open_study(params(), tmp_path, name="s")
    killed = ask(study, dead_process())
    for _ in range(3):  # as often as the search is started
        close_killed_trials(study, alone=True)
    assert counted(study) == 0
    waiting = study.get_trials(states=(TrialState.WAITING,))
    assert len(waiting) == 1
    again = ask(study, this_process())
    assert again.params == killed.params
    study.tell(again, 0.5)
    close_killed_trials(study, alone=True)
    assert counted(study) == 1
    assert [(r.state, r.error) for r in trial_records(study)] == [
        ("fail", "killed with its process"),
        ("complete", None),
    ]


def test_a_trial_killed_while_it_drew_its_recipe_is_drawn_again_as_it_would_have_been(tmp_path: Path) -> None:
    def begin(name: str) -> optuna.Study:
        study = open_study(params(), tmp_path, name=name)
        study.sampler = make_sampler(params(), offset=counted(study))
        return study

    whole = ask(begin("whole"), this_process())
    killed = begin("killed").ask()
    killed.set_user_attr(OWNER, dead_process())
    killed.suggest_categorical("layers", params().search.space.layers)
    study = begin("killed")
    close_killed_trials(study, alone=True)
    assert study.get_trials(states=(TrialState.WAITING,)) == []
    assert ask(study, this_process()).params == whole.params


def test_a_running_trial_of_a_living_process_is_left_alone(tmp_path: Path) -> None:
    study = open_study(params(), tmp_path, name="s")
    trial = ask(study, this_process())
    close_killed_trials(study, alone=True)
    assert study.get_trials()[trial.number].state is TrialState.RUNNING


def test_a_trial_of_another_start_of_the_same_number_is_dead(tmp_path: Path) -> None:
    study = open_study(params(), tmp_path, name="s")
    host, pid, _ = this_process().rsplit(":", 2)
    assert int(pid) == os.getpid()
    trial = ask(study, f"{host}:{pid}:1")
    close_killed_trials(study, alone=True)
    assert study.get_trials()[trial.number].state is TrialState.FAIL


@pytest.mark.parametrize(("alone", "state"), [(True, TrialState.FAIL), (False, TrialState.RUNNING)])
def test_a_trial_of_another_host_is_dead_where_nobody_else_can_be(
    tmp_path: Path, alone: bool, state: TrialState
) -> None:
    study = open_study(params(), tmp_path, name="s")
    trial = ask(study, "another-host:1:1")
    close_killed_trials(study, alone=alone)
    assert study.get_trials()[trial.number].state is state


def test_a_search_in_two_sittings_proposes_what_one_sitting_does(tmp_path: Path) -> None:
    def sitting(name: str, until: int) -> optuna.Study:
        study = open_study(params(), tmp_path, name=name)
        while counted(study) < until:
            study.sampler = make_sampler(params(), offset=counted(study))
            trial = ask(study, this_process())
            study.tell(trial, trial.params["learning_rate"])
        return study

    whole = sitting("whole", 8)
    sitting("parts", 3)
    parts = sitting("parts", 8)
    assert [t.params for t in parts.get_trials()] == [t.params for t in whole.get_trials()]


def test_a_failed_trial_counts_and_is_never_the_best(tmp_path: Path) -> None:
    study = open_study(params(), tmp_path, name="s")
    study.tell(ask(study, this_process()), state=TrialState.FAIL)
    with pytest.raises(PipelineError, match="at least one trial must be complete"):
        best_trial(study)
    study.tell(ask(study, this_process()), 0.1)
    assert counted(study) == 2
    assert best_trial(study).number == 1


def test_of_equal_trials_the_smallest_is_best(tmp_path: Path) -> None:
    study = open_study(params(), tmp_path, name="s")
    for parameters in (30, 10, 20):
        trial = ask(study, this_process())
        trial.set_user_attr("parameters", parameters)
        study.tell(trial, 0.7)
    assert best_trial(study).number == 1


def test_the_table_of_trials_has_a_row_for_each(tmp_path: Path) -> None:
    study = open_study(params(), tmp_path, name="s")
    study.tell(ask(study, this_process()), 0.7)
    write_trials_csv(tmp_path / "trials.csv", trial_records(study))
    header, row = (tmp_path / "trials.csv").read_text(encoding="utf-8").splitlines()
    assert header == "number,state,value,layers,learning_rate,positions,rank,parameters,seconds,error"
    assert row.startswith("0,complete,0.7,")


@pytest.mark.parametrize("url", ["nonsense", "sqlite:////proc/no/such/folder.db", "postgresql+nothing://h/db"])
def test_a_storage_that_cannot_be_is_told(tmp_path: Path, url: str) -> None:
    with pytest.raises(PipelineError, match=r"search\.storage"):
        open_study(params(storage=url), tmp_path, name="s")
