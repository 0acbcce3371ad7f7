"""One study, several processes: of Prefect, on PostgreSQL, of a Dask cluster; some killed with kill -9 in a trial."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import cache
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
import sqlalchemy
from optuna.trial import FrozenTrial, TrialState

from pipelines.contracts.trials import KILLED
from pipelines.params.whole import load_params
from pipelines.project.settings import StudySettings
from pipelines.search import study
from pipelines.search.next_step import ProposalContext, Step, next_trial
from pipelines.search.proposals import suggest
from pipelines.search.study import ERROR, OWNER, RETRY_OF, in_state, open_study, point_of, repeat_killed
from pipelines.stages import search
from pipelines.tracking.runs import PARENT, open_store
from tests.postgres import postgres, why_not
from tests.project import prefect_home
from tests.searching import ROOT, Project, make_context
from tests.servers import wait_for

pytestmark = pytest.mark.long

TRIALS = 5
CHANGES: dict[str, Any] = {
    "search.trials": TRIALS,
    "search.epochs": 40,  # long enough to be killed in, and short enough for a test
    "search.sampler": "random",
    "search.enqueue": [],
}


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    with postgres() as address:
        yield address


def make(root: Path, database: str, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Project:
    """A project whose trials are in the database, where each seed has a study of its own."""
    monkeypatch.setenv("REFT_HOME", str(root / "home"))
    root.mkdir()
    return make_context(root, {**CHANGES, "search.storage": database, **changes})


def trials_in(database: str) -> list[FrozenTrial]:
    """The trials of the newest study."""
    summaries = optuna.get_all_study_summaries(database, include_best_trial=False)
    if not summaries:
        return []
    newest = max(summaries, key=lambda summary: summary._study_id)
    return list(optuna.load_study(study_name=newest.study_name, storage=database).get_trials(deepcopy=False))


@cache
def engine_of(database: str) -> sqlalchemy.Engine:
    """One for all looks: a new one takes longer than a look does."""
    return sqlalchemy.create_engine(database)


def in_the_middle(database: str) -> dict[int, int]:
    """The numbers of the trials that have reported something and run on, by the numbers of their processes."""
    query = (
        "select o.value_json, t.number from trials t join trial_user_attributes o using (trial_id) "
        "where o.key = 'owner' and t.state = 'RUNNING' "
        "and exists (select 1 from trial_intermediate_values v where v.trial_id = t.trial_id)"
    )
    try:
        with engine_of(database).connect() as connection:
            rows = connection.execute(sqlalchemy.text(query)).all()
    except sqlalchemy.exc.ProgrammingError:  # the tables are not made yet
        return {}
    return {int(json.loads(owner).rsplit(":", 2)[1]): number for owner, number in rows}


def check_exact(trials: list[FrozenTrial]) -> None:
    """As many complete trials as were asked for, each another recipe; the killed one repeated once, as it was."""
    states = Counter(trial.state for trial in trials)
    assert states == {TrialState.COMPLETE: TRIALS, TrialState.FAIL: 1}
    failed = in_state(trials, TrialState.FAIL)[0]
    assert ERROR not in failed.user_attrs
    again = [trial for trial in trials if trial.user_attrs.get(RETRY_OF) == failed.number]
    assert [point_of(trial) for trial in again] == [point_of(failed)]
    complete = [tuple(point_of(trial).values()) for trial in in_state(trials, TrialState.COMPLETE)]
    assert len(set(complete)) == TRIALS


def check_collected(context: Project) -> None:
    """The stage finds the study complete, and writes it down without a trial of its own."""
    result = search.run(
        context.params, root=context.root, base=context.base, prepared=context.prepared, out=context.root / "search",
        metrics=context.root / "metrics" / "search.json",
    )  # fmt: skip
    assert (result.complete, result.pruned, result.failed) == (TRIALS, 0, 0)  # no recipe failed
    records = json.loads((context.root / "search" / "trials.json").read_text(encoding="utf-8"))
    assert [one["error"] for one in records if one["state"] == "fail"] == [KILLED]


def _work(root: Path, home: str, place: int) -> None:
    os.chdir(root)
    os.environ["REFT_HOME"] = home
    from pipelines.search.worker import main

    sys.exit(main(["--place", str(place)]))


def test_of_two_processes_one_is_killed_in_a_trial_and_none_is_lost_or_doubled(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = make(tmp_path / "two", database, monkeypatch)
    forks: ForkServerContext = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(["pipelines.search.worker", "pipelines.bases.convert"])
    workers: list[BaseProcess] = [
        forks.Process(target=_work, args=(context.root, str(context.root / "home"), place)) for place in range(2)
    ]
    for worker in workers:
        worker.start()
    victim, survivor = workers[1], workers[0]
    assert victim.pid is not None
    wait_for("trial of the second", lambda: victim.pid in in_the_middle(database), seconds=900, every=0.05)
    os.kill(victim.pid, signal.SIGKILL)
    survivor.join(timeout=900)
    assert survivor.exitcode == 0
    trials = trials_in(database)
    check_exact(trials)
    owners = {trial.user_attrs[OWNER].rsplit(":", 2)[1] for trial in trials}
    assert owners == {str(victim.pid), str(survivor.pid)}
    check_collected(context)


def test_of_a_dask_cluster_of_two_one_worker_is_killed_in_a_trial_and_none_is_lost_or_doubled(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("prefect_dask")
    # One worker may begin well before the other, and is to have trials left then; a trial that has reported is seen.
    longer = {"search.epochs": 400, "search.reports": 16}
    context = make(tmp_path / "dask", database, monkeypatch, seed=7, **longer)
    monkeypatch.setenv("PREFECT_HOME", str(shutil.copytree(prefect_home(), tmp_path / "prefect")))
    flow = subprocess.Popen([sys.executable, "-c", FLOW, str(context.root), f"dask:{TRIALS}"], cwd=ROOT)
    victim = wait_for("two workers in trials", lambda: _one_of_two(flow, database), seconds=900, every=0.1)
    started_by = victim.parent()
    assert started_by is not None
    started_by.kill()  # a process of Dask; the worker that it started sees that, and ends
    assert flow.wait(timeout=900) == 0
    assert not victim.is_running()
    check_exact(trials_in(database))
    check_collected(context)


# The part of the flow that fans out, by itself: two workers that each kind of runner starts, for so many trials.
FLOW = """
import sys
from pathlib import Path
import yaml
from flows.runs.server import kept_alive
from flows.search import fan_out, server_for_children, task_runner
from prefect import flow

