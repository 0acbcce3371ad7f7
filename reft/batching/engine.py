"""A thread that owns a base: it admits prompts at each token, and does other work with the base between two tokens."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from reft.batching.running import Prompt, Row, RunningBatch, Token

log = logging.getLogger(__name__)
Result = TypeVar("Result")


@dataclass(frozen=True)
class Limits:
    """What an engine takes on.

    Attributes:
        rows: prompts that are continued together.
        columns: of one row: tokens of a prompt and of its longest continuation.
        cells: rows times columns of the running batch, which its memory follows.
        prefill: rows times columns that are read in one pass of new prompts; a longer one is read alone.
        waiting: prompts and jobs that wait.
    """

    rows: int
    columns: int
    cells: int
    prefill: int
    waiting: int

    def __post_init__(self) -> None:
        if min(self.rows, self.columns, self.prefill, self.waiting) < 1 or self.cells < self.columns:
            raise ValueError(
                f"the limits of an engine are numbers from 1, and its cells hold one row at least; got {self}; "
                "raise the one that is too low"
            )


class QueueFullError(RuntimeError):
    """As many prompts wait as may."""


class TooLongError(ValueError):
    """A prompt and its continuation have more columns than a row may have."""


class ClosedError(RuntimeError):
    """The engine was stopped."""


class TooLateError(RuntimeError):
    """The time that a prompt had is over."""


Heard = Token | Exception
Listener = Callable[[Heard], None]
"""Called by the engine's thread with each token of a prompt, or with what ended it instead; it must not wait."""


@dataclass(eq=False)
class Ticket:
    """A prompt that was handed in.

    Attributes:
        row: it as a row.
        listener: who hears of it.
        deadline: of ``time.monotonic``; None for none.
        cancelled: set by whoever no longer wants it, from any thread; it then ends silently.
    """

    row: Row
    listener: Listener
    deadline: float | None
    cancelled: bool = False

    def over(self) -> bool:
        """Whether nobody waits for it any more; whose time is over is told so."""
        if not self.cancelled and self.deadline is not None and time.monotonic() > self.deadline:
            self.hear(TooLateError("the time that this prompt had is over"))
            self.cancelled = True
        return self.cancelled

    def hear(self, heard: Heard) -> None:
        """Tell the listener, if there is one still; one that fails is the loss of its own prompt alone."""
        if self.cancelled:
            return
        try:
            self.listener(heard)
        except Exception:
            log.exception("a listener failed; its prompt is given up")
            self.cancelled = True


