"""Kills of the matrix, one after the other in one project (``make kill-matrix`` runs each alone), and random ones."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from pipelines.contracts.registration import read_registration
from tests.kills import SERVER, Born, is_server, run_chain
from tests.project import make_tiny_project
from tests.random_kills import begin_or_go_on, lives
from tests.record import named_record
from tests.servers import kill

pytestmark = pytest.mark.long

KILLS = int(os.environ.get("REFT_KILLS", "6"))  # at random
RECORD = named_record()


@pytest.fixture(scope="module")
def begin(tmp_path_factory: pytest.TempPathFactory) -> Born:
    return begin_or_go_on(tmp_path_factory.mktemp("begin").resolve(), RECORD)


def test_a_killed_run_ends_as_if_nobody_had_killed_it(begin: Born, tmp_path: Path) -> None:
    kills = [("dvc alone", "prepare"), ("flow", "search"), ("dvc", "train")]
    outcome = run_chain(kills, begin, tmp_path.resolve() / "killed")
    assert outcome.problems == ()
    assert outcome.how == "the same run went on"


def test_a_run_whose_server_is_killed_ends_as_if_nothing_had_been(begin: Born, tmp_path: Path) -> None:
    outcome = run_chain([(SERVER, "register")], begin, tmp_path.resolve() / "killed")
    assert outcome.problems == ()
    assert outcome.how == "the same run went on"


def test_a_run_whose_server_never_lives_ends_with_its_stages(tmp_path: Path) -> None:
    project = make_tiny_project(tmp_path / "project", tmp_path / "home")
    flow, log = project.start("reft", "run", log=tmp_path / "run.log"), tmp_path / "run.log"
    ended: float | None = None  # when the last stage had
    try:
        while flow.poll() is None:
            time.sleep(0.1)
            stages = project.markers()
            if stages:
                kill_servers(flow.pid)
            if "register" in stages and ended is None:
                ended = time.monotonic()
    finally:
        kill(flow)
    said = log.read_text(encoding="utf-8", errors="replace")
    assert flow.returncode == 0, said[-2000:]
    assert ended is not None
    assert time.monotonic() - ended < 60  # with a push to the remote; 18 s on two cores that eight others wanted
    assert said.count("was not told how this run ended") == 1
    for block in ("Traceback", "EventsWorker", "Error logging to API"):
        assert block not in said
    assert read_registration(project.root / "registration.json").version == 1


def kill_servers(flow: int) -> None:
    with suppress(psutil.Error):
        for child in psutil.Process(flow).children(recursive=True):
            if is_server(child):
                child.kill()


@pytest.mark.timeout(0)  # each run has its own limits, which a busy machine does not reach
def test_random_kills_leave_what_an_undisturbed_run_leaves(begin: Born, tmp_path: Path) -> None:
    found = list(lives(KILLS, 0, begin, tmp_path.resolve(), RECORD))
    assert [life.problems for life in found] == [() for _ in found]
