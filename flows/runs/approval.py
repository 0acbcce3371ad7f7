"""A person's word on a promotion: the run is paused in Prefect until somebody answers, or the time for that is over."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from prefect.flow_runs import pause_flow_run, resume_flow_run
from prefect.input import RunInput
from prefect.runtime import flow_run
from prefect.utilities.urls import url_for

from flows.runs.notify import notify_of_move
from flows.runs.server import UNREACHABLE
from flows.runs.tasks import warn
from pipelines.contracts.verdict import Decision

SPARE_SECONDS = 600  # in which the end of the waiting is told to the server; a run that Prefect itself ends has failed
POLL_SECONDS = 5


class Approval(RunInput):
    """What Prefect asks of the person who resumes the run."""

    approved: bool
    reason: str = ""


@dataclass(frozen=True)
class Answer:
    """What came of the waiting.

    Attributes:
        approved: whether the version is to be promoted.
        reason: in the person's words.
        late: whether nobody answered in time.
    """

    approved: bool
    reason: str
    late: bool


def ask_person(root: Path, decision: Decision, *, hours: float) -> Answer:
    """Pause the run until a person has said whether a version that passed the gate is to be promoted.

    Where the answer is to be given is written on the terminal and into the run's log, and told as section notify says.

    Args:
        root: the project.
        decision: the gate's.
        hours: that the run waits.
    """
    run = str(flow_run.get_id())
    where = url_for("flow-run", obj_id=run) or f"the flow run {run}"
    message = f"version {decision.version} of {decision.model} passes the gate and waits for a person's word: {where}"
    warn(f"{message}, for {hours:g} h")
    notify_of_move(root, "Waiting", message, model=decision.model, version=decision.version)
    with _end_of_waiting(run, hours * 3600) as late:
        timeout = int(hours * 3600) + SPARE_SECONDS
        said = pause_flow_run(wait_for_input=Approval, timeout=timeout, poll_interval=POLL_SECONDS)
    return Answer(said.approved and not late.is_set(), said.reason, late.is_set())


@contextmanager
def _end_of_waiting(run: str, seconds: float) -> Iterator[threading.Event]:
    """Answer no when the time is over; the event is set then."""
    late, over = threading.Event(), threading.Event()

    def end() -> None:
        late.set()
        while not over.wait(POLL_SECONDS):  # until the run goes on, by this or by what a person says in this moment
            with suppress(*UNREACHABLE):
                resume_flow_run(UUID(run), run_input={"approved": False, "reason": "nobody answered in time"})
                return

    timer = threading.Timer(seconds, contextvars.copy_context().run, args=(end,))
    timer.daemon = True
    timer.start()
    try:
        yield late
    finally:
        over.set()
        timer.cancel()
