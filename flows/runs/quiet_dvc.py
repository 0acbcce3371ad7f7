"""``dvc`` for the flow: it says nothing of a stage that ended because the flow itself was stopped.

Ctrl-C ends the flow, which says so, and with it the stage. To DVC that is a stage that failed, and its error would be
the last line on the terminal. Of any other failure it tells as ever.
"""

from __future__ import annotations

import logging
import os
import sys
import time

from pipelines.runtime.process import FLOW_PID

ENDING_SECONDS = 1.0  # that a flow which was stopped with its stage may take to end
POLL_SECONDS = 0.02


class _WhileTheFlowLives(logging.Filter):
    """Takes errors for as long as the flow that asked for this process is there to be told."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is shown."""
        return record.levelno < logging.ERROR or _flow_lives()


def _flow_lives() -> bool:
    """Whether the flow is there after the moment that it takes to end."""
    flow, until = os.environ.get(FLOW_PID, ""), time.monotonic() + ENDING_SECONDS
    while str(os.getppid()) == flow and time.monotonic() < until:
        time.sleep(POLL_SECONDS)
    return str(os.getppid()) == flow


def main() -> int:
    """Run the ``dvc`` command with this process's arguments."""
    from dvc.cli import main as dvc

    for handler in logging.getLogger("dvc").handlers:
        handler.addFilter(_WhileTheFlowLives())
    return int(dvc())


if __name__ == "__main__":
    sys.exit(main())
