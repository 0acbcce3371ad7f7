"""The options of a row, in the ways that data sets have them, and which of them its answer means."""

from __future__ import annotations

import json
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import regex

from pipelines.contracts.prepared import Rejection
from pipelines.sources.raw_row import RawRow
from pipelines.tasks.keys.choice import AnswerAs, SplitParams
from pipelines.tasks.reader import MISSING, present, reject, usable_text
from pipelines.tasks.readers import SECONDS
from pipelines.tasks.rows import as_number, comparable

NO_PARTS = "the text has not the parts that split.pattern names"
TOO_SLOW = "split.pattern takes more than a second to search the text"
NO_LIST = "options are no list of texts"
FEW = "a row has fewer than two options"
MANY = "a row has more options than letters"
SAME = "two options are the same"
NO_ANSWER = "the answer is none of the row's options"

LETTERS = string.ascii_uppercase
_LETTER = re.compile(r"\(?([a-z])\s?[).:]?")  # alone, as an answer
# "A) this", "(A) this", "A. this": marks that a list's texts may begin with, each with the letter of its own place.
_MARKED = re.compile(r"\(?([A-Za-z])\s?[).:]\s*(?=\S)")


@dataclass(frozen=True)
class Option:
    """An option of a row.

    Attributes:
        text: what it says.
        place: in the data, from 0; an empty column before it counts, though it is no option.
        name: what the data calls it, "" where it has no name.
    """

    text: str
    place: int
    name: str = ""


@dataclass(frozen=True)
class OptionReader:
    """Where the options of a row stand.

    Attributes:
        columns: one that holds a list, or several that hold an option each.
        fixed: the options of every row, where it is the same; empty otherwise.
        split: the text that holds question and options, if one does.
    """

    columns: tuple[str, ...]
    fixed: tuple[str, ...]
    split: SplitParams | None

    @property
    def optional(self) -> tuple[str, ...]:
        """The columns that a row may lack: where each holds an option, those after the second."""
        return self.columns[2:]

    def parts(self, raw: RawRow) -> RawRow | Rejection:
        """The row with a column for each part of its text that the pattern names, as far as it has the text."""
        split = self.split
        if split is None or raw.problem is not None or split.column not in raw.values:
            return raw
        text = raw.values[split.column]
        try:
            found = searched(split, text) if isinstance(text, str) else None
        except TimeoutError:
            return reject(raw, TOO_SLOW, text)
        if found is None:
            return reject(raw, NO_PARTS, text)
        return RawRow(raw.file, raw.line, {**raw.values, **found})

    def read(self, raw: RawRow, special: tuple[str, ...]) -> list[Option] | Rejection:
        """The options of a row, or why it cannot be asked to choose among them.

        Args:
            raw: with its parts.
            special: tokens that no option may hold.
        """
        options = self._options(raw)
        if isinstance(options, Rejection):
            return options
        for option in options:
            text = usable_text(RawRow(raw.file, raw.line, {"option": option.text}), "option", special)
            if isinstance(text, Rejection):
                return text
        if not 2 <= len(options) <= len(LETTERS):
            return reject(raw, FEW if len(options) < 2 else MANY, len(options))
        texts = [option.text for option in options]
        if len(set(texts)) < len(texts):
            return reject(raw, SAME, max(texts, key=texts.count))
        return options

    def _options(self, raw: RawRow) -> list[Option] | Rejection:
        if self.fixed:
            return [Option(text, place) for place, text in enumerate(self.fixed)]
        missing = [column for column in self.columns if column not in raw.values and column not in self.optional]
        if missing:
            return reject(raw, MISSING, ", ".join(missing))
        if len(self.columns) == 1:
            listed = _listed(raw.values[self.columns[0]])
            return reject(raw, NO_LIST, raw.values[self.columns[0]]) if listed is None else listed
        cells = [(column, present(raw.values.get(column))) for column in self.columns]
        if any(not isinstance(value, str | int | float | None) for _, value in cells):
            return reject(raw, NO_LIST, raw.values)
        texts = [(column, "" if value is None else str(value).strip()) for column, value in cells]
        return [Option(text, place, column) for place, (column, text) in enumerate(texts) if text]


