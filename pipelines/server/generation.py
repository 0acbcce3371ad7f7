"""Continuations of one request: its rows in the engine, and what they write as it comes."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from pipelines.server.refusals import RefusedError, refusals
from pipelines.server.text import Told, Writer
from reft.batching.engine import Engine, Heard
from reft.batching.running import Prompt
from reft.batching.sampling import Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from reft.models.decoder import ReftModel


@dataclass(frozen=True)
class Wish:
    """What a request wants of its prompts.

    Attributes:
        prompts: token ids of each.
        adapter: None for the frozen base.
        max_new_tokens: of each choice.
        choices: of each prompt.
        stops: texts that end a choice.
        sampling: of the first choice; the others' seeds follow it.
        ends: tokens that end a choice.
    """

    prompts: Sequence[tuple[int, ...]]
    adapter: ReftModel | None
    max_new_tokens: int
    choices: int
    stops: tuple[str, ...]
    sampling: Sampling
    ends: frozenset[int]

    def rows(self) -> list[Prompt]:
        """Each choice of each prompt, in their order."""
        return [
            Prompt(ids, self.adapter, self.max_new_tokens, self.ends, replace(self.sampling, seed=self._seed(place)))
            for ids in self.prompts
            for place in range(self.choices)
        ]

    def _seed(self, place: int) -> int:
        return (self.sampling.seed + place) % 2**63


def any_seed() -> int:
    """A seed for who gives none."""
    return secrets.randbits(62)


@dataclass(frozen=True)
class Event:
    """What one choice wrote.

    Attributes:
        choice: its place in the request.
        text: new text.
        tokens: that it ends.
        finish: "stop" or "length" with the last event of the choice.
    """

    choice: int
    text: str
    tokens: tuple[Told, ...]
    finish: str | None


@dataclass
class Usage:
    """Tokens of a request, when it began, and when its first one was written."""

    prompt: int
    completion: int = 0
    began: float = field(default_factory=time.monotonic)
    first: float | None = None


class Continuation:
    """The rows of a request, handed to the engine; whoever begins it reads its events to their end, or closes it.

    Args:
        engine: that owns the base.
        tokenizer: of the base.
        wish: what is wanted.
        deadline: of ``time.monotonic``.

    Raises:
        RefusedError: if the rows are too long, or too many wait.
    """

    def __init__(self, engine: Engine, tokenizer: PreTrainedTokenizerBase, wish: Wish, *, deadline: float) -> None:
        rows = wish.rows()
        self.usage = Usage(sum(map(len, wish.prompts)))
        self._writers = [Writer(tokenizer, row.ids, wish.stops) for row in rows]
        self._queue: asyncio.Queue[tuple[int, Heard]] = asyncio.Queue()
        listeners = [partial(self._hear, asyncio.get_running_loop(), place) for place in range(len(rows))]
        with refusals():
            self._tickets = engine.submit(rows, listeners, deadline=deadline)

    def _hear(self, loop: asyncio.AbstractEventLoop, choice: int, heard: Heard) -> None:
        """Called by the engine's thread."""
        loop.call_soon_threadsafe(self._queue.put_nowait, (choice, heard))

    @property
    def choices(self) -> int:
        """How many there are."""
        return len(self._tickets)

    def close(self) -> None:
        """Let go of all rows that still run."""
        for ticket in self._tickets:
            ticket.cancelled = True

    async def events(self) -> AsyncIterator[Event]:
        """What the choices write, as it comes.

        Raises:
            RefusedError: if one of them cannot be ended.
        """
        try:
            left = set(range(len(self._writers)))
            while left:
                choice, heard = await self._queue.get()
                if choice in left:
                    event = self._event(choice, heard)
                    if event.finish is not None:
                        left.discard(choice)
                        self._tickets[choice].cancelled = True  # a stop text came, of which the engine knows nothing
                    yield event
        finally:
            self.close()

    def _event(self, choice: int, heard: Heard) -> Event:
        if isinstance(heard, Exception):
            with refusals():
                raise heard
        if heard.finish == "broken":
            raise RefusedError(500, "the model's answer must be numbers; got NaN or infinity", code="broken_adapter")
        self.usage.completion += 1
        self.usage.first = self.usage.first or time.monotonic()
        writer = self._writers[choice]
        pieces = [writer.add(heard.chosen)] if heard.finish != "stop" else []
        stopped = any(piece.stopped for piece in pieces)
        if heard.finish is not None and not stopped:
            pieces.append(writer.end())
            stopped = pieces[-1].stopped or heard.finish == "stop"
        finish = "stop" if stopped else heard.finish
        text = "".join(piece.text for piece in pieces)
        return Event(choice, text, tuple(token for piece in pieces for token in piece.tokens), finish)
