"""Rows of tasks that wait for an answer: those of several adapters are scored in one pass of the base."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from pipelines.contracts.prepared import Row
from pipelines.model.scores import ask_choices
from pipelines.server.served import Served
from pipelines.serving.answerer import BATCH_SIZE
from pipelines.tasks.family import Answer
from reft.batching.engine import Engine
from reft.models.mixed import AdapterSet

Told = list[dict[str, Any]]


@dataclass(frozen=True, eq=False)
class _Request:
    """Rows of one adapter, and who waits for their answers."""

    served: Served
    rows: Sequence[Row]
    future: Future[Told] = field(default_factory=Future)

    def answer(self, answers: Sequence[Answer]) -> None:
        """Tell the answers, or what is wrong with them."""
        try:
            self.future.set_result(self.served.answerer.told(self.rows, answers))
        except Exception as error:  # noqa: BLE001  of this request alone, which gets it
            self.future.set_exception(error)


class Classifier:
    """Answers rows between two tokens of the engine; whoever waits by then is answered by the same pass.

    An adapter edits its own rows alone, so a row's scores are those that it has alone, to rounding.

    Args:
        engine: that owns the base.
        tokenizer: of the base.
    """

    def __init__(self, engine: Engine, tokenizer: PreTrainedTokenizerBase) -> None:
        self._engine, self._tokenizer = engine, tokenizer
        self._lock = threading.Lock()
        self._waiting: deque[_Request] = deque()

    def submit(self, served: Served, rows: Sequence[Row]) -> Future[Told]:
        """Hand in rows that the adapter's answerer read, of a task that asks for choices or a number.

        Raises:
            QueueFullError: if as many wait as may.
            ClosedError: if the engine was stopped.
        """
        request = _Request(served, rows)
        with self._lock:
            self._engine.call(self._answer_waiting)  # a job for each request, so that none waits without one
            self._waiting.append(request)
        return request.future

    def _answer_waiting(self) -> None:
        """Score as many requests as one batch has rows for; those that a job before this one took are done."""
        requests = self._take()
        try:
            self._score(requests)
        except Exception:  # noqa: BLE001  of one of them, as that its rows are too long: it is not the others' fault
            for request in requests:
                try:
                    self._score([request])
                except Exception as error:  # noqa: BLE001  who asked gets it
                    request.future.set_exception(error)

    def _take(self) -> list[_Request]:
        taken: list[_Request] = []
        with self._lock:
            while self._waiting and sum(len(request.rows) for request in (*taken, self._waiting[0])) <= BATCH_SIZE:
                taken.append(self._waiting.popleft())
            if not taken and self._waiting:
                taken.append(self._waiting.popleft())
        return [request for request in taken if request.future.set_running_or_notify_cancel()]

    def _score(self, requests: Sequence[_Request]) -> None:
        names = [str(id(request.served.adapter)) for request in requests for _ in request.rows]
        if not names:
            return
        adapters = {str(id(request.served.adapter)): request.served.adapter for request in requests}
        asked = [
            (task, replace(row, domain=None))  # which edits do not read, and not all rows of a batch need have
            for request in requests
            for task, row in request.served.answerer.with_tasks(request.rows)
        ]
        model = AdapterSet(adapters).rows(names)
        answers = iter(ask_choices(model, self._tokenizer, asked, batch_size=BATCH_SIZE))
        for request in requests:
            request.answer([next(answers) for _ in request.rows])
