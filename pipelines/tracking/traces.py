"""Requests to a server and their answers as traces in MLflow, written beside the answering, for which nobody waits."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from queue import Full, Queue
from typing import Any

from pipelines.tracking.runs import Store

log = logging.getLogger(__name__)
MOST_WAITING = 1000  # traces that wait to be written; one more is lost, and counted
STOP_SECONDS = 30.0  # for those that wait when the server ends


@dataclass(frozen=True)
class Call:
    """A request that was answered.

    Attributes:
        route: that was asked.
        model: the name in the request.
        fingerprint: which version answered, and the hash of its adapter.
        asked: the request's fields.
        answered: the answer's body; of a stream what it would have been in one piece.
        began: in nanoseconds of Unix.
        ended: the same.
    """

    route: str
    model: str
    fingerprint: str
    asked: Mapping[str, Any]
    answered: Mapping[str, Any]
    began: int
    ended: int


class Traces:
    """Writes calls to the experiment of a store, in a thread of its own.

    Args:
        store: open.
        most: calls that may wait.

    Attributes:
        lost: how many were not written, since too many waited. Of a store that fails MLflow itself says why.
    """

    def __init__(self, store: Store, *, most: int = MOST_WAITING) -> None:
        os.environ.setdefault(
            "MLFLOW_ENABLE_ASYNC_TRACE_LOGGING", "false"
        )  # this thread is beside the answering already
        self.lost = 0
        self._store = store
        self._waiting: Queue[Call | None] = Queue(most)
        self._thread = threading.Thread(target=self._write_all, name="traces", daemon=True)
        self._thread.start()

    def note(self, call: Call) -> None:
        """Have a call written; from any thread, at once."""
        try:
            self._waiting.put_nowait(call)
        except Full:
            self.lost += 1
            if self.lost & (self.lost - 1) == 0:  # the 1st, 2nd, 4th, 8th, ...: a store that is gone fills no log
                log.warning("%d traces were not written: %d wait already", self.lost, self._waiting.maxsize)

    def close(self) -> None:
        """Write what waits, for STOP_SECONDS at most, and stop; how many are lost then is said."""
        until = time.monotonic() + STOP_SECONDS
        with suppress(Full):  # of a store that hangs nothing is taken
            self._waiting.put(None, timeout=STOP_SECONDS)
        self._thread.join(max(until - time.monotonic(), 0.0))
        if self._thread.is_alive():
            self.lost += sum(call is not None for call in list(self._waiting.queue))
            log.warning("the store took too long: %d traces were not written in all", self.lost)

    def _write_all(self) -> None:
        while (call := self._waiting.get()) is not None:
            try:
                self._write(call)
            except Exception:
                log.exception("a trace was not written")  # which is no request's fault

    def _write(self, call: Call) -> None:
        import mlflow

        span = mlflow.start_span_no_context(
            call.route,
            span_type="LLM",
            inputs=dict(call.asked),
            attributes={"reft.fingerprint": call.fingerprint},
            tags={"reft.model": call.model, "reft.fingerprint": call.fingerprint},
            experiment_id=self._store.experiment_id,
            start_time_ns=call.began,
        )
        span.end(outputs=dict(call.answered), end_time_ns=call.ended)


@contextmanager
def kept_traces(store: Store) -> Iterator[Traces]:
    """Traces for as long as the context is open."""
    traces = Traces(store)
    try:
        yield traces
    finally:
        traces.close()
