"""Rows whose answer is free: which column holds the reference, and how it is read and measured, guessed."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.contracts.prepared import Rejection
from pipelines.intake.columns import (
    LABEL_TITLES,
    MOSTLY,
    Column,
    columns_of,
    is_choice,
    prompt_template,
    text_columns,
    title_rank,
)
from pipelines.intake.labels import Scalar, Usable, clean, distinct
from pipelines.sources.raw_row import RawRow
from pipelines.tasks.conversations import ANSWER, NO_TURNS, ROLE, answered, asked, read_turns, turns_of
from pipelines.tasks.keys.generation import EXACT_MATCH
from pipelines.tasks.keys.template import fill_template, template_fields
from pipelines.tasks.readers import Number, Reader, open_reader, right_answer
from pipelines.tasks.rows import as_number, comparable

# What columns of references are called, the likeliest first; and those of texts that may end in the answer.
TITLES = (
    *("answer", "ans", "output", "response", "completion", "target", "reference", "summary", "highlights"),
    *("translation", "reply", "solution"),
)
SOLUTIONS = ("output", "solution", "rationale", "explanation", "reasoning", "response", "completion", "cot")
CONVERSATIONS = ("messages", "conversations", "conversation", "turns")
BESIDE = ("system", "tools")  # what LLaMA-Factory's rows may have beside their turns
SHORT = 5  # words of a reference that an answer may be, word by word
OVERLAP = "chrf"  # measures longer ones, in any language
SHORT_TEXT = 16  # characters of which each may be a token, as digits are
WORKED_CHARACTERS = 2  # to a token of longer ones, on the low side: worked answers are half digits and signs
LONGEST_ANSWER = 512  # tokens of an answer that is asked for; more is for the user to ask for
_ENDED = re.compile(r"####\s*-?[\d.,]+\s*$")  # as GSM8K's worked answers end
_UNBOUNDED = 1 << 20  # tokens of a row, which are not known here


@dataclass(frozen=True)
class References:
    """Where prompts and references stand.

    Attributes:
        template: of the prompt.
        answer_column: of the reference; None: the answers are turns of conversations.
        solution_column: of the text that is trained on, if it is another.
        reader: that finds the answer.
        measure: of the answers.
        doubts: what a person should look at.
    """

    template: str
    answer_column: str | None
    solution_column: str | None
    reader: dict[str, str]
    measure: str
    doubts: tuple[str, ...] = ()

    def keys(self, longest: int) -> dict[str, Any]:
        """The keys of params.yaml that say it, with answers of about so many characters at most."""
        conversations = {"chat": True} if self.answer_column is None else {}
        return {
            "task": "generation",
            "template": self.template,
            **conversations,
            "answer_column": self.answer_column,
            "solution_column": self.solution_column,
            "max_new_tokens": answer_bound(longest),
            "reader": self.reader,
            "measure": self.measure,
        }

    @property
    def one_answer(self) -> bool:
        """Whether stage prepare takes rows that give a text two answers for contradictory ones."""
        return self.measure == EXACT_MATCH and self.answer_column is not None and self.solution_column is None


@dataclass(frozen=True)
class Told:
    """A row as the model would read it, and what it is trained to answer."""

    prompt: str
    answer: str


def find_references(rows: Sequence[RawRow]) -> References | None:
    """Where rows have free answers; None where one of their columns is named like a label, or none like a reference."""
    conversations = _conversations(rows)
    if conversations is not None:
        return conversations
    columns, _ = columns_of(rows)
    if any(is_choice(c) and title_rank(c.name) < len(LABEL_TITLES) for c in columns):
        return None
    answer = min((c for c in columns if _rank(c, TITLES) < len(TITLES)), key=lambda c: _rank(c, TITLES), default=None)
    if answer is None or is_choice(answer) or len(answer.distinct) < 2:
        return None
    reader, measure = _reading(answer)
    solution = _solution(columns, answer, open_reader(reader)) if reader["name"] == "number" else None
    others = [c for c in columns if c is not answer and c is not solution and not _gives_away(c, answer)]
    texts = [c.name for c in text_columns(others, None)]
    return References(
        template=prompt_template(texts, answer.name),
        answer_column=answer.name,
        solution_column=None if solution is None else solution.name,
        reader=reader,
        measure=measure,
        doubts=(*_number_doubts(answer), *_empty_doubts(rows, [*texts, answer.name])),
    )


def usable_references(rows: Sequence[RawRow], found: References) -> tuple[Usable, Told | None, tuple[int, int]]:
    """How many rows are left, the first of them, and characters of one of the longest prompts and answers."""
    lost: Counter[str] = Counter()
    texts: dict[str, list[str]] = {}
    shown, lengths = None, [(0, 0)]
    for row in rows:
        for told in _told(row, found):
            if isinstance(told, str):
                lost[told] += 1
            else:
                texts.setdefault(comparable(told.prompt), []).append(told.answer)
                shown = shown or told
                lengths.append((len(told.prompt), len(told.answer)))
    place = int(0.99 * (len(lengths) - 1))
    longest = sorted(prompt for prompt, _ in lengths)[place], sorted(answer for _, answer in lengths)[place]
    return distinct(texts, lost, answer="answer", one_answer=found.one_answer), shown, longest


def answer_bound(characters: int) -> int:
    """About how many tokens an answer has at most, as a bound that leaves room: a multiple of 8, or of 64."""
    tokens = max(min(characters, SHORT_TEXT), math.ceil(characters / WORKED_CHARACTERS))
    step = 8 if tokens <= 64 else 64
    return min(step * math.ceil(tokens / step), LONGEST_ANSWER)


def _told(row: RawRow, found: References) -> list[Told | str]:
    """A row's prompts and answers, or why it has none."""
    if row.problem is not None:
        return ["cannot be read"]
    if found.answer_column is None:
        return _turns(row, template_fields(found.template)[0])
    texts = {name: clean(row.values.get(name)) for name in template_fields(found.template)}
    reference = clean(row.values.get(found.answer_column))
    solution = reference if found.solution_column is None else clean(row.values.get(found.solution_column))
    if None in texts.values():
        return ["have no text"]
    reader = open_reader(found.reader)
    if reference is None or solution is None:
        return ["have no answer that can be read"]
    if right_answer(reader, str(reference), None if found.solution_column is None else str(solution)) is None:
        return ["have no answer that can be read"]
    space = "" if found.template[-1:].isspace() else " "
    prompt = fill_template(found.template, {name: str(text) for name, text in texts.items()})
    return [Told(prompt, f"{space}{solution}")]


