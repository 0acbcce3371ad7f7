"""A schedule on a real Prefect server with a real worker: what the README says, from nothing to runs on the minute."""

from __future__ import annotations

import datetime as dt
import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.reports.evaluation import QUESTION
from pipelines.runtime.process import locked
from tests.project import Project, make_tiny_project
from tests.scheduled import IDLE, Scheduled
from tests.servers import kill, prefect_server

pytestmark = [pytest.mark.slow, pytest.mark.long]

FIRST = "Ran base, prepare, search, train, evaluate, register; 0 skipped"


@pytest.fixture(scope="module")
def scheduled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scheduled]:
    folder = tmp_path_factory.mktemp("schedule")
    project = make_tiny_project(folder / "project", folder / "home")
    with prefect_server(project, folder / "server.log") as api:
        project.run("reft", "schedule")
        said = project.run("reft", "schedule", "--cron", "* * * * *").stdout
        worker = project.start("prefect", "worker", "start", "--pool", "reft", log=folder / "worker.log")
        found = Scheduled(project, api, said, folder / "worker.log", worker)
        try:
            yield found
        finally:
            kill(found.worker)


def test_another_cron_replaces_the_first(scheduled: Scheduled) -> None:
    assert "finetune/scheduled runs at * * * * * (UTC)" in scheduled.said.replace("\n", " ")
    assert "prefect worker start --pool reft" in scheduled.said


def test_another_project_takes_no_deployment_unless_it_says_so(scheduled: Scheduled, tmp_path: Path) -> None:
    own = scheduled.project
    other = Project(shutil.copytree(own.root, tmp_path / "other", symlinks=True), own.env)

    def folder(name: str) -> str:
        return str(
            scheduled.ask("deployments/filter", {"deployments": {"name": {"any_": [name]}}})[0]["parameters"]["project"]
        )

    refused = other.run("reft", "schedule", check=False)
    assert refused.returncode == 2
    assert f"finetune/scheduled, which runs {own.root}" in " ".join((refused.stdout + refused.stderr).split())
    assert folder("scheduled") == str(own.root)
    other.run("reft", "schedule", "--name", "other")
    own.run("reft", "schedule", "--name", "other", "--replace")
    assert (folder("scheduled"), folder("other")) == (str(own.root), str(own.root))
    own.run("prefect", "deployment", "delete", "finetune/other")


def test_a_run_on_the_minute_works_and_leaves_its_artifacts(scheduled: Scheduled) -> None:
    run = scheduled.wait_for_run("Completed", FIRST, seconds=300)
    assert run["auto_scheduled"]
    artifacts = scheduled.artifacts(run)
    assert set(artifacts) == scheduled.expected()
    assert "| train | ran |" in artifacts["summary"]
    assert artifacts["evaluation"].startswith(f"# {QUESTION}")
    assert "reports/evaluation.html" in artifacts["evaluation"]
    assert "in sync" in scheduled.project.run("dvc", "status", "--cloud").stdout


def test_the_next_run_has_nothing_to_do_and_says_so(scheduled: Scheduled) -> None:
    run = scheduled.wait_for_run("Completed", IDLE, seconds=150)
    assert run["auto_scheduled"]
    artifacts = scheduled.artifacts(run)
    assert set(artifacts) == scheduled.expected()
    assert IDLE in artifacts["summary"]


def test_a_run_that_meets_another_in_the_folder_is_cancelled(scheduled: Scheduled) -> None:
    with locked(scheduled.project.root, "run", wait_seconds=60):
        scheduled.project.run("prefect", "deployment", "run", "finetune/scheduled")
        run = scheduled.wait_for_run("Cancelled", "only one run at a time", seconds=120)
    assert "Got: process" in run["state"]["message"]


def test_after_the_worker_was_killed_another_goes_on(scheduled: Scheduled) -> None:
    scheduled.wait_for_run("Completed", FIRST, seconds=300)
    kill(scheduled.worker, group=False)
    now = dt.datetime.now(dt.UTC).isoformat()
    scheduled.start_worker()
    run = scheduled.wait_for_run("Completed", IDLE, seconds=180, after=now)
    assert set(scheduled.artifacts(run)) == scheduled.expected()


def test_no_two_runs_worked_at_once(scheduled: Scheduled) -> None:
    spans = sorted((run["start_time"], run["end_time"]) for run in scheduled.runs(state="Completed"))
    assert len(spans) >= 2
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
