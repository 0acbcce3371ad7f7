"""A judge, what it is to be asked, and the most that this can take: what a person is told before anything is sent."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from pipelines.errors import PipelineError
from pipelines.files import sha256_json
from pipelines.judge.kept import Kept
from pipelines.judge.question import REJECTED, Outcome, Question, Reply
from pipelines.params.address import check_address, hide_secrets
from pipelines.params.notify import is_private

KEY = "OPENAI_API_KEY"
TEMPLATE_TOKENS = 64  # that a server's chat template may add to a question
ADAPTATIONS = 2  # calls at most that find out which settings of a request a server knows
BYTES, SHORT = 4, 8  # of a token in common text; tokens of a reply with a verdict alone


@dataclass(frozen=True)
class Judge:
    """Who is asked, and how.

    Attributes:
        address: of the server, as ``http://127.0.0.1:8000/v1``.
        model: its name there.
        max_tokens: of a reply; a model that thinks before it answers needs some hundred.
        seconds: that a reply may take.
        attempts: at a question.
        parallel: questions at once.
        pause: seconds before the second attempt; twice as many before each further one.
        prices: of a million tokens that it reads, and that it writes.
    """

    address: str
    model: str
    max_tokens: int
    seconds: float
    attempts: int
    parallel: int
    pause: float = 1.0
    prices: tuple[float, float] = (0.0, 0.0)

    def key(self, question: Question) -> str:
        """What a reply is kept by: all that decides it, but for the bound on it, which stands beside the reply."""
        return sha256_json([self.address, self.model, question.messages()])

    def most_tokens(self, question: Question) -> tuple[int, int]:
        """The most tokens that it reads and writes for one call: a token stands for a byte at least."""
        read = sum(len(turn["content"].encode("utf-8", "replace")) for turn in question.messages())
        return read + TEMPLATE_TOKENS, self.max_tokens

    def cost(self, tokens: tuple[int, int]) -> float:
        """Of so many tokens read and written."""
        return (tokens[0] * self.prices[0] + tokens[1] * self.prices[1]) / 1e6


@dataclass(frozen=True)
class Limits:
    """What asking may take; None: no bound."""

    calls: int | None = None
    cost: float | None = None


@dataclass(frozen=True)
class Plan:
    """What is to be asked.

    Attributes:
        questions: how many different ones there are.
        unknown: of these, without a reply that is kept.
        calls: at most, with every attempt.
        cost: at most.
        likely_cost: with one call for each and tokens of :data:`BYTES` bytes.
    """

    questions: int
    unknown: tuple[Question, ...]
    calls: int
    cost: float
    likely_cost: float


def plan(questions: Sequence[Question], judge: Judge, kept: Kept) -> Plan:
    """Find out what is to be asked; a question that comes twice is asked once."""
    distinct = {judge.key(question): question for question in questions}
    unknown = tuple(question for question in distinct.values() if _known(question, judge, kept) is None)
    tokens = [judge.most_tokens(question) for question in unknown]
    most = sum(map(judge.cost, tokens)) * judge.attempts
    likely = sum(judge.cost((read // BYTES, min(written, SHORT))) for read, written in tokens)
    calls = len(unknown) * judge.attempts + ADAPTATIONS if unknown else 0
    return Plan(len(distinct), unknown, calls, most, likely)


def read_prices(text: str) -> tuple[float, float]:
    """Two prices with a comma between.

    Raises:
        PipelineError: for anything else.
    """
    try:
        read, written = (float(part) for part in text.split(","))
    except ValueError:
        read = written = -1.0
    if not (0 <= read < math.inf and 0 <= written < math.inf):
        raise PipelineError("--prices are two numbers, of a million tokens read and written", got=text, do="As 0.25,2.")
    return read, written


def sound_address(address: str | None) -> str:
    """An address that may be asked.

    Raises:
        PipelineError: for none, one that is no http address or holds a secret, or one in the open that would get a key.
    """
    example = "Give --address, as http://127.0.0.1:8000/v1, or set OPENAI_BASE_URL."
    try:
        parts = urlsplit(address or "")
    except ValueError as error:
        raise PipelineError(
            "a judge has an http:// or https:// address", got=f"{address}: {error}", do=example
        ) from None
    if address is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise PipelineError("a judge has an http:// or https:// address", got=address or "none", do=example)
    if parts.query or parts.fragment:  # it may be a key, and the report holds the address
        raise PipelineError(
            "a judge's address ends with its path, and holds no secret",
            got=f"{hide_secrets(parts._replace(query='', fragment='').geturl())} and something behind that",
            do=f"Leave out what follows ? or #; a key is in the environment, as {KEY}.",
        )
    try:
        check_address(address)
    except ValueError as error:
        raise PipelineError("a judge's address can be read and holds no secret", got=error, do=example) from None
    near = parts.hostname == "localhost" or is_private(parts.hostname)
    if parts.scheme == "http" and os.environ.get(KEY) and not near:
        raise PipelineError(
            "a key is sent over https, or to a server on this machine or network, by its number",
            got=address,
            do=f"Take an https:// address, or one by number; or unset {KEY}, if the server asks for none.",
        )
    return address


def keep(question: Question, reply: Reply, judge: Judge, kept: Kept) -> None:
    """Keep a reply to it, with the bound that it was given within."""
    kept.add(judge.key(question), {**vars(reply), "max_tokens": judge.max_tokens})


def outcome(question: Question, judge: Judge, kept: Kept) -> Outcome | None:
    """What the judge said to it; None if nothing is known."""
    reply = _known(question, judge, kept)
    return None if reply is None else reply.outcome()


def _known(question: Question, judge: Judge, kept: Kept) -> Reply | None:
    """The reply that is kept; None of one that was cut within a lower bound, or rejected with another."""
    found = kept.get(judge.key(question))
    if found is None:
        return None
    reply, bound = Reply(str(found["text"]), str(found["finish"]), str(found["refusal"])), int(found["max_tokens"])
    said = reply.outcome()
    again = (said == "cut" and bound < judge.max_tokens) or (said == REJECTED and bound != judge.max_tokens)
    return None if again else reply
