"""Answers in OpenAI's form, whole and in chunks."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pipelines.server.generation import Event, Usage
from pipelines.server.text import Told

DONE = "data: [DONE]\n\n"


@dataclass(frozen=True)
class Signature:
    """What all parts of an answer carry.

    Attributes:
        model: the name that the request gave.
        fingerprint: the version that answered, and the hash of its adapter: by both a row of its data can be found.
        name: of the answer.
        created: in seconds of Unix.
    """

    model: str
    fingerprint: str
    name: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    def head(self, kind: str, prefix: str) -> dict[str, Any]:
        """The fields that begin an answer or a chunk."""
        return {
            "id": f"{prefix}-{self.name}",
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }


class Form(Protocol):
    """How an interface writes choices."""

    def whole(self, signature: Signature, choices: Sequence[Sequence[Event]], usage: Usage) -> dict[str, Any]:
        """An answer in one piece."""

    def chunk(self, signature: Signature, choices: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """A part of a stream."""

    def opening(self, choice: int) -> dict[str, Any] | None:
        """What comes before a choice's first text, if anything does."""

    def part(self, event: Event) -> dict[str, Any]:
        """What a choice has in a chunk."""


@dataclass(frozen=True)
class Completions:
    """POST /v1/completions."""

    logprobs: bool

    def whole(self, signature: Signature, choices: Sequence[Sequence[Event]], usage: Usage) -> dict[str, Any]:
        """An answer in one piece."""
        parts = [self.part(joined(events)) for events in choices]
        return {**signature.head("text_completion", "cmpl"), "choices": parts, "usage": counted(usage)}

    def chunk(self, signature: Signature, choices: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """A part of a stream, of the same form."""
        return {**signature.head("text_completion", "cmpl"), "choices": list(choices)}

    def opening(self, choice: int) -> None:
        """A text has no opening."""

    def part(self, event: Event) -> dict[str, Any]:
        """A choice, or a part of it."""
        known = _by_column(event.tokens) if self.logprobs else None
        return {"index": event.choice, "text": event.text, "logprobs": known, "finish_reason": event.finish}


@dataclass(frozen=True)
class Chat:
    """POST /v1/chat/completions."""

    logprobs: bool

    def whole(self, signature: Signature, choices: Sequence[Sequence[Event]], usage: Usage) -> dict[str, Any]:
        """An answer in one piece."""
        parts = []
        for event in map(joined, choices):
            message = {"role": "assistant", "content": event.text, "refusal": None}
            parts.append(self._part(event) | {"message": message})
        return {**signature.head("chat.completion", "chatcmpl"), "choices": parts, "usage": counted(usage)}

    def chunk(self, signature: Signature, choices: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """A part of a stream."""
        return {**signature.head("chat.completion.chunk", "chatcmpl"), "choices": list(choices)}

    def opening(self, choice: int) -> dict[str, Any]:
        """Whose turn it is."""
        delta = {"role": "assistant", "content": ""}
        return {"index": choice, "delta": delta, "logprobs": None, "finish_reason": None}

    def part(self, event: Event) -> dict[str, Any]:
        """A part of a choice."""
        return self._part(event) | {"delta": {"content": event.text} if event.text else {}}

    def _part(self, event: Event) -> dict[str, Any]:
        known = {"content": [_by_token(token) for token in event.tokens], "refusal": None} if self.logprobs else None
        return {"index": event.choice, "logprobs": known, "finish_reason": event.finish}


def joined(events: Sequence[Event]) -> Event:
    """All that a choice wrote."""
    tokens = tuple(token for event in events for token in event.tokens)
    return Event(events[0].choice, "".join(event.text for event in events), tokens, events[-1].finish)


def counted(usage: Usage) -> dict[str, int]:
    """Numbers of tokens; a token that ends a text is one of them."""
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
    }


def sse(value: Mapping[str, Any]) -> str:
    """A chunk as a server-sent event."""
    return f"data: {json.dumps(value, ensure_ascii=False, allow_nan=False)}\n\n"


def _by_column(tokens: Iterable[Told]) -> dict[str, Any]:
    tokens = list(tokens)
    return {
        "tokens": [token.text for token in tokens],
        "token_logprobs": [token.chosen.logprob for token in tokens],
        "top_logprobs": [dict(token.alternatives) for token in tokens],
        "text_offset": [token.start for token in tokens],
    }


def _by_token(token: Told) -> dict[str, Any]:
    own = _spelled(token.text, token.chosen.logprob)
    return own | {"top_logprobs": [_spelled(text, value) for text, value in token.alternatives]}


def _spelled(text: str, logprob: float | None) -> dict[str, Any]:
    return {"token": text, "logprob": logprob, "bytes": list(text.encode())}
