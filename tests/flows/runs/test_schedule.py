"""A schedule on a real Prefect server with a real worker: what the README says, from nothing to runs on the minute."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipelines.contracts.evaluation import read_evaluation
from pipelines.runtime.process import locked
from tests.project import Project, make_tiny_project
from tests.servers import kill, prefect_server, wait_for

pytestmark = pytest.mark.slow

ARTIFACTS = {"summary", "data-card", "search", "trials", "evaluation", "model-version"}
FIRST = "Ran base, prepare, search, train, evaluate, register; 0 skipped"
IDLE = "Nothing was stale: all 6 stages were skipped"


@dataclass
class Scheduled:
    """A project whose flow is on the schedule of a server."""

    project: Project
    api: str
    said: str
    log: Path
    worker: subprocess.Popen[bytes]

    def ask(self, path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            f"{self.api}/{path}", json.dumps(body).encode(), headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def runs(self, *, state: str) -> list[dict[str, Any]]:
        """The runs in a state, oldest first."""
        wanted = {"flow_runs": {"state": {"name": {"any_": [state]}}}, "sort": "EXPECTED_START_TIME_ASC"}
        found: list[dict[str, Any]] = self.ask("flow_runs/filter", wanted)
        return found

    def wait_for_run(self, state: str, words: str, *, seconds: float, after: str = "") -> dict[str, Any]:
        """The first run that ended in a state with these words in its message, and was due after a time."""

        def look() -> dict[str, Any] | None:
            found = (r for r in self.runs(state=state) if words in (r["state"]["message"] or ""))
            return next((r for r in found if r["expected_start_time"] > after), None)

        try:
            return wait_for(f"{state} run", look, seconds=seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log.read_text(encoding='utf-8')[-5000:]}") from None

    def artifacts(self, run: dict[str, Any]) -> dict[str, Any]:
        """The artifacts of a run by key, read back through the API."""
        found = self.ask("artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}})
        return {artifact["key"]: artifact["data"] for artifact in found if artifact["key"]}

    def expected(self) -> set[str]:
        """The artifacts of a run; the gate is asked of a version that beat the base alone."""
        better = read_evaluation(self.project.root / "metrics" / "evaluation.json").better
        return ARTIFACTS | ({"gate"} if better else set())

    def start_worker(self) -> None:
        self.worker = self.project.start("prefect", "worker", "start", "--pool", "reft", log=self.log)


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


@pytest.mark.long
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
    assert "in sync" in scheduled.project.run("dvc", "status", "--cloud").stdout


def test_the_next_run_has_nothing_to_do_and_says_so(scheduled: Scheduled) -> None:
    run = scheduled.wait_for_run("Completed", IDLE, seconds=150)
    assert run["auto_scheduled"]
    artifacts = scheduled.artifacts(run)
    assert set(artifacts) == scheduled.expected()
    assert IDLE in artifacts["summary"]


@pytest.mark.long
def test_a_run_that_meets_another_in_the_folder_is_cancelled(scheduled: Scheduled) -> None:
    with locked(scheduled.project.root, "run", wait_seconds=60):
        scheduled.project.run("prefect", "deployment", "run", "finetune/scheduled")
        run = scheduled.wait_for_run("Cancelled", "only one run at a time", seconds=120)
    assert "Got: process" in run["state"]["message"]


@pytest.mark.long
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
