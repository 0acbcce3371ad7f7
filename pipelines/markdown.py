"""Markdown in which values are values: no sign of a label, an address or an error is a mark, a link or a new cell."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

# Signs that mean something wherever they stand; of an underline, those that do not stand within a word.
_SIGNS = re.compile(r"[\\`*\[\]<>|~&@]|(?<![^\W_])_|_(?![^\W_])")
_LINK = re.compile(r"(?i)(?<=\w):(?=//)|(?<=www)\.|(?<=mailto):|(?<=xmpp):")  # what readers make links of by themselves
_BEGINNING = re.compile(r"^(\d*)([#+\-=.)])(?=[#+\-=]*(?:\s|$))")  # of a line: a heading, an item of a list, a rule


def text(value: object) -> str:
    """A value as one line of text that reads as it is."""
    plain = " ".join(str(value).split())
    escaped = _LINK.sub(r"\\\g<0>", _SIGNS.sub(r"\\\g<0>", plain))
    return _BEGINNING.sub(r"\1\\\2", escaped)


def code(value: object) -> str:
    """A value as one line of code, fenced by more backticks than it holds; not for a table, where | ends a cell."""
    plain = " ".join(str(value).split())
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", plain)), default=0))
    space = " " if plain.startswith("`") or plain.endswith("`") or not plain else ""
    return f"{fence}{space}{plain}{space}{fence}"


def block(value: str, language: str) -> str:
    """A text of several lines as a block of code."""
    longest = max((len(run) for run in re.findall("`+", value)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{value}\n{fence}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[int] = ()) -> list[str]:
    """The lines of a table of cells that are Markdown already; ``right`` are the columns of figures."""
    figures = set(right)
    rule = ["---:" if column in figures else "---" for column in range(len(header))]
    return ["| " + " | ".join(line) + " |" for line in (header, rule, *rows)]