def searched(split: SplitParams, text: str) -> dict[str, str | None] | None:
    """The parts of a text by the names of the pattern's groups, None where it has not those parts.

    Raises:
        TimeoutError: if the search takes longer than :data:`SECONDS`: a pattern may take for ever on a text.
    """
    found = regex.search(split.pattern, text, timeout=SECONDS)
    return None if found is None else found.groupdict()


def lettered(options: Sequence[Option]) -> str:
    """The options as a prompt lists them, a line each."""
    return "\n".join(f"{letter}. {option.text}" for letter, option in zip(LETTERS, options, strict=False))


def right_option(value: object, options: Sequence[Option], answer_as: AnswerAs) -> int | None:
    """Which of the options a row's answer means, or None; also where it means a column that is empty.

    Args:
        value: of the answer's column.
        options: of the row.
        answer_as: its place in the data from 0 (``index``; false is 0, true 1) or from 1 (``number``), that place as a
            ``letter``, the ``label`` that the data has beside it or its column's name, or its ``text``. A
            letter may stand in its mark, as "(B)", and before the text, as "B. this".
    """
    if not isinstance(value, str | int | float):
        return None
    text = comparable(str(value))
    match answer_as:
        case "index" | "number":
            place = float(value) if isinstance(value, bool) else as_number(value)
            first = 1 if answer_as == "number" else 0
            found = [number for number, option in enumerate(options) if place == option.place + first]
        case "letter":
            mark = _LETTER.fullmatch(text)
            places = [place for place, letter in enumerate(LETTERS) if mark and mark[1] == letter.casefold()]
            found = [number for number, option in enumerate(options) if option.place in places]
        case "label":
            found = [number for number, option in enumerate(options) if option.name and comparable(option.name) == text]
        case "text":
            texts = [comparable(option.text) for option in options]
            marked = [
                (LETTERS[own.place : own.place + 1].casefold(), each) for own, each in zip(options, texts, strict=True)
            ]
            mark = _MARKED.match(text)
            own = (mark[1], text[mark.end() :]) if mark else None
            found = [number for number, each in enumerate(texts) if each == text] or [
                number for number, each in enumerate(marked) if each == own
            ]
    return found[0] if len(found) == 1 else None


def _listed(value: object) -> list[Option] | None:
    """The options of one cell: texts, objects of text and label, or an object of two lists; also as JSON."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    value = _plain(value)
    if isinstance(value, Mapping):
        texts, labels = _plain(value.get("text")), _plain(value.get("label"))
        if not _texts(texts) or (labels is not None and not (_texts(labels) and len(labels) == len(texts))):
            return None
        return _named(texts, labels or [""] * len(texts))
    if not isinstance(value, list | tuple):
        return None
    if value and all(isinstance(each, Mapping) for each in value):
        texts, labels = [each.get("text") for each in value], [each.get("label", "") for each in value]
        return _named(texts, labels) if _texts(texts) else None
    return _unmarked([str(text).strip() for text in value]) if _texts(value) else None


def _named(texts: Sequence[object], labels: Sequence[object]) -> list[Option]:
    pairs = zip(texts, labels, strict=True)
    return [Option(str(text).strip(), place, str(label)) for place, (text, label) in enumerate(pairs)]


def _unmarked(texts: Sequence[str]) -> list[Option]:
    """Options whose texts may begin with their letters: these are what the data calls them, and no part of the text."""
    marks = [_MARKED.match(text) for text in texts]
    if all(mark and mark[1].upper() == letter for mark, letter in zip(marks, LETTERS, strict=False)):
        bare = [text[mark.end() :] for text, mark in zip(texts, marks, strict=True) if mark]
        return _named(bare, [mark[1] for mark in marks if mark])
    return _named(texts, [""] * len(texts))


def _plain(value: Any) -> Any:
    """A list for an array, as frames and parquet have them."""
    return value.tolist() if hasattr(value, "tolist") else value


def _texts(values: Any) -> bool:
    return isinstance(values, list | tuple) and all(isinstance(each, str | int | float) for each in values)
