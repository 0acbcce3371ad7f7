"""Rows that are asked which of their own options is right: where the options and the answer stand, guessed."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pipelines.contracts.prepared import Rejection
from pipelines.intake.labels import Usable, clean, distinct
from pipelines.intake.marked import marked_texts
from pipelines.sources.raw_row import RawRow
from pipelines.tasks.keys.choice import AnswerAs
from pipelines.tasks.keys.template import fill_template, template_fields
from pipelines.tasks.options import LETTERS, NO_ANSWER, OptionReader, right_option
from pipelines.tasks.rows import comparable

MOSTLY = 0.95  # share of the rows for which something must hold
# Names of columns that hold an option each; two sentences that are compared are none.
_NUMBERED = re.compile(
    r"(?P<stem>options?|opt?|choices?|answers?|ans|sol|solution|ending|alternative|candidate|continuation|completion)"
    r"[ _]?(?P<place>[0-9]|[a-h])",
    re.IGNORECASE,
)
_CONTINUED = re.compile(r"ending|continuation|completion", re.IGNORECASE)


@dataclass(frozen=True)
class Place:
    """Where the options of rows stand, and their answer.

    Attributes:
        options: where the options stand.
        answer_column: of the answer.
        answer_as: how the answer says which option is right.
        doubts: what a person should look at.
    """

    options: OptionReader
    answer_column: str
    answer_as: AnswerAs
    doubts: tuple[str, ...] = ()

    def used(self) -> set[str]:
        """The columns of the data that are options, answer, or a text that holds options."""
        whole = () if self.options.split is None else (self.options.split.column,)
        return {*self.options.columns, self.answer_column, *whole}

    def keys(self) -> dict[str, Any]:
        """The keys of params.yaml that say it."""
        split = self.options.split
        return {
            "split": None if split is None else split.model_dump(),
            "option_columns": list(self.options.columns),
            "options": list(self.options.fixed) or None,
            "answer_column": self.answer_column,
            "answer_as": self.answer_as,
        }


@dataclass(frozen=True)
class Shown:
    """A row as the model would be asked it: its prompt, its options and the right one."""

    prompt: str
    options: tuple[str, ...]
    right: str


def find_options(rows: Sequence[RawRow]) -> Place | None:
    """Where rows have options of their own and an answer that is one of them; None where they have none."""
    good = [row for row in rows if row.problem is None]
    if not good:
        return None
    names = list(dict.fromkeys(name for row in good for name in row.values))
    for options in (*_lists(good, names), *_columns(names), *marked_texts(good, names)):
        place = _answered(good, names, options)
        if place is not None:
            return place
    return None


def unused_lists(rows: Sequence[RawRow]) -> tuple[str, ...]:
    """Doubts of a proposal without options: columns that may hold them, or lists that are not written as JSON."""
    good = [row for row in rows if row.problem is None]
    names = list(dict.fromkeys(name for row in good for name in row.values))
    doubts = [
        f"{reader.columns[0]} may hold options (task: choice), and no column was found that says which is right"
        for reader in _lists(good, names)
    ]
    for name in names:
        cells = [str(value) for row in good if _written_list(value := row.values.get(name))]
        if len(cells) > len(good) / 2 and not any(map(_is_json, cells)):
            doubts.append(f"{name} holds lists or objects that are not JSON, and is read as text")
    return tuple(doubts)


def _written_list(value: object) -> bool:
    """Whether a cell is text that is bracketed and quoted as a list or an object of texts."""
    text = value.strip() if isinstance(value, str) else ""
    return text[:1] + text[-1:] in ("[]", "{}") and ('"' in text or "'" in text)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def question_template(place: Place, texts: Sequence[str]) -> str:
    """A template of the columns of text: an ending follows its text, and any other option a question's "Answer:"."""
    if len(texts) == 1 and _CONTINUED.match(place.options.columns[0]):
        return f"{{{texts[0]}}}"
    if len(texts) == 1:
        return f"Question: {{{texts[0]}}}\nAnswer:"
    lines = [f"{name[:1].upper()}{name[1:].replace('_', ' ')}: {{{name}}}" for name in texts]
    return "\n".join([*lines, "Answer:"])


