"""A bound of the time that a part may take: first asked of Python, then of the whole process."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class OutOfTimeError(BaseException):
    """A part has had all of its time; no Exception, which a part may catch of those that it measures."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise :class:`OutOfTimeError` in the main thread when so many seconds are over; another alarm goes on after."""

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise OutOfTimeError(f"a part ends after {seconds:.0f} seconds")

    before: Any = signal.signal(signal.SIGALRM, ring)
    left, every = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        spent = seconds - signal.setitimer(signal.ITIMER_REAL, 0)[0]
        signal.signal(signal.SIGALRM, before)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(left - spent, 0.001), every)


@contextmanager
def or_else(seconds: float, end: Callable[[], None]) -> Iterator[None]:
    """Call ``end`` from another thread when so many seconds are over: a device that hangs does not come back."""
    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
