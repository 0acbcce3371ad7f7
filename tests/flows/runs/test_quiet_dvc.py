"""DVC's errors are shown while the flow that asked for it lives, and not after it was stopped."""

from __future__ import annotations

import logging
import os

import pytest

from flows.runs import quiet_dvc
from pipelines.runtime.process import FLOW_PID


@pytest.mark.parametrize(
    ("lives", "level", "shown"),
    [(True, logging.ERROR, True), (False, logging.ERROR, False), (False, logging.WARNING, True)],
)
def test_an_error_is_shown_to_a_flow_that_lives(
    lives: bool, level: int, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quiet_dvc, "ENDING_SECONDS", 0.1)
    monkeypatch.setenv(FLOW_PID, str(os.getppid()) if lives else "0")
    record = logging.LogRecord("dvc", level, __file__, 1, "failed to reproduce", None, None)
    assert quiet_dvc._WhileTheFlowLives().filter(record) is shown
