"""The engine: rows within its limits, work in between, and what it says when it cannot go on."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from queue import Queue
from typing import Any

import pytest
import torch

from reft.batching.engine import ClosedError, Engine, Heard, Limits, QueueFullError, TooLateError
from reft.batching.running import Prompt, Token
from tests.reft.tiny import build_base

LIMITS = Limits(rows=2, columns=20, cells=40, prefill=20, waiting=4)


@pytest.fixture
def base() -> Any:
    return build_base()


@pytest.fixture
def engine(base: Any) -> Iterator[Engine]:
    engine = Engine(base, LIMITS)
    yield engine
    engine.close()


def wait_for(heard: Queue[Heard]) -> list[Heard]:
    """All of a prompt's tokens, or what it ended with."""
    found = [heard.get(timeout=30)]
    while isinstance(found[-1], Token) and found[-1].finish is None:
        found.append(heard.get(timeout=30))
    return found


def ask(engine: Engine, prompt: Prompt, **more: Any) -> Queue[Heard]:
    heard: Queue[Heard] = Queue()
    engine.submit([prompt], [heard.put], **more)
    return heard


def test_more_prompts_than_rows_are_all_continued(base: Any) -> None:
    engine = Engine(base, Limits(rows=2, columns=20, cells=40, prefill=20, waiting=9))
    asked = [ask(engine, Prompt((3 + place,), None, 4)) for place in range(7)]
    assert [len(wait_for(heard)) for heard in asked] == [4] * 7
    assert (engine.running, engine.waiting) == (0, 0)
    engine.close()


def test_rows_and_cells_are_never_more_than_the_limits(base: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(base, Limits(rows=3, columns=20, cells=30, prefill=4, waiting=20))
    seen = []
    whole = type(engine._batch)._pass

    def watched(self: Any, ids: Any, mask: Any, *rest: Any) -> Any:
        seen.append((tuple(ids.shape), tuple(mask.shape)))
        return whole(self, ids, mask, *rest)

    monkeypatch.setattr(type(engine._batch), "_pass", watched)
    hold, held = threading.Event(), threading.Event()
    engine.call(lambda: (held.set(), hold.wait(30)))
    assert held.wait(30)
    asked = [ask(engine, Prompt((3,) * length, None, 3)) for length in (1, 2, 3, 12, 4, 1, 1)]
    hold.set()
    assert all(len(wait_for(heard)) == 3 for heard in asked)
    engine.close()
    assert max(rows * columns for _, (rows, columns) in seen) <= 30
    assert max(rows for _, (rows, _) in seen) == 3
    assert max(rows * columns for (rows, columns), _ in seen if rows > 1 and columns > 1) <= 4


def test_what_cannot_be_taken_on_is_refused_at_once(engine: Engine) -> None:
    with pytest.raises(ValueError, match="at most 20 tokens; got 21"):
        ask(engine, Prompt((1,) * 11, None, 10))
    hold = threading.Event()
    engine.call(lambda: hold.wait(30))
    while engine.waiting:  # until that has begun
        time.sleep(0.001)
    for _ in range(4):
        ask(engine, Prompt((1,), None, 2))
    with pytest.raises(QueueFullError, match="at most 4 may wait"):
        ask(engine, Prompt((1,), None, 2))
    hold.set()


def test_a_prompt_whose_time_is_over_is_told_and_one_that_is_cancelled_is_silent(engine: Engine) -> None:
    assert isinstance(wait_for(ask(engine, Prompt((1,), None, 5), deadline=time.monotonic() - 1))[-1], TooLateError)
    heard: Queue[Heard] = Queue()
    hold = threading.Event()
    engine.call(lambda: hold.wait(30))
    (ticket,) = engine.submit([Prompt((1,), None, 5)], [heard.put])
    ticket.cancelled = True
    hold.set()
    assert len(wait_for(ask(engine, Prompt((1,), None, 2)))) == 2
    assert heard.empty()


def test_a_failed_pass_ends_its_prompts_and_no_others(base: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(base, LIMITS)
    whole = base.forward

    def fails(*args: Any, **kwargs: Any) -> Any:
        raise torch.OutOfMemoryError("no memory left")

    fails.__signature__ = __import__("inspect").signature(whole)  # type: ignore[attr-defined]
    monkeypatch.setattr(base, "forward", fails)
    assert isinstance(wait_for(ask(engine, Prompt((1,), None, 5)))[-1], torch.OutOfMemoryError)
    monkeypatch.setattr(base, "forward", whole)
    assert len(wait_for(ask(engine, Prompt((1,), None, 5)))) == 5
    engine.close()


def test_work_in_between_is_done_on_the_engines_thread_and_its_error_is_the_callers(engine: Engine) -> None:
    assert engine.call(lambda: threading.current_thread().name).result(30) == "engine"
    with pytest.raises(ZeroDivisionError):
        engine.call(lambda: 1 // 0).result(30)
    assert engine.alive


def test_who_waits_when_the_engine_is_closed_is_told(base: Any) -> None:
    engine = Engine(base, LIMITS)
    hold, held = threading.Event(), threading.Event()
    engine.call(lambda: (held.set(), hold.wait(30)))
    assert held.wait(30)
    heard = ask(engine, Prompt((1,), None, 5))
    closing = threading.Thread(target=engine.close)
    closing.start()
    while engine.alive:
        time.sleep(0.01)
    hold.set()
    closing.join(30)
    assert isinstance(wait_for(heard)[-1], ClosedError)
    with pytest.raises(ClosedError):
        ask(engine, Prompt((1,), None, 5))
