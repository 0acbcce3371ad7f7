"""Questions go to an OpenAI-compatible address, within bounds of calls and cost, and each reply is kept."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from pipelines.errors import PipelineError
from pipelines.judge.completion import read_completion
from pipelines.judge.kept import Kept
from pipelines.judge.planning import KEY, Judge, Limits, Plan, keep
from pipelines.judge.question import REJECTED, Question, Reply
from pipelines.judge.tally import Tally

if TYPE_CHECKING:
    import openai

NO_KEY = "none"  # what the client sends where the environment has no key: servers of one's own ask for none
LONGEST_WAIT = 60.0  # seconds between two attempts, whatever the server asks for
GIVE_UP = 5  # questions in a row that came to nothing, after which the judge is taken to be out of order
LASTING = (400, 413, 422)  # statuses of a question that the server will never take, as one that is too long
NEWER, OLDER = "max_completion_tokens", "max_tokens"  # names of one setting


def ask(planned: Plan, judge: Judge, limits: Limits, kept: Kept) -> Tally:
    """Ask what is not known yet; replies are kept one by one as they come.

    Raises:
        PipelineError: if the server refuses the key or the model, or :data:`GIVE_UP` questions in a row come to
            nothing.
    """
    tally = Tally(planned.questions, planned.questions - len(planned.unknown))
    if not planned.unknown:
        return tally
    with _client(judge) as client:
        asking = _Asking(judge, limits, kept, client, tally)
        # Alone, so that one call finds out a wrong key, model or setting; and the shortest, for which there is room.
        first = min(planned.unknown, key=lambda question: judge.most_tokens(question)[0])
        asking.one(first)
        with ThreadPoolExecutor(judge.parallel) as pool:
            try:
                waiting = [pool.submit(asking.one, question) for question in planned.unknown if question != first]
                with tqdm(total=len(planned.unknown), initial=1, desc="judge", unit=" questions", leave=False) as bar:
                    for done in as_completed(waiting):
                        done.result()
                        bar.update()
            finally:
                asking.stopped.set()
                pool.shutdown(cancel_futures=True)
    return tally


def _client(judge: Judge) -> openai.OpenAI:
    try:
        import openai
    except ImportError:
        raise PipelineError(
            "a judge is asked by the package openai",
            got="it is not installed",
            do="Install it: pip install openai, or in a clone pip install -c constraints.txt -e '.[judge]'.",
        ) from None
    return openai.OpenAI(
        base_url=judge.address, api_key=os.environ.get(KEY) or NO_KEY, max_retries=0, timeout=judge.seconds
    )


class _BoundReachedError(Exception):
    """A call that a question needs beside its own is out of the bounds."""


class _Asking:
    """The threads' common state."""

    def __init__(self, judge: Judge, limits: Limits, kept: Kept, client: openai.OpenAI, tally: Tally) -> None:
        self.judge, self.limits, self.kept, self.client, self.tally = judge, limits, kept, client, tally
        self.stopped = threading.Event()
        self._lock = threading.Lock()
        self._reserved = 0.0  # the most that calls under way can cost
        self._not_before = 0.0  # when the rate limit lets the next call pass
        self._failed_in_a_row = 0
        self._answers = False  # whether there was a reply
        self._rejections: list[tuple[Question, Reply]] = []  # before that
        self._settings: dict[str, Any] = {NEWER: judge.max_tokens, "temperature": 0}

    def one(self, question: Question) -> None:
        """Ask it until there is a reply, attempts are used up, or a bound is reached."""
        problem = ""
        for attempt in range(self.judge.attempts):
            most = self.judge.most_tokens(question)
            if self.stopped.is_set() or not self._may_call(self.judge.cost(most)):
                self._count(unasked=1)
                return
            try:
                problem = self._call(question, most, pause=self.judge.pause * 2**attempt)
            except _BoundReachedError:
                self._count(unasked=1)
                return
            finally:
                self._release(self.judge.cost(most))
            if not problem:
                return
        self._gave_up(problem)

    def _call(self, question: Question, most: tuple[int, int], *, pause: float) -> str:
        """Make one call; return what went wrong, or "" where the reply is kept."""
        import openai

        self.stopped.wait(max(0.0, self._not_before - time.monotonic()))
        began = time.monotonic()
        try:
            reply, tokens = self._reply(question)
        except openai.APITimeoutError as error:  # a connection error too; the server may bill it
            return self._failed("timeouts", error, pause, spent=most)
        except openai.APIConnectionError as error:
            return self._failed("unreachable", error, pause)
        except openai.RateLimitError as error:
            return self._failed("rate_limits", error, _asked_wait(error, pause))
        except openai.InternalServerError as error:
            return self._failed("server_errors", error, _asked_wait(error, pause))
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            raise self._refused(error) from None
        except openai.APIStatusError as error:
            if getattr(error, "code", None) == "content_filter":
                reply, tokens = Reply("", "content_filter", ""), (0, 0)
            elif error.status_code in LASTING:
                return self._rejected(question, error)
            else:
                return self._failed("rejected", error, pause)
        except (openai.OpenAIError, ValueError) as error:  # an answer that is no completion
            return self._failed("server_errors", error, pause, spent=most)
        keep(question, reply, self.judge, self.kept)
        with self._lock:
            self._failed_in_a_row = 0
            self._keep_rejections()
            self.tally.seconds.append(time.monotonic() - began)
            self._spend(tokens or most)
        return ""

    def _reply(self, question: Question) -> tuple[Reply, tuple[int, int] | None]:
        """The reply with the tokens that the server counts; settings that it does not know are left out afterwards."""
        import openai

        messages: Any = question.messages()
        while True:
            settings = dict(self._settings)
            try:
                said = self.client.chat.completions.create(model=self.judge.model, messages=messages, **settings)
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                if not self._adapted(str(error), settings):
                    raise
                if not self._may_call(0.0):  # the call that was refused cost nothing, and this one has its share
                    raise _BoundReachedError from None
                continue
            return read_completion(said)

    def _adapted(self, problem: str, settings: dict[str, Any]) -> bool:
        """Whether a server's complaint is of a setting that older or thinking models know otherwise, or not at all."""
        named = next((name for name in settings if name != OLDER and name in problem), None)
        if named is None:
            return False
        with self._lock:
            del settings[named]
            if named != NEWER and named not in self.tally.left_out:
                self.tally.left_out.append(named)
            self._settings = settings | ({OLDER: self.judge.max_tokens} if named == NEWER else {})
        return True

    def _may_call(self, most: float) -> bool:
        """Take one call out of the bounds, if it is in them however long its reply is."""
        with self._lock:
            calls, cost = self.limits.calls, self.limits.cost
            if calls is not None and self.tally.calls >= calls:
                return False
            if cost is not None and self.tally.cost + self._reserved + most > cost:
                return False
            self.tally.calls += 1
            self._reserved += most
            return True

    def _release(self, most: float) -> None:
        with self._lock:
            self._reserved -= most

    def _spend(self, tokens: tuple[int, int]) -> None:
        self.tally.read_tokens += tokens[0]
        self.tally.written_tokens += tokens[1]
        self.tally.cost += self.judge.cost(tokens)

    def _failed(self, kind: str, error: Exception, wait: float, *, spent: tuple[int, int] = (0, 0)) -> str:
        """Note a failed call, and have every thread wait."""
        with self._lock:
            self.tally.failures[kind] += 1
            self._spend(spent)
            if kind == "rate_limits":
                self._not_before = max(self._not_before, time.monotonic() + wait)
        if kind != "rate_limits":
            self.stopped.wait(min(wait, LONGEST_WAIT))
        return f"{type(error).__name__}: {_without_key(str(error))}"

    def _rejected(self, question: Question, error: openai.APIStatusError) -> str:
        """Note a question that the server does not take.

        That is kept, and not asked again, once another one was answered: else the server may take none at all, because
        of a setting, and :data:`GIVE_UP` of them end it where nothing was ever answered.
        """
        problem = _without_key(str(error))
        with self._lock:
            self.tally.failures[REJECTED] += 1
            self.tally.unanswered += 1
            self._rejections.append((question, Reply(problem, REJECTED, "")))
            if self._answers:
                self._keep_rejections()
            never = not self._answers and not self.tally.known and len(self._rejections) >= GIVE_UP
        if never and not self.stopped.is_set():
            raise self._out_of_order(problem)
        return ""

    def _keep_rejections(self) -> None:
        self._answers = True
        for question, reply in self._rejections:
            keep(question, reply, self.judge, self.kept)
        self.tally.unanswered -= len(self._rejections)
        self._rejections.clear()

    def _gave_up(self, problem: str) -> None:
        """Count a question that came to nothing; too many in a row end it all."""
        with self._lock:
            self.tally.unanswered += 1
            self._failed_in_a_row += 1
            out_of_order = self._failed_in_a_row >= GIVE_UP and not self.stopped.is_set()
        if out_of_order:
            raise self._out_of_order(problem)

    def _out_of_order(self, problem: str) -> PipelineError:
        self.stopped.set()
        counted = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in self.tally.failures.items())
        return PipelineError(
            f"the judge at {self.judge.address} must answer",
            got=f"{GIVE_UP} questions in a row came to nothing ({counted}); the last: {problem}",
            do="What it answered is kept: run the command again when it is up, or with a longer --timeout or a "
            "smaller --parallel.",
        )

    def _count(self, *, unasked: int) -> None:
        with self._lock:
            self.tally.unasked += unasked

    def _refused(self, error: openai.APIStatusError) -> PipelineError:
        self.stopped.set()
        missing = "" if os.environ.get(KEY) else f"; {KEY} is not in the environment"
        return PipelineError(
            f"the judge at {self.judge.address} must take the key and the model {self.judge.model}",
            got=f"{error.status_code}: {_without_key(str(error))}{missing}",
            do=f"Put the key into the environment as {KEY}; check --model and --address, which often ends in /v1.",
        )


def _asked_wait(error: openai.APIStatusError, pause: float) -> float:
    """Seconds that the server asks to wait, or the pause."""
    try:
        return min(max(float(error.response.headers["retry-after"]), 0.0), LONGEST_WAIT)
    except (KeyError, ValueError):
        return min(pause, LONGEST_WAIT)


def _without_key(text: str) -> str:
    key = os.environ.get(KEY)
    return text.replace(key, "***") if key else text