def _turns(row: RawRow, column: str) -> list[Told | str]:
    told: list[Told | str] = []
    for each in answered(row, column, _UNBOUNDED):
        before = each if isinstance(each, Rejection) else asked(each, column)
        if isinstance(before, Rejection):
            told.append(f"because {before.reason}")
        else:
            turns = turns_of(str(before.values[column]))
            said = "\n".join(f"{turn['role']}: {turn['content']}" for turn in turns)
            told.append(Told(f"{said}\nassistant:", f" {before.values[ANSWER]}"))
    return told


def _conversations(rows: Sequence[RawRow]) -> References | None:
    """A column of conversations, in most rows; what cannot be learned of them is told when they are read."""
    good = [row for row in rows if row.problem is None]
    names = dict.fromkeys(name for row in good for name in row.values)
    for name in sorted(names, key=lambda name: name not in CONVERSATIONS):
        held = [row for row in good if row.values.get(name) is not None]
        if len(held) > len(good) / 2 and all(isinstance(row.values[name], list | str) for row in held):
            other = {NO_TURNS} if name in CONVERSATIONS else {NO_TURNS, ROLE}  # as of a list of characters
            found = [read_turns(row, name) for row in held]
            turns = sum(not isinstance(each, Rejection) or each.reason not in other for each in found)
            if turns > len(held) / 2:
                beside = [column for column in BESIDE if any(clean(row.values.get(column)) for row in good)]
                doubts = tuple(f"{column} is a column beside the turns, and is not read" for column in beside)
                return References(f"{{{name}}}", None, None, {"name": "exact"}, OVERLAP, doubts)
    return None


