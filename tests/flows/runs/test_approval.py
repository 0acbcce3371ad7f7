"""A promotion waits for a person's word on a real Prefect server: nobody answers, a no, a yes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from pipelines.contracts.verdict import read_decision
from pipelines.params.whole import load_params
from pipelines.registry.aliases import CHALLENGER, CHAMPION, WITHDRAWN
from pipelines.tracking.runs import open_store
from tests.project import Project, make_tiny_project
from tests.scheduled import Scheduled
from tests.servers import kill, prefect_server, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.long]

# All weights of the tiny model, which learn its rows whole in 12 epochs: version 1 is better than the base.
LEARNING: dict[str, Any] = {
    "method.name": "full",
    "method.full": {"layers": "all", "embeddings": True, "learning_rate": "searched"},
    "search.space.full": {"learning_rate": {"low": 5.0e-3, "high": 1.0e-2, "log": True}},
    "search.enqueue": [],
    "search.trials": 1,
    "train.epochs": 12,
}
ANSWER = """
import sys
from prefect.flow_runs import resume_flow_run
resume_flow_run(sys.argv[1], run_input={"approved": sys.argv[2] == "yes", "reason": sys.argv[3]})
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scheduled]:
    """A project whose version 1 has passed the gate, and nobody says a word in the seven seconds of the setting."""
    folder = tmp_path_factory.mktemp("approval")
    told = folder / "told.jsonl"
    command = ["python", "-c", f"import sys; open({str(told)!r}, 'a').write(sys.stdin.read() + chr(10))"]
    keys = LEARNING | {"gate.approval_hours": 0.002, "notify.command": command}
    project = make_tiny_project(folder / "project", folder / "home", keys)
    alone = project.run("reft", "run")
    assert "a person promotes it, with `reft promote`" in " ".join(alone.stdout.split())  # there is nowhere to answer
    assert aliases(project) == {CHALLENGER: 1}
    with prefect_server(project, folder / "server.log") as api:
        said = project.run("reft", "run").stderr
        yield Scheduled(project, api, said, folder / "run.log")


def version(project: Project, number: int) -> Any:
    params = load_params(project.root / "params.yaml")
    store = open_store(params.tracking, project.root)
    return store.client.get_model_version(params.register_.model, str(number))


def aliases(project: Project) -> dict[str, int]:
    params = load_params(project.root / "params.yaml")
    found = open_store(params.tracking, project.root).client.get_registered_model(params.register_.model).aliases
    return {alias: int(number) for alias, number in found.items()}


def answered(server: Scheduled, word: str, reason: str) -> subprocess.Popen[bytes]:
    """A run that waits, and is told a word; it has ended."""
    run = server.project.start("reft", "run", log=server.log)
    try:
        (paused,) = wait_for("paused run", lambda: server.runs(state="Paused") or None, seconds=900)
        assert paused["id"] in server.log.read_text(encoding="utf-8")  # where to answer
        server.project.run("python", "-c", ANSWER, paused["id"], word, reason)
        assert run.wait(timeout=600) == 0
    finally:
        kill(run)
    return run


def test_nobody_answers(server: Scheduled) -> None:
    project = server.project
    assert "version 1 of reft-adapter passes the gate and waits for a person's word: http" in server.said
    assert "nobody answered in 0.002 h" in server.said
    assert aliases(project) == {CHALLENGER: 1}
    assert len(server.runs(state="Completed")) == 2  # with that of before, which had the same database
    assert server.runs(state="Paused") == server.runs(state="Failed") == []
    assert '"state": "Waiting"' in (project.root.parent / "told.jsonl").read_text(encoding="utf-8")


def test_a_no_is_kept_with_the_version(server: Scheduled) -> None:
    project = server.project
    project.params({"gate.approval_hours": 1})
    answered(server, "no", "it is rude")
    assert CHAMPION not in aliases(project)
    assert version(project, 1).tags[WITHDRAWN].endswith("refused: it is rude")
    said = project.run("reft", "run").stdout  # which waits for nobody
    assert CHAMPION not in aliases(project)
    decision = read_decision(project.root / "reports/gate.json")
    assert not decision.verdict.promote
    assert "refused: it is rude" in decision.verdict.reasons[0]
    assert "version 1" in said


def test_a_yes_makes_it_champion(server: Scheduled) -> None:
    project = server.project
    project.params({"train.epochs": 13})
    answered(server, "yes", "")
    assert aliases(project)[CHAMPION] == 2
    told = (project.root.parent / "told.jsonl").read_text(encoding="utf-8")
    assert '"state": "Promoted"' in told
