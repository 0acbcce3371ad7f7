"""Conversations: a column of turns, as TRL (``messages``) and LLaMA-Factory (``conversations``) have them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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
UNLEARNED = "every answer of a conversation has weight 0"
WEIGHT = "the weight of an assistant's turn is neither 0 nor 1"
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


@dataclass(frozen=True)
class _Said:
    """A turn, its place in the conversation from 1, and the ``weight`` beside it, as OpenAI's format has it."""

    place: int
    turn: Turn
    weight: Any


def answered(raw: RawRow, column: str, max_tokens: int) -> Iterator[RawRow | Rejection]:
    """Yield a row for each answer of a conversation: the turns before it, and the answer in :data:`ANSWER`.

    What the assistant says before the first user's turn is no answer, and a turn of weight 0 none that is trained on.
    A row stands at the line of its conversation, and its file says which turn it is.

    Args:
        raw: with the column, or unreadable.
        column: of the turns.
        max_tokens: of a row, which bounds what is read of a conversation without end.
    """
    if raw.problem is not None or column not in raw.values:
        yield raw
        return
    every = _read(raw, column)
    if isinstance(every, Rejection):
        yield every
        return
    turns = [each.turn for each in every]
    asked, characters, found, left_out = False, 0, 0, 0
    for place, (said, turn) in enumerate(zip(every, turns, strict=True)):
        if turn["role"] == "assistant" and asked:
            found += 1
            name = f"{raw.file} (turn {said.place})"
            if said.weight not in (None, 0, 1):
                yield Rejection(name, raw.line, WEIGHT, str(said.weight))
            elif said.weight == 0:
                left_out += 1
            elif place > max_tokens or characters > CHARACTERS * max_tokens:  # a turn is a token at least
                yield Rejection(name, raw.line, LONG, f"{place} turns of {characters} characters")
            else:
                yield RawRow(name, raw.line, {**raw.values, column: turns[:place], ANSWER: turn["content"]})
        asked = asked or turn["role"] == "user"
        characters += len(turn["content"])
    if not found:
        yield reject(raw, UNANSWERED, f"{len(turns)} turns")
    elif found == left_out:
        yield reject(raw, UNLEARNED, f"{found} of them")


def asked(raw: RawRow, column: str) -> RawRow | Rejection:
    """The row with its turns as text that :func:`turns_of` reads; an answer at the end, asked for, is cut unread."""
    if raw.problem is not None or column not in raw.values:
        return raw
    every = _read(raw, column, asks=True)
    if isinstance(every, Rejection):
        return every
    turns = [each.turn for each in every]
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
    every = _read(raw, column)
    return every if isinstance(every, Rejection) else [each.turn for each in every]


def _read(raw: RawRow, column: str, *, asks: bool = False) -> list[_Said] | Rejection:
    """The turns of a row without a system's that are empty, and if it ``asks`` without an answer at the end."""
    listed = _listed(raw.values[column])
    if not listed:
        return reject(raw, NO_TURNS, raw.values[column])
    there = [(place, each) for place, each in enumerate(listed, start=1) if not _says_nothing(each)]
    if asks and there and _role(there[-1][1]) == "assistant":
        *there, (last, _) = there
        if there and _role(there[-1][1]) == "assistant":
            return reject(raw, TWICE, f"turns {there[-1][0]} and {last}")
    turns: list[_Said] = []
    for place, each in there:
        turn = _turn(each)
        if isinstance(turn, str):
            return reject(raw, turn, f"turn {place}: {each}")
        if turns and turns[-1].turn["role"] == turn["role"] == "assistant":
            return reject(raw, TWICE, f"turns {turns[-1].place} and {place}")
        turns.append(_Said(place, turn, each.get("weight")))
    return turns


def _says_nothing(value: object) -> bool:
    """Whether a turn is a system's that is empty, which writers of conversations have for none."""
    if _role(value) != "system" or not isinstance(value, Mapping):
        return False
    content = value.get("content" if "role" in value else "value")
    text = "" if content is None else _text(content)
    return text is not None and not text.strip()


def _role(value: object) -> str | None:
    """The role of a turn that has a known one, whatever else it holds."""
    role = value.get("role" if "role" in value else "from") if isinstance(value, Mapping) else None
    return _ROLES.get(role.casefold()) if isinstance(role, str) else None


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