def _rank(column: Column, titles: Sequence[str]) -> int:
    words = re.split(r"[^a-z]+", column.name.lower())
    return next((rank for rank, title in enumerate(titles) if title in words), len(titles))


def _reading(answer: Column) -> tuple[dict[str, str], str]:
    """The reader of most references, and a measure of what it reads."""
    texts = [str(value) for value in answer.present]
    if _share(_is_number(text) and Number().reference(text) is not None for text in texts) >= MOSTLY:
        return {"name": "number"}, EXACT_MATCH
    if _share("\\boxed{" in text for text in texts) >= MOSTLY:
        return {"name": "math"}, EXACT_MATCH
    short = sorted(len(text.split()) for text in texts)[int(MOSTLY * (len(texts) - 1))] <= SHORT
    return {"name": "exact"}, EXACT_MATCH if short else OVERLAP


def _is_number(text: str) -> bool:
    return as_number(text.replace(",", "")) is not None or bool(_ENDED.search(text))


def _number_doubts(answer: Column) -> tuple[str, ...]:
    """A doubt of a column of numbers in a way to write that the reader of numbers does not know."""
    texts = [str(value) for value in answer.present]
    digits = [text for text in texts if any(map(str.isdigit, text)) and not any(map(str.isalpha, text))]
    other = [text for text in digits if Number().reference(text) is None]
    if not other or len(digits) < MOSTLY * len(texts):
        return ()
    return (
        f"{answer.name} holds numbers in a way to write that reader number takes for other ones, as {other[0]!r} and "
        f"{len(other)} of {len(texts)} in all",
    )


def _solution(columns: Sequence[Column], answer: Column, reader: Reader) -> Column | None:
    """A column of worked solutions: longer texts that end in the reference."""
    for column in columns:
        if column is answer or _rank(column, SOLUTIONS) == len(SOLUTIONS):
            continue
        pairs = [(str(a), str(b)) for a, b in zip(column.values, answer.values, strict=True) if a and b is not None]
        words = sum(" " in solution for solution, _ in pairs)
        if pairs and words > len(pairs) / 2 and _share(bool(right) for right in reader.judge(pairs)) >= MOSTLY:
            return column
    return None


def _gives_away(column: Column, answer: Column) -> bool:
    """Whether nearly every row's text ends in its own reference, or holds it where that is more than a word."""
    held = 0
    for text, reference in zip(column.values, answer.values, strict=True):
        said, right = comparable(str(text)), comparable(str(reference))
        held += said.endswith(right) or (" " in right and right in said)
    return held >= MOSTLY * len(column.values)


def _empty_doubts(rows: Sequence[RawRow], used: Sequence[str]) -> tuple[str, ...]:
    """Columns of text that are left out because many rows have none there."""
    good = [row.values for row in rows if row.problem is None]
    names = [name for name in dict.fromkeys(name for values in good for name in values) if name not in used]
    doubts = []
    for name in names:
        values: list[Scalar | None] = [clean(values.get(name)) for values in good]
        there = [str(value) for value in values if value is not None]
        if 0 < len(there) < MOSTLY * len(values) and sum(" " in text for text in there) > len(there) / 2:
            doubts.append(f"{name} is empty in {len(values) - len(there)} of {len(values)} rows, and is left out")
    return tuple(doubts)


def _share(holds: Any) -> float:
    found = list(holds)
    return sum(found) / max(len(found), 1)
