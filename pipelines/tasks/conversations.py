"""Conversations: a column of turns, as TRL (``messages``) and LLaMA-Factory (``conversations``) have them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipelines.contracts.prepared import Rejection
from pipelines.sources.raw_row import RawRow
from pipelines.tasks.reader import CONTROL, CONTROLS, reject

NO_TURNS = "a conversation is no list of turns with role and content, or from and value"
ROLE = "a turn is of a role that is not known"
TOOL = "a turn calls a tool, or is a tool's"
NOT_TEXT = "a turn is not text"
EMPTY = "a turn is empty"
TWICE = "two turns of the assistant follow each other"
UNANSWERED = "a conversation has no answer to a user"
UNASKED = "a conversation asks nothing: it has no user's turn"
LONG = "a conversation is longer than max_tokens can be"

ANSWER = "the assistant's turn"
"""The column that a row of one answer has for it, beside the turns before it."""

CHARACTERS = 64  # that a token has at most, on the safe side: what has more of them to a token is not even rendered

_ROLES = {
    "system": "system", "developer": "system", "user": "user", "human": "user", "assistant": "assistant",
    "gpt": "assistant",
}  # fmt: skip
_TOOLS = {"tool", "function", "function_call", "function_response", "observation", "ipython"}

Turn = dict[str, str]
"""``role``, one of system, user and assistant, and ``content``, as chat templates read them."""


def answered(raw: RawRow, column: str, max_tokens: int) -> Iterator[RawRow | Rejection]:
    """Yield a row for each answer of a conversation: the turns before it, and the answer in :data:`ANSWER`.

    What the assistant says before the first user's turn is no answer. A row stands at the line of its conversation,
    and its file says which turn it is.

    Args:
        raw: with the column, or unreadable.
        column: of the turns.
        max_tokens: of a row, which bounds what is read of a conversation without end.
    """
    if raw.problem is not None or column not in raw.values:
        yield raw
        return
    turns = read_turns(raw, column)
    if isinstance(turns, Rejection):
        yield turns
        return
    asked, characters, found = False, 0, 0
    for place, turn in enumerate(turns):
        if turn["role"] == "assistant" and asked:
            found += 1
            name = f"{raw.file} (turn {place + 1})"
            if place > max_tokens or characters > CHARACTERS * max_tokens:  # a turn is a token at least
                yield Rejection(name, raw.line, LONG, f"{place} turns of {characters} characters")
            else:
                yield RawRow(name, raw.line, {**raw.values, column: turns[:place], ANSWER: turn["content"]})
        asked = asked or turn["role"] == "user"
        characters += len(turn["content"])
    if not found:
        yield reject(raw, UNANSWERED, f"{len(turns)} turns")


def asked(raw: RawRow, column: str) -> RawRow | Rejection:
    """The row with its turns as text that :func:`turns_of` reads; an answer at the end, which is asked for, is cut."""
    if raw.problem is not None or column not in raw.values:
        return raw
    turns = read_turns(raw, column)
    if isinstance(turns, Rejection):
        return turns
    if turns[-1]["role"] == "assistant":
        turns = turns[:-1]
    if all(turn["role"] != "user" for turn in turns):
        return reject(raw, UNASKED, f"{len(turns)} turns")
    return RawRow(raw.file, raw.line, {**raw.values, column: json.dumps(turns, ensure_ascii=False)})


def turns_of(text: str) -> list[Turn]:
    """The turns that :func:`asked` wrote."""
    turns: list[Turn] = json.loads(text)
    return turns


def beginning(turns: Sequence[Turn]) -> str:
    """What a conversation begins with, up to its first user's turn; those that begin alike are in one split."""
    first = next(place for place, turn in enumerate(turns) if turn["role"] == "user")
    return "\x1f".join(turn["content"] for turn in turns[: first + 1])


def read_turns(raw: RawRow, column: str) -> list[Turn] | Rejection:
    """The turns of a row, of known roles and with text, or why it cannot be used."""
    listed = _listed(raw.values[column])
    if not listed:
        return reject(raw, NO_TURNS, raw.values[column])
    turns: list[Turn] = []
    for place, each in enumerate(listed, start=1):
        turn = _turn(each)
        if isinstance(turn, str):
            return reject(raw, turn, f"turn {place}: {each}")
        if turns and turns[-1]["role"] == turn["role"] == "assistant":
            return reject(raw, TWICE, f"turns {place - 1} and {place}")
        turns.append(turn)
    return turns


def _turn(value: object) -> Turn | str:
    """A turn, or the reason why it is none."""
    if not isinstance(value, Mapping):
        return NO_TURNS
    names = ("role", "content") if "role" in value else ("from", "value")
    role, content = value.get(names[0]), _text(value.get(names[1]))
    if not isinstance(role, str):
        return NO_TURNS
    if role.casefold() in _TOOLS or _calls(value.get("tool_calls")):
        return TOOL
    if role.casefold() not in _ROLES:
        return ROLE
    if content is None:
        return EMPTY if value.get(names[1]) is None else NOT_TEXT
    if not content.strip():
        return EMPTY
    if CONTROLS.search(content):  # here, since the turns as one text write them otherwise
        return CONTROL
    return {"role": _ROLES[role.casefold()], "content": content.strip()}


def _calls(value: Any) -> bool:
    """Whether there are calls of tools: something other than an empty list, in whatever form a file has it."""
    listed = _listed(value)
    return bool(value) if listed is None else bool(listed)


def _text(value: Any) -> str | None:
    """A content's text; None of what is none, or has parts that are not text."""
    parts = _listed(value) if not isinstance(value, str) else None
    if parts is None:
        return value if isinstance(value, str) else None
    if all(isinstance(part, Mapping) and part.get("type") == "text" for part in parts):
        texts = [part.get("text") for part in parts]
        return "".join(texts) if all(isinstance(text, str) for text in texts) else None
    return None


def _listed(value: Any) -> list[Any] | None:
    """A list; also as JSON, and as an array, as frames and parquet have it."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    value = value.tolist() if hasattr(value, "tolist") else value
    return list(value) if isinstance(value, list | tuple) else None
