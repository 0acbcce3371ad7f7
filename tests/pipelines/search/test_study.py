"""The study: killed trials run again, none is lost or counted twice, and a resumed search is the uninterrupted one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
from optuna.trial import TrialState

from pipelines.errors import PipelineError
from pipelines.params.whole import Params
from pipelines.project import keys
from pipelines.project.keys import Inputs
from pipelines.project.settings import StudySettings
from pipelines.runtime.process import this_process
from pipelines.search.next_step import ProposalContext, Step, next_trial
from pipelines.search.proposals import suggest
from pipelines.search.records import trial_records, write_trials_csv
from pipelines.search.study import (
    CANDIDATE,
    CONFIRM,
    COSTS,
    ERROR,
    INTERRUPTED,
    MAX_KILLS,
    OWNER,
    SharedStudy,
    counted,
    in_state,
    open_study,
    repeat_killed,
)
from pipelines.search.warm_start import first_points
from tests.searching import RAW, make_params

GROUND = ProposalContext(base_sha256="0" * 64, num_layers=30, allowed=lambda point: True)


def params(**search: Any) -> Params:
    """The default search, as make run has it, with other settings."""
    default = {f"search.{key}": RAW["search"][key] for key in ("trials", "space", "enqueue", "pruner")}
    return make_params({**default, **{f"search.{key}": value for key, value in search.items()}})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One database for all studies here."""
    return tmp_path_factory.mktemp("studies")


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return str(request.node.name)


def shared_study(root: Path, name: str, **search: Any) -> SharedStudy:
    return open_study(params(**search).search, root, name=name)


def begin(shared: SharedStudy, owner: str | None = None, **search: Any) -> optuna.Trial:
    """Begin a trial as a process does under the lock; it is this one's unless said otherwise."""
    assert next_trial(shared, StudySettings.of(params(**search)), GROUND) is Step.BEGIN
    trial = shared.study.ask()
    trial.set_user_attr(OWNER, owner or this_process())
    suggest(trial, params(**search).recipe_space().space)
    trial.set_user_attr(COSTS, {"parameters": 10, "seconds": 1.0, "fill_seconds": 0.5, "tokens": 5, "memory_mb": 1.0})
    return trial


