"""What a server sends as a chat completion, read field by field: of another shape, it is a reply without a verdict."""

from __future__ import annotations

from pipelines.judge.question import Reply


def read_completion(said: object) -> tuple[Reply, tuple[int, int] | None]:
    """The reply, and the tokens read and written as the server counts them; None where it does not.

    Args:
        said: a completion as OpenAI's client makes it, which checks no field that a server sends.

    Raises:
        ValueError: for what has no choices, which is no completion.
    """
    choices = getattr(said, "choices", None)
    if not isinstance(choices, list) or not choices:
        raise ValueError("a reply without choices")
    message = getattr(choices[0], "message", None)
    text, refusal = (_text(getattr(message, name, None)) for name in ("content", "refusal"))
    finish = _text(getattr(choices[0], "finish_reason", None))
    usage = getattr(said, "usage", None)
    read, written = (_count(getattr(usage, name, None)) for name in ("prompt_tokens", "completion_tokens"))
    return Reply(text, finish, refusal), None if read is None or written is None else (read, written)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _count(value: object) -> int | None:
    return value if type(value) is int and value >= 0 else None
