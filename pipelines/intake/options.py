"""Rows that are asked which of their own options is right: where the options and the answer stand, guessed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

from pipelines.contracts.prepared import Rejection
from pipelines.intake.labels import Usable, clean, distinct
from pipelines.sources.raw_row import RawRow
from pipelines.tasks.keys.choice import AnswerAs, SplitParams
from pipelines.tasks.keys.template import fill_template, template_fields
from pipelines.tasks.options import LETTERS, NO_ANSWER, OptionReader, right_option, searched
from pipelines.tasks.rows import comparable

MOSTLY = 0.95  # share of the rows for which something must hold
# Names of columns that hold an option each; two sentences that are compared are none.
_NUMBERED = re.compile(
    r"(?P<stem>options?|opt?|choices?|answers?|ans|sol|solution|ending|alternative|candidate|continuation|completion)"
    r"[ _]?(?P<place>[0-9]|[a-h])",
    re.IGNORECASE,
)
_NAMED = re.compile(r"(?P<stem>[A-Za-z]+)(?P<place>[1-9])")
_CONTINUED = re.compile(r"ending|continuation|completion", re.IGNORECASE)
# How a text marks an option by its letter: A ) this, A) this, (A) this, A. this, A: this.
_LETTERED = (r"{} \)", r"{}\)", r"\({}\)", r"{}\.", r"{}:")


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
    for options in (*_lists(good, names), *_columns(names), *_texts(good, names)):
        place = _answered(good, names, options)
        if place is not None:
            return place
    return None


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
    """Columns that hold a list of options in each row, which differ by row."""
    for name in names:
        if any(isinstance(row.values.get(name), list | dict) for row in rows):
            reader = OptionReader((name,), (), None)
            found = [reader.read(row, ()) for row in rows]
            lists = [tuple(option.text for option in each) for each in found if not isinstance(each, Rejection)]
            if len(lists) > len(rows) / 2 and len(set(lists)) > len(rows) / 20:
                yield reader


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


def _texts(rows: Sequence[RawRow], names: Sequence[str]) -> Iterator[OptionReader]:
    """Texts that hold question and options, each behind a mark that the answers are named by."""
    for answer in names:
        values = {str(row.values.get(answer)).strip() for row in rows}
        marks = _marks(values)
        for column in names if marks else ():
            texts = [str(row.values.get(column)) for row in rows]
            for style, stem in marks:
                found = [style.format(letter) for letter in LETTERS[:8]] if stem is None else style.split("\n")
                split = _split(column, texts, found, stem)
                if split is not None:
                    columns = tuple(name for name in split.columns() if name != "question")
                    yield OptionReader(columns, (), split)


def _marks(values: set[str]) -> list[tuple[str, str | None]]:
    """How texts may mark the options that such answers name: by a word and a number, or by letters in some way."""
    named = [_NAMED.fullmatch(value) for value in values]
    stems = {match["stem"].casefold() for match in named if match}
    if len(values) > 1 and all(named) and len(stems) == 1:
        stem = stems.pop()
        return [("\n".join(rf"(?i:{stem}) ?{place}:" for place in range(1, 9)), stem)]
    if len(values) > 1 and values <= set(LETTERS[:8]):
        return [(style, None) for style in _LETTERED]
    return []


def _split(column: str, texts: Sequence[str], marks: Sequence[str], stem: str | None) -> SplitParams | None:
    """A pattern that nearly all of the texts have, with a part for the question and one for each option."""
    counts = [sum(bool(re.search(mark, text)) for mark in marks) for text in texts]
    most, fewest = max(counts), min((count for count in counts if count), default=0)
    if fewest < 2:
        return None
    names = [f"{stem or 'option'}{place + 1 if stem else '_' + LETTERS[place].lower()}" for place in range(most)]
    between = r"\s+" if stem else r"\s*,?\s*"
    parts = [rf"{between}{mark}\s*(?P<{name}>.*?)" for mark, name in zip(marks, names, strict=False)]
    later = "".join(f"(?:{part})?" for part in parts[fewest:])
    beginning = re.escape(_beginning(texts)).replace(r"\ ", " ")
    end = r"\s*(?:Answer format:.*)?$" if stem else r"\s*$"
    listed = "" if stem else r"(?:\s+(?:The )?[Oo]ptions:)?"
    pattern = f"(?s)^{beginning}(?P<question>.*?){listed}{''.join(parts[:fewest])}{later}{end}"
    split = SplitParams(column=column, pattern=pattern)
    try:
        hits = sum(searched(split, text) is not None for text in texts)
    except TimeoutError:  # stage prepare would search no longer
        return None
    return split if hits >= MOSTLY * len(texts) else None


def _beginning(texts: Sequence[str]) -> str:
    """What all texts begin with, up to a colon: an instruction that is the same for every row."""
    shared = texts[0]
    for text in texts:
        while not text.startswith(shared):
            shared = shared[:-1]
    return shared[: shared.rfind(": ") + 2] if ": " in shared else ""


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
    shares: dict[tuple[str, AnswerAs], float] = {}
    whole = () if options.split is None else (options.split.column,)
    for name in names:
        if name in options.columns or name in whole:
            continue
        for way in order:
            told = [right_option(row.values.get(name), own, way) for row, own in asked]
            if len(set(told) - {None}) > 1:
                shares[name, way] = sum(place is not None for place in told) / len(asked)
    best = max(shares.values(), default=0.0)
    if best < MOSTLY:
        return None
    (name, way), *others = [each for each, share in shares.items() if share == best]
    place = Place(options, name, way)
    if way == "index" and (name, "number") in others:
        return replace(place, doubts=(f"{name} may count the options from 1, and not from 0",))
    return place