def fan(root, runner, trials):
    raw = yaml.safe_load((root / "params.yaml").read_text())
    raw["search"]["trials"] = trials
    (root / "params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    run = flow(fan_out, name="fan-out", task_runner=task_runner(runner, 2, None), validate_parameters=False)
    run(root, 2)

if __name__ == "__main__":
    with kept_alive() as address, server_for_children(address, needed=True):
        for word in sys.argv[2:]:
            runner, trials = word.split(":")
            fan(Path(sys.argv[1]), runner, int(trials))
"""


def test_threads_and_processes_of_prefect_work_on_one_study_and_log_each_trial_live_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = make(
        tmp_path / "runners", "sqlite:///.reft/optuna.db", monkeypatch,
        **{"search.epochs": 2, "tracking.uri": "sqlite:///mlflow/mlflow.db"},
    )  # fmt: skip
    monkeypatch.setenv("PREFECT_HOME", str(shutil.copytree(prefect_home(), tmp_path / "prefect")))
    done = subprocess.run(
        [sys.executable, "-c", FLOW, str(context.root), "threads:2", "processes:4"], cwd=ROOT, check=False
    )
    assert done.returncode == 0
    trials = trials_in(f"sqlite:///{context.root / '.reft' / 'optuna.db'}")
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 4
    assert len({tuple(point_of(trial).values()) for trial in trials}) == 4
    assert len({trial.user_attrs[OWNER] for trial in trials}) >= 2  # no process of the first two is there for the rest
    store = open_store(context.params.tracking, context.root)
    runs = store.client.search_runs([store.experiment_id])
    assert sorted(run.info.run_name for run in runs if PARENT in run.data.tags) == [f"trial-{n}" for n in range(4)]
    assert len(runs) == 5  # and one that they belong to
    assert {run.info.status for run in runs} == {"FINISHED"}
    logged = {run.info.run_name: run.data.metrics.get("validation_accuracy") for run in runs}
    assert [logged[f"trial-{trial.number}"] for trial in trials] == [trial.value for trial in trials]


def _one_of_two(flow: subprocess.Popen[bytes], database: str) -> psutil.Process | None:
    """A worker below the flow that is in a trial, while another one is too."""
    assert flow.poll() is None, "the flow ended before one of its workers could be killed"
    found = in_the_middle(database)
    return psutil.Process(min(found)) if len(found) == 2 else None


def test_a_trial_of_a_machine_that_is_silent_is_repeated(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "HEARTBEAT_SECONDS", 1)
    monkeypatch.setattr(study, "GRACE_SECONDS", 1)
    root = tmp_path / "silent"
    make(root, database, monkeypatch, seed=8)
    params = load_params(root / "params.yaml")
    settings = StudySettings.of(params)
    shared = open_study(params.search, root, name="silent")
    with shared.locked():
        assert next_trial(shared, settings, ProposalContext("0" * 64, 3, lambda point: True)) is Step.BEGIN
        trial = shared.study.ask()
        trial.set_user_attr(OWNER, "another-host/1:1:1")
        suggest(trial, params.search.space)
        shared.beat(trial.number)
    repeat_killed(shared, alone=False)
    assert [one.state for one in shared.trials()] == [TrialState.RUNNING]
    time.sleep(2.1)
    for _ in range(2):
        repeat_killed(shared, alone=False)
    assert [one.state for one in shared.trials()] == [TrialState.FAIL, TrialState.WAITING]
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):  # what its process finds, if it lives
        trial.report(0.5, step=1)
