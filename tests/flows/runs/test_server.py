"""A run has what its stages left, whether or not Prefect's server lives to be told; tests/kills.py kills a real one."""

from __future__ import annotations

import subprocess
import sys
import threading

import httpx
import pytest
from prefect import State
from prefect.exceptions import PrefectHTTPStatusError
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS, temporary_settings
from prefect.states import Completed

from flows.runs import server
from flows.runs.server import Told, kept_alive
from pipelines.errors import PipelineError

pytestmark = pytest.mark.slow  # imports Prefect
GONE = (
    httpx.ConnectError("All connection attempts failed"),
    PrefectHTTPStatusError("503", request=httpx.Request("POST", "http://x"), response=httpx.Response(503)),
)
ANSWERS = """
import http.server, sys, time
time.sleep(0.5)
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/api/health" else 404)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Health).serve_forever()
"""


@pytest.mark.parametrize("error", GONE)
def test_a_run_of_which_nobody_was_told_has_its_result(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    told = Told[int]()

    def run() -> State[int]:
        told.came_to(3)
        raise error

    assert told.outcome(run) == 3
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "was not told how this run ended" in said[0]


@pytest.mark.parametrize("error", GONE)
def test_a_run_whose_work_is_not_done_has_none(error: Exception) -> None:
    told = Told[int]()

    def run(result: int | None) -> State[int]:
        if result is not None:
            told.came_to(result)
            return Completed(data=result)
        raise error

    assert told.outcome(lambda: run(4)) == 4
    with pytest.raises(PipelineError, match=r"Prefect's server must answer.*again"):
        told.outcome(lambda: run(None))


def test_what_stopped_the_work_is_raised_as_it_was() -> None:
    told = Told[int]()

    def run() -> State[int]:
        raise PipelineError("a rule")

    with pytest.raises(PipelineError, match="a rule"):
        told.outcome(run)


@pytest.mark.parametrize("error", [RuntimeError("Timed out"), httpx.ReadTimeout("")])
def test_a_server_that_answers_later_than_prefect_waits_is_waited_for(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def impatient(self: SubprocessASGIServer) -> None:
        self.port = self.find_available_port()
        self.server_process = python(ANSWERS, str(self.port))
        raise error

    monkeypatch.setattr(SubprocessASGIServer, "start", impatient)
    with kept_alive() as address:
        assert SubprocessASGIServer().running  # by which Prefect starts no other one
        assert httpx.get(f"{address}/health", timeout=30).is_success
    SubprocessASGIServer().stop()


def test_a_server_that_ends_as_it_starts_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SubprocessASGIServer, "_run_uvicorn_command", lambda self: python("raise SystemExit(1)"))
    monkeypatch.setattr(server, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(server, "_lost", threading.Event())
    told = pytest.raises(PipelineError, match=r"Prefect must be able to start a server.*prefect server start")
    with temporary_settings({PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: 1}), told, kept_alive():
        pass


def python(code: str, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code, *arguments])