class Engine:
    """Continues prompts of several adapters of one base together.

    Args:
        base: in evaluation mode; nothing else may run it while the engine does, but for :meth:`call`.
        limits: what is taken on.

    Raises:
        ValueError: for a base whose rows cannot join and leave a batch.
    """

    def __init__(self, base: Any, limits: Limits) -> None:
        self.limits = limits
        self._base, self._batch = base, RunningBatch(base)
        self._changed = threading.Condition()
        self._waiting: deque[Ticket] = deque()
        self._jobs: deque[Callable[[], None]] = deque()
        self._running: list[Ticket] = []
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    @property
    def running(self) -> int:
        """How many prompts are being continued."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """How many prompts and jobs wait."""
        return len(self._waiting) + len(self._jobs)

    @property
    def alive(self) -> bool:
        """Whether it takes prompts."""
        return self._thread.is_alive() and not self._closed

    def submit(
        self,
        prompts: Sequence[Prompt],
        listeners: Sequence[Listener],
        *,
        deadline: float | None = None,
        always: bool = False,
    ) -> list[Ticket]:
        """Hand in prompts, all or none.

        Args:
            prompts: what is to be continued.
            listeners: who hears of each.
            deadline: of ``time.monotonic``; None for none.
            always: whether they may wait even where as many wait as may.

        Raises:
            TooLongError: for a prompt of more columns than a row may have.
            QueueFullError: if so many wait that not all of these may.
            ClosedError: if the engine was stopped.
        """
        longest = max(prompt.columns for prompt in prompts)
        if longest > self.limits.columns:
            raise TooLongError(
                f"a prompt and its continuation must have at most {self.limits.columns} tokens; got {longest}; "
                "shorten the prompt, or ask for fewer"
            )
        pairs = zip(prompts, listeners, strict=True)
        tickets = [Ticket(Row(prompt), listener, deadline) for prompt, listener in pairs]
        with self._changed:
            self._check_room(0 if always else len(tickets))
            self._waiting += tickets
            self._changed.notify()
        return tickets

    def call(self, work: Callable[[], Result], *, always: bool = False) -> Future[Result]:
        """Do other work with the base, between two tokens; arguments and errors as of :meth:`submit`."""
        future: Future[Result] = Future()

        def job() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work())
                except BaseException as error:  # noqa: BLE001  the caller's, who gets it
                    future.set_exception(error)

        with self._changed:
            self._check_room(0 if always else 1)
            self._jobs.append(job)
            self._changed.notify()
        return future

    def close(self) -> None:
        """Stop; whoever still waits is told."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _check_room(self, count: int) -> None:
        if self._closed:
            raise ClosedError("the engine was stopped")
        if count and self.waiting + count > self.limits.waiting:
            raise QueueFullError(f"at most {self.limits.waiting} may wait; got {count} beside {self.waiting}")

    def _work(self) -> None:
        while True:
            with self._changed:
                while not (self._closed or self._jobs or self._waiting or self._running):
                    self._changed.wait()
                if self._closed:
                    break
                job = self._jobs.popleft() if self._jobs else None
                self._leave([ticket for ticket in self._running if ticket.over()])
                newcomers = self._newcomers()
            if job is not None:
                job()
            self._advance(newcomers)
        self._fail([*self._running, *self._waiting], ClosedError("the engine was stopped"))
        while self._jobs:  # each of them fails by what it asks, or is done; none is left waiting
            self._jobs.popleft()()

    def _newcomers(self) -> list[Ticket]:
        """The next prompts in the order of their coming, as many as there is room for."""
        found: list[Ticket] = []
        widest = max((ticket.row.prompt.columns for ticket in self._running), default=0)
        longest = 0
        while self._waiting:
            ticket = self._waiting[0]
            if ticket.over():
                self._waiting.popleft()
                continue
            prompt, rows = ticket.row.prompt, len(self._running) + len(found) + 1
            widest, longest = max(widest, prompt.columns), max(longest, len(prompt.ids))
            full = rows > self.limits.rows or rows * widest > self.limits.cells
            if full or (found and (len(found) + 1) * longest > self.limits.prefill):
                break
            found.append(self._waiting.popleft())
        return found

    def _advance(self, newcomers: list[Ticket]) -> None:
        """One token for those that run, then the first of those that are new."""
        try:
            if self._running:
                self._tell(self._running, self._batch.step())
            if newcomers:
                tokens = self._batch.admit([ticket.row for ticket in newcomers])
                self._running += newcomers
                self._tell(newcomers, tokens)
        except Exception as error:
            log.exception("a pass failed; %d prompts are given up", len(self._running) + len(newcomers))
            lost = dict.fromkeys([*self._running, *newcomers])
            self._batch, self._running = RunningBatch(self._base), []
            self._fail(list(lost), error)

    def _tell(self, tickets: Sequence[Ticket], tokens: Sequence[Token]) -> None:
        pairs = list(zip(tickets, tokens, strict=True))
        ended = {ticket for ticket, token in pairs if token.finish is not None}
        self._running = [ticket for ticket in self._running if ticket not in ended]
        for ticket, token in pairs:
            ticket.hear(token)

    def _leave(self, tickets: Sequence[Ticket]) -> None:
        self._batch.drop([ticket.row for ticket in tickets])
        self._running = [ticket for ticket in self._running if ticket not in tickets]

    @staticmethod
    def _fail(tickets: Sequence[Ticket], error: Exception) -> None:
        for ticket in tickets:
            ticket.hear(error)