def usable_questions(rows: Sequence[RawRow], place: Place, template: str) -> tuple[Usable, Shown | None, int]:
    """How many rows are left, the first of them as it is asked, and characters of one of the longest, with an option.

    Args:
        rows: as read.
        place: of options and answer.
        template: of the prompt.
    """
    lost: Counter[str] = Counter()
    found: dict[tuple[str, ...], list[str]] = {}
    shown, lengths = None, [0]
    space = "" if template[-1:].isspace() else " "
    for row in rows:
        parts = place.options.parts(row)
        options = parts if isinstance(parts, Rejection) else place.options.read(parts, ())
        if isinstance(parts, Rejection) or isinstance(options, Rejection):
            rejection = parts if isinstance(parts, Rejection) else options
            assert isinstance(rejection, Rejection)
            lost[f"because {rejection.reason}"] += 1
            continue
        texts = {name: clean(parts.values.get(name)) for name in template_fields(template)}
        right = right_option(parts.values.get(place.answer_column), options, place.answer_as)
        key = (
            *(comparable(str(text)) for text in texts.values()),
            *sorted(comparable(option.text) for option in options),
        )
        if None in texts.values():
            lost["have no text"] += 1
        elif right is None:
            lost[f"because {NO_ANSWER}"] += 1
        else:
            found.setdefault(key, []).append(options[right].text)
            prompt = fill_template(template, {name: str(text) for name, text in texts.items()})
            words = tuple(f"{space}{option.text}" for option in options)
            shown = shown or Shown(prompt, words, words[right])
            lengths.append(len(prompt) + max(map(len, words)))
    lengths.sort()
    usable = distinct(found, lost, answer="answer", text="a question")
    return usable, shown, lengths[int(0.99 * (len(lengths) - 1))]


def _lists(rows: Sequence[RawRow], names: Sequence[str]) -> Iterator[OptionReader]:
    """Columns that hold a list of options in each row, also as JSON, which differ by row."""
    for name in names:
        if any(_holds_list(row.values.get(name)) for row in rows):
            reader = OptionReader((name,), (), None)
            found = [reader.read(row, ()) for row in rows]
            lists = [tuple(option.text for option in each) for each in found if not isinstance(each, Rejection)]
            if len(lists) > len(rows) / 2 and len(set(lists)) > len(rows) / 20:
                yield reader


def _holds_list(value: object) -> bool:
    """Whether a cell is a list or an object, or text that is bracketed as one."""
    return isinstance(value, list | dict) or (isinstance(value, str) and value.strip()[:1] in ("[", "{"))


def _columns(names: Sequence[str]) -> Iterator[OptionReader]:
    """Columns whose names differ in a number or a letter alone: sol1 and sol2, answerA to answerC."""
    found: dict[str, list[str]] = {}
    for name in names:
        match = _NUMBERED.fullmatch(name)
        if match:
            kind = "number" if match["place"].isdigit() else "letter"
            found.setdefault(f"{match['stem'].casefold()}/{kind}", []).append(name)
    for columns in found.values():
        places = [column[-1].upper() for column in columns]
        if any("".join(places) == "".join(run)[: len(places)] for run in (LETTERS, "0123456789", "123456789")):
            yield OptionReader(tuple(columns), (), None)


def _answered(rows: Sequence[RawRow], names: Sequence[str], options: OptionReader) -> Place | None:
    """The column that says in nearly every row which of the options is right, and how it says it."""
    parts = [options.parts(row) for row in rows]
    asked = []
    for row in parts:
        found = row if isinstance(row, Rejection) else options.read(row, ())
        if not isinstance(row, Rejection) and not isinstance(found, Rejection):
            asked.append((row, found))
    if len(asked) < len(rows) / 2:
        return None
    order: tuple[AnswerAs, ...] = ("label", "letter", "text", "index", "number")
    assert set(order) == set(get_args(AnswerAs))
    whole = () if options.split is None else (options.split.column,)
    ways: dict[tuple[str, AnswerAs], list[int | None]] = {}
    for name in names:
        if name in options.columns or name in whole:
            continue
        for way in order:
            told = [right_option(row.values.get(name), own, way) for row, own in asked]
            if len(set(told) - {None}) > 1 and _share(told) >= MOSTLY:
                ways[name, way] = told
    if not ways:
        return None
    chosen = max(ways, key=lambda each: _share(ways[each]))  # the first of those that say most
    return Place(options, *chosen, doubts=tuple(_disputes(chosen, ways)))


def _share(told: Sequence[int | None]) -> float:
    return sum(place is not None for place in told) / len(told)


def _disputes(
    chosen: tuple[str, AnswerAs], found: Mapping[tuple[str, AnswerAs], Sequence[int | None]]
) -> Iterator[str]:
    """Other columns, and other ways to read the same one, that name other options in nearly as many rows."""
    for (name, way), told in found.items():
        pairs = [(a, b) for a, b in zip(found[chosen], told, strict=True) if a is not None and b is not None]
        other = sum(a != b for a, b in pairs)
        if not other:
            continue
        if name != chosen[0]:
            yield f"{name} may be the answer as well as {chosen[0]}: they name other options in {other} rows"
        elif {way, chosen[1]} == {"index", "number"}:
            if _share(told) == _share(found[chosen]):  # else rows with a 0, or with the last, have said which it is
                yield f"{name} may count the options from 1, and not from 0"
        else:
            yield f"{name} may be the {chosen[1]} of an option or its {way}: they are other options in {other} rows"