@pytest.fixture(scope="module")
def dead() -> str:
    """The name of a process that was on this machine."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        started = psutil.Process(child.pid).create_time()
        child.kill()
    return f"{this_process().rsplit(':', 2)[0]}:{child.pid}:{started:.0f}"


def kill(shared: SharedStudy, trial: optuna.Trial, dead: str) -> None:
    trial.set_user_attr(OWNER, dead)
    repeat_killed(shared, alone=True)


def test_a_killed_trial_is_closed_and_its_recipe_runs_again_once(root: Path, name: str, dead: str) -> None:
    shared = shared_study(root, name)
    killed = begin(shared, dead)
    for _ in range(3):  # as often as the search is started
        repeat_killed(shared, alone=True)
    assert counted(shared.trials()) == []
    assert len(in_state(shared.trials(), TrialState.WAITING)) == 1
    again = begin(shared)
    assert again.params == killed.params
    shared.study.tell(again, 0.5)
    repeat_killed(shared, alone=True)
    assert len(counted(shared.trials())) == 1
    assert [(r.state, r.error) for r in trial_records(shared)] == [
        ("fail", "killed with its process"),
        ("complete", None),
    ]


def test_a_trial_killed_at_any_moment_of_its_beginning_begins_as_it_did(root: Path, name: str, dead: str) -> None:
    whole = begin(shared_study(root, f"{name}-whole"))
    for place, moments in enumerate(("enqueued", "asked", "drawing")):
        shared = shared_study(root, f"{name}-{place}")
        next_trial(shared, StudySettings.of(params()), GROUND)
        if moments != "enqueued":
            trial = shared.study.ask()
            if moments == "drawing":
                trial.set_user_attr(OWNER, dead)
                trial.suggest_categorical("layers", RAW["search"]["space"]["layers"])
        repeat_killed(shared, alone=True)
        assert begin(shared).params == whole.params
        assert len(in_state(shared.trials(), TrialState.RUNNING)) == 1


def test_a_recipe_that_kills_its_process_again_and_again_counts_as_failed(root: Path, name: str, dead: str) -> None:
    shared = shared_study(root, name)
    for _ in range(MAX_KILLS):
        assert counted(shared.trials()) == []
        kill(shared, begin(shared), dead)
    assert len(counted(shared.trials())) == 1
    assert in_state(shared.trials(), TrialState.WAITING) == []
    assert trial_records(shared)[-1].error == f"killed with its process {MAX_KILLS} times"


def test_a_trial_that_a_person_stopped_is_repeated_as_often_as_that(root: Path, name: str, dead: str) -> None:
    shared = shared_study(root, name)
    for _ in range(MAX_KILLS + 1):
        trial = begin(shared)
        trial.set_user_attr(INTERRUPTED, True)
        shared.study.tell(trial, state=TrialState.FAIL)
        repeat_killed(shared, alone=True)
    assert counted(shared.trials()) == []
    assert len(in_state(shared.trials(), TrialState.WAITING)) == 1


def test_a_running_trial_of_a_living_process_is_left_alone(root: Path, name: str) -> None:
    shared = shared_study(root, name)
    trial = begin(shared)
    repeat_killed(shared, alone=True)
    assert shared.trials()[trial.number].state is TrialState.RUNNING


def test_a_trial_of_another_start_of_the_same_number_is_dead(root: Path, name: str) -> None:
    shared = shared_study(root, name)
    host, pid, _ = this_process().rsplit(":", 2)
    assert int(pid) == os.getpid()
    trial = begin(shared, f"{host}:{pid}:1")
    repeat_killed(shared, alone=True)
    assert shared.trials()[trial.number].state is TrialState.FAIL


@pytest.mark.parametrize(("alone", "state"), [(True, TrialState.FAIL), (False, TrialState.RUNNING)])
def test_a_trial_of_another_host_is_dead_where_nobody_else_can_be(
    root: Path, name: str, alone: bool, state: TrialState
) -> None:
    shared = shared_study(root, name)
    trial = begin(shared, "another-host:1:1")
    repeat_killed(shared, alone=alone)
    assert shared.trials()[trial.number].state is state


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_search_in_two_sittings_proposes_what_one_sitting_does(root: Path, sampler: str) -> None:
    def sitting(name: str, until: int) -> SharedStudy:
        shared = shared_study(root, f"{sampler}-{name}", sampler=sampler, trials=8)
        while len(counted(shared.trials())) < until:
            trial = begin(shared, sampler=sampler, trials=8)
            shared.study.tell(trial, trial.params["learning_rate"])
        return shared

    whole = sitting("whole", 8)
    sitting("parts", 3)
    parts = sitting("parts", 8)
    assert [t.params for t in parts.trials()] == [t.params for t in whole.trials()]


def test_trials_that_others_run_count_towards_the_target(root: Path, name: str) -> None:
    shared = shared_study(root, name, trials=2)
    first, second = begin(shared, trials=2), begin(shared, trials=2)
    assert next_trial(shared, StudySettings.of(params(trials=2)), GROUND) is Step.WAIT
    shared.study.tell(first, 0.5)
    assert next_trial(shared, StudySettings.of(params(trials=2)), GROUND) is Step.WAIT
    shared.study.tell(second, 0.5)
    assert next_trial(shared, StudySettings.of(params(trials=2)), GROUND) is Step.DONE
    assert next_trial(shared, StudySettings.of(params(trials=3)), GROUND) is Step.BEGIN


def test_the_budget_of_seconds_is_counted_over_restarts(root: Path, name: str) -> None:
    for sitting in range(2):
        shared = shared_study(root, name, seconds=2.0)
        assert next_trial(shared, StudySettings.of(params(seconds=2.0)), GROUND) is Step.BEGIN, sitting
        shared.study.tell(begin(shared, seconds=2.0), 0.5)
    assert next_trial(shared_study(root, name, seconds=2.0), StudySettings.of(params(seconds=2.0)), GROUND) is Step.DONE


def test_a_search_that_gets_no_better_stops(root: Path, name: str) -> None:
    shared = shared_study(root, name, patience=2)
    for accuracy in (0.5, 0.6, 0.6, 0.4):
        assert next_trial(shared, StudySettings.of(params(patience=2)), GROUND) is Step.BEGIN
        shared.study.tell(begin(shared, patience=2), accuracy)
    assert next_trial(shared, StudySettings.of(params(patience=2)), GROUND) is Step.DONE


def test_a_failed_trial_counts_and_keeps_its_error(root: Path, name: str) -> None:
    shared = shared_study(root, name)
    trial = begin(shared)
    trial.set_user_attr(ERROR, "NonFiniteLossError: nan")
    shared.study.tell(trial, state=TrialState.FAIL)
    repeat_killed(shared, alone=True)
    assert len(counted(shared.trials())) == 1
    assert [(r.state, r.value, r.error) for r in trial_records(shared)] == [("fail", None, "NonFiniteLossError: nan")]


def test_the_table_of_trials_has_a_row_for_each(root: Path, name: str, tmp_path: Path) -> None:
    shared = shared_study(root, name)
    shared.study.tell(begin(shared), 0.7)
    write_trials_csv(tmp_path / "trials.csv", trial_records(shared))
    header, row = (tmp_path / "trials.csv").read_text(encoding="utf-8").splitlines()
    assert header == (
        "number,state,value,layers,learning_rate,positions,rank,parameters,seconds,fill_seconds,tokens,memory_mb,"
        "loss,seed,error"
    )
    assert row == "0,complete,0.7,all,0.0009,l4,8,10,1.0,0.5,5,1.0,,42,"


@pytest.mark.parametrize("url", ["nonsense", "sqlite:////proc/no/such/folder.db", "postgresql+nothing://h/db"])
def test_a_storage_that_cannot_be_is_told(root: Path, url: str) -> None:
    with pytest.raises(PipelineError, match=r"search\.storage"):
        shared_study(root, "s", storage=url)


def test_the_first_recipes_of_a_study_are_good_ones_of_earlier_studies(root: Path, name: str) -> None:
    """Each once, and none whose trial was over a limit of this study."""
    slow, fast = ({"layers": "all", "positions": "l1", "rank": rank, "learning_rate": 0.001} for rank in (8, 4))
    database = {"storage": f"sqlite:///{root / name}.db"}
    for place, points in enumerate(([slow, fast], [fast])):
        earlier = shared_study(root, f"{name}-{place}", enqueue=points, **database)
        for point in points:
            trial = begin(earlier, enqueue=points, **database)
            trial.set_user_attr(COSTS, {"parameters": 10, "seconds": 9.0 if point is slow else 1.0, "memory_mb": 1.0})
            earlier.study.tell(trial, 0.9 if point is slow else 0.8)
    for seconds, expected in ((None, [fast, slow]), (5.0, [fast])):
        limits = {"parameters": None, "seconds": seconds, "memory_mb": None}
        own = {"earlier": 2, "enqueue": [], "limits": limits, **database}
        shared = shared_study(root, f"{name}-{seconds}", **own)
        assert first_points(shared, StudySettings.of(params(**own)), base_sha256=GROUND.base_sha256) == expected


def test_the_first_recipe_of_a_study_is_what_an_earlier_one_confirmed(root: Path, name: str) -> None:
    """Not the best trial, whose accuracy was luck, nor a recipe that did not stand another seed or has not yet."""
    _, good, _, _ = points = [
        {"layers": "all", "positions": place, "rank": rank, "learning_rate": 0.001}
        for place, rank in (("l1", 1), ("l1", 4), ("l1", 8), ("l2", 1))
    ]
    own = {"enqueue": points, "earlier": 1, "storage": f"sqlite:///{root / name}.db"}
    earlier = shared_study(root, f"{name}-earlier", **own)
    for value in (0.9, 0.85, 0.95, 0.8):
        earlier.study.tell(begin(earlier, **own), value)
    confirming = shared_study(root, f"{name}-earlier{CONFIRM}", **own)
    for number, values in enumerate(((0.8, 0.81), (0.84, 0.83), (0.95, None), (0.99,))):
        for value in values:
            confirming.study.enqueue_trial(points[number], user_attrs={CANDIDATE: number})
            run = confirming.study.ask()
            if value is None:
                run.set_user_attr(ERROR, "out of memory")
            confirming.study.tell(run, value, state=TrialState.FAIL if value is None else None)
    shared = shared_study(root, name, **own)
    assert first_points(shared, StudySettings.of(params(**own)), base_sha256=GROUND.base_sha256)[-1] == good


def test_a_study_of_lora_belongs_to_a_version_of_peft_and_one_of_reft_to_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def key(method: str, peft: str) -> str:
        monkeypatch.setattr(keys, "package_version", lambda name: peft if name == "peft" else "1")
        return keys.study_key(
            StudySettings.of(make_params({"method.name": method})), Inputs("0" * 64, "1" * 64, "2" * 64)
        )

    assert key("reft", "1.0") == key("reft", "2.0")
    assert key("lora", "1.0") != key("lora", "2.0")
