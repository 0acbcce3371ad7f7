"""Rows of JSON: an object a line, or one array of objects, of which no more is held than the object that is read."""

from __future__ import annotations

import codecs
import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, BinaryIO

from pipelines.errors import PipelineError
from pipelines.sources.content import TextLines
from pipelines.sources.raw_row import LONGEST_ROW, RawRow

CHUNK = 1 << 20  # characters read at once
_BLANK = re.compile(r"[ \t\r\n]*")


def read_json_lines(stream: BinaryIO, name: str) -> Iterator[RawRow]:
    """Yield the object of each line; a line that is none has a problem.

    Raises:
        PipelineError: for a file that is not UTF-8.
    """
    lines = TextLines(stream, name)
    for text in lines:
        if lines.fault:
            yield RawRow(name, lines.number, {}, lines.fault)
        elif text.strip():
            yield _line(text, name, lines.number)
        lines.begin()


def read_json_array(stream: BinaryIO, name: str) -> Iterator[RawRow]:
    """Yield the objects of an array, in which a mistake ends the file: where the next object begins is not known.

    Raises:
        PipelineError: for broken JSON, another value than an array, or bytes that are not UTF-8.
    """
    text = _Text(stream, name)
    if text.next_mark() != "[":
        raise PipelineError(
            f"{name} must hold an array of objects",
            got=f"a JSON {type(text.value()).__name__}",
            do="Put the rows in an array, or set format: jsonl for one object a line.",
        )
    text.skip()
    number, mark = 0, "" if text.next_mark() != "]" else text.skip()
    while mark != "]":
        number += 1
        yield _object(text.value(), name, number)
        mark = text.skip()
        if mark not in (",", "]"):
            raise text.broken("Expecting ',' delimiter")
    if text.next_mark():
        raise text.broken("Extra data")


class _Text:
    """A stream of JSON, held from the value that is read next."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._reader, self._name = codecs.getreader("utf-8-sig")(stream), name
        self._decoder = json.JSONDecoder(object_pairs_hook=once)
        self._held, self._place, self._ended = "", 0, False
        self._line, self._column = 1, 0  # of the first character that is held

    def next_mark(self) -> str:
        """The next character that is not blank, or "" at the end."""
        while True:
            match = _BLANK.match(self._held, self._place)
            self._place = match.end() if match else self._place
            if self._place < len(self._held) or self._ended:
                return self._held[self._place : self._place + 1]
            self._more()

    def skip(self) -> str:
        """Return the next character that is not blank, or "" at the end, and go on behind it."""
        mark = self.next_mark()
        self._place += len(mark)
        return mark

    def value(self) -> Any:
        """Read the value that comes next."""
        self.next_mark()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._held, self._place)
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated string") or error.pos >= len(self._held) - 16
                if len(self._held) - self._place > LONGEST_ROW:
                    raise self.broken(f"a value of more than {LONGEST_ROW} characters, or {error.msg}") from None
                if self._ended or not cut:
                    self._place = error.pos
                    raise self.broken(error.msg) from None
            except (ValueError, RecursionError) as error:
                raise self.broken(str(error)) from None
            else:
                if end < len(self._held) or self._ended:  # at the very end a number may go on
                    self._place = end
                    return value
            self._more()

    def broken(self, what: str) -> PipelineError:
        """The error for what stands at this place."""
        before = self._held[: self._place]
        line = self._line + before.count("\n")
        column = len(before) - before.rfind("\n") if "\n" in before else self._column + len(before) + 1
        return PipelineError(
            f"{self._name} must be readable JSON",
            got=f"{what}: line {line} column {column}",
            do="Correct it there, or prepare.format.",
        )

    def _more(self) -> None:
        done = self._held[: self._place]
        self._line += done.count("\n")
        self._column = len(done) - done.rfind("\n") - 1 if "\n" in done else self._column + len(done)
        held = self._held[self._place :]
        try:
            more = self._reader.read(size=CHUNK, chars=max(CHUNK, len(held)))
        except UnicodeDecodeError as error:
            raise PipelineError(
                f"{self._name} must be UTF-8 text", got=error, do="Convert the file to UTF-8."
            ) from None
        self._held, self._place, self._ended = held + more, 0, not more


def _line(text: str, name: str, number: int) -> RawRow:
    try:
        return _object(json.loads(text, object_pairs_hook=once), name, number)
    except json.JSONDecodeError as error:
        return RawRow(name, number, {}, f"no JSON: {error.msg}, character {error.pos + 1}")
    except (ValueError, RecursionError) as error:
        return RawRow(name, number, {}, f"no JSON: {error}")


def _object(value: Any, name: str, number: int) -> RawRow:
    if isinstance(value, dict):
        return RawRow(name, number, value)
    return RawRow(name, number, {}, f"a JSON {type(value).__name__}, not an object")


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object whose names stand in it once; json's own way keeps the last value of several without a word.

    Raises:
        ValueError: for a name that comes again.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"the name {twice!r} stands in it twice")
    return found
