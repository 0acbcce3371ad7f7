"""The one error that a user's mistake raises."""

from __future__ import annotations

import re

LONGEST = 1000  # characters of a value in a message
# Control characters but tab and newline, marks that turn the writing direction, and halves of a surrogate pair: a
# terminal would act on them, and UTF-8 cannot hold the last.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class PipelineError(Exception):
    """Bad input: the message says the rule, then the value that broke it, then what to do.

    The command line prints it without a traceback and exits with 2.
    """

    def __init__(self, rule: str, *, got: object = None, do: str = "") -> None:
        self.rule, self.got, self.do = rule, got, do
        parts = [rule if rule.endswith(("?", "!")) else rule.rstrip(".") + "."]
        if got is not None:
            parts.append(f"Got: {_short(str(got)).rstrip('.')}.")
        if do:
            parts.append(do)
        super().__init__(printable(" ".join(parts)))


def printable(text: str) -> str:
    """Return a text from a user's file in a form that can be printed and written: what cannot be is escaped."""
    return _UNPRINTABLE.sub(lambda match: match.group().encode("unicode_escape").decode(), text)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
