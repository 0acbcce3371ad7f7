"""A run has what its stages left, whether or not Prefect's server lives to be told; tests/kills.py kills a real one."""

from __future__ import annotations

import httpx
import pytest
from prefect import State
from prefect.exceptions import PrefectHTTPStatusError
from prefect.states import Completed

from flows.runs.server import Told
from pipelines.errors import PipelineError

pytestmark = pytest.mark.slow  # imports Prefect
GONE = (
    httpx.ConnectError("All connection attempts failed"),
    PrefectHTTPStatusError("503", request=httpx.Request("POST", "http://x"), response=httpx.Response(503)),
)


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
