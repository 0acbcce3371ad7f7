"""What a table of rows is about: which columns are text, which one is the label, and a template for the prompt.

Everything is guessed from the rows themselves. A guess is a proposal: the user sees it before it is written anywhere.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.errors import PipelineError
from pipelines.intake.labels import Scalar, Usable, as_number, choices, clean, usable_rows
from pipelines.intake.layout import usable_name
from pipelines.sources.raw_row import RawRow

MOST_LABELS = 500
MOST_NUMBERS = 20  # different numbers that are labels; more are, if they count classes from 0 or 1 on without a gap
MOSTLY = 0.95  # share of the rows for which something must hold
SLACK = 0.95  # share of the usable rows that the splits may take: some may prove too long
LOSS = 0.1  # share of the rows past which their loss is a doubt
LABEL_TITLES = (
    *("label", "answer", "class", "category", "target", "sentiment", "gold", "rating", "stars", "score"),
    *("correct", "intent", "emotion", "topic", "quality", "duplicate", "similarity"),
)
SCORE_TITLES = ("rating", "stars", "score", "scores", "quality", "similarity")
NO_VALUE = {"na", "n/a", "nan", "null", "none", "unknown", "?", "-"}  # what people write where there is no label
NAMELESS = re.compile(r"column\d+")  # of a file without titles
BY_HAND = "With --no-params the file comes in alone, and prepare in params.yaml is yours to write"
FREE = "task: generation there learns free answers"
SHOWN = 300  # characters of what was found in a message
TOKEN_CHARACTERS = 3  # characters to a token, on the low side


@dataclass(frozen=True)
class Guess:
    """What the section ``prepare`` of params.yaml would say of the rows."""

    template: str
    text_columns: tuple[str, ...]
    label_column: str
    labels: dict[str, dict[str, Any]]  # as in params.yaml: name -> word, min, max, values
    usable: Usable
    max_tokens: int  # a guess of what all but 1 row in 100 stays under
    doubts: tuple[str, ...]  # what a person should look at before it is written


@dataclass(frozen=True)
class Column:
    """A column: its name and its values, None where there is none."""

    name: str
    values: list[Scalar | None]

    @property
    def filled(self) -> float:
        """The share of rows with a value."""
        return sum(value is not None for value in self.values) / max(len(self.values), 1)

    @property
    def present(self) -> list[Scalar]:
        return [value for value in self.values if value is not None]

    @property
    def distinct(self) -> Counter[Scalar]:
        return Counter(self.present)


def guess(rows: Sequence[RawRow]) -> Guess:
    """Guess text columns, label and template of rows.

    Args:
        rows: a sample of the file, read with its layout.

    Raises:
        PipelineError: if no column can be a label (a few different values) or none can be text, or if the rows are of
            a task that is not classification: with a score.
    """
    columns, nested = columns_of(rows)
    label, doubts = _label_column(columns)
    texts = text_columns([c for c in columns if c is not label], label)
    template = prompt_template([c.name for c in texts], label.name)
    labels = choices(label.present, template)
    usable = usable_rows(rows, [c.name for c in texts], label.name, labels)
    lengths = sorted(sum(len(str(c.values[row])) for c in texts) + len(template) for row in range(len(texts[0].values)))
    return Guess(
        template=template,
        text_columns=tuple(c.name for c in texts),
        label_column=label.name,
        labels=labels,
        usable=usable,
        max_tokens=token_bound(lengths[int(0.99 * (len(lengths) - 1))]),
        doubts=(*doubts, *_label_doubts(labels), *loss_doubts(usable, len(rows)), *_nested_doubts(nested)),
    )


def token_bound(characters: int) -> int:
    """About how many tokens a text has at most, as a bound that leaves room: a multiple of 64."""
    return 64 * math.ceil(characters / TOKEN_CHARACTERS / 64)


def split_sizes(usable: int, wanted: Mapping[str, int]) -> dict[str, int]:
    """Row limits of the splits that are cut from one file: as wanted if it has so many, else in the same proportion.

    Args:
        usable: rows that the file has.
        wanted: rows by split.

    Raises:
        PipelineError: if there are not two rows for each split.
    """
    available = int(SLACK * usable)
    total = sum(wanted.values())
    if available >= total:
        return dict(wanted)
    sizes = {split: max(2, available * size // total) for split, size in wanted.items()}
    if sum(sizes.values()) > usable:
        raise PipelineError(
            f"the file must have at least {2 * len(wanted)} rows with text and a label", got=usable, do="Add rows."
        )
    return sizes


def columns_of(rows: Sequence[RawRow]) -> tuple[list[Column], dict[str, list[Any]]]:
    """The columns that hold single values and whose names a template can use, and the values of those with lists."""
    good = [row.values for row in rows if row.problem is None]
    names = dict.fromkeys(name for values in good for name in values)
    columns, nested = [], {}
    for name in names:
        values = [values.get(name) for values in good]
        if any(isinstance(value, list | dict) for value in values):
            nested[name] = values
        else:
            columns.append(Column(name, [clean(value) for value in values]))
    return [c for c in columns if c.filled >= MOSTLY], nested


def question_texts(rows: Sequence[RawRow], answer_column: str, other: Collection[str]) -> list[str]:
    """The columns of written language that a question is made of.

    Args:
        rows: a sample of the file.
        answer_column: what no text may give away.
        other: columns that are no part of the question.

    Raises:
        PipelineError: if there is none.
    """
    columns, _ = columns_of(rows)
    values = [row.values.get(answer_column) for row in rows if row.problem is None]
    answer = Column(answer_column, [clean(value) for value in values])
    return [c.name for c in text_columns([c for c in columns if c.name not in other], answer)]


def likeliest_label(columns: list[Column]) -> Column | None:
    """The column that is most like a label or a score; None if none is."""
    return next(iter(_ranked(columns)), None)


def _ranked(columns: list[Column]) -> list[Column]:
    candidates = [c for c in columns if is_choice(c) or is_ranged(c)]
    place = {c.name: number for number, c in enumerate(columns)}
    return sorted(candidates, key=lambda c: (title_rank(c.name), is_ranged(c), len(c.distinct), -place[c.name]))


def _label_column(columns: list[Column]) -> tuple[Column, list[str]]:
    """The column that is most like a label, and doubts of it.

    One is named like a label, else has the fewest different values, else stands last.
    """
    ranked = _ranked(columns)
    if not ranked:
        found = ", ".join(f"{c.name} with {len(c.distinct)}" for c in columns)
        raise PipelineError(
            f"one column must be a label: 2 to {MOST_LABELS} different short values, each in three rows or more",
            got=f"the columns {found}" if found else "no column that is filled",
            do=f"Add such a column, or name another file. {BY_HAND}: {FREE}.",
        )
    label, others = ranked[0], ranked[1:]
    if is_ranged(label):
        raise PipelineError(
            "a label is one of a few values, which a score or a computed number is not",
            got=f"the column {label.name} with {len(label.distinct)} different numbers",
            do=f"Give the columns titles. {BY_HAND}: a label there may have a range, min and max, and rows in no range "
            f"are rejected; task: regression learns a score; {FREE}, as computed numbers.",
        )
    rivals = [c.name for c in others if title_rank(c.name) == title_rank(label.name)]
    if rivals:
        return label, [f"the label may be another column than {label.name}: {', '.join(rivals)}"]
    if title_rank(label.name) == len(LABEL_TITLES) and not NAMELESS.fullmatch(label.name):
        return label, [f"no column is named like a label; {label.name} has few different values"]
    return label, []


def _label_doubts(labels: Mapping[str, Mapping[str, Any]]) -> list[str]:
    alike: dict[str, list[str]] = {}
    for name in labels:
        alike.setdefault(" ".join(name.casefold().split()), []).append(name)
    doubts = [f"labels that differ in case or spacing alone: {names}" for names in alike.values() if len(names) > 1]
    missing = [name for name in labels if name.casefold() in NO_VALUE]
    return doubts + ([f"labels that may stand for no label: {missing}"] if missing else [])


def loss_doubts(usable: Usable, rows: int) -> tuple[str, ...]:
    """A doubt if more rows are lost than a person would expect."""
    lost = sum(usable.lost.values())
    return (f"{lost} of {rows} rows are lost",) if lost > LOSS * rows else ()


def _nested_doubts(nested: Mapping[str, list[Any]]) -> list[str]:
    return [f"columns with lists or objects are left out: {', '.join(nested)}"] if nested else []


def title_rank(name: str) -> int:
    words = re.split(r"[^a-z]+", name.lower())
    return min((rank for rank, title in enumerate(LABEL_TITLES) if title in words), default=len(LABEL_TITLES))


def is_choice(column: Column) -> bool:
    """A few different short values, each of which comes again; numbers are fewer, or count classes without a gap."""
    distinct = column.distinct
    if not 2 <= len(distinct) <= min(MOST_LABELS, max(2, len(column.present) // 3)):
        return False
    numbers = {as_number(value) for value in distinct}
    if len(distinct) > MOST_NUMBERS and None not in numbers:
        return numbers in (set(range(len(numbers))), set(range(1, len(numbers) + 1)))
    return all(len(str(value)) <= 40 for value in distinct)


def is_ranged(column: Column) -> bool:
    """Numbers of many values that are no row numbers."""
    numbers = [as_number(value) for value in column.present]
    if len(set(numbers)) <= MOST_NUMBERS or None in numbers or is_choice(column):
        return False
    return not all(number is not None and number == int(number) for number in numbers) or (
        len(set(numbers)) < len(numbers) / 2
    )


def is_score(column: Column) -> bool:
    """Numbers of many values, by their title those that somebody or something gave the rest of the row."""
    return is_ranged(column) and not {*re.split(r"[^a-z]+", column.name.lower())}.isdisjoint(SCORE_TITLES)


def text_columns(columns: list[Column], label: Column | None) -> list[Column]:
    """The columns to put into the prompt: written language that does not give the label away, if there is one."""
    texts = [c for c in columns if usable_name(c.name) and _is_text(c)]
    if label is not None:
        texts = [c for c in texts if not (_tells(c, label) or _ends_with_it(c, label))]
    bare = [[_bare(value) for value in c.values] for c in texts]
    texts = [c for place, c in enumerate(texts) if not any(_repeats(bare[place], each) for each in bare[:place])]
    spoken = [c for c in texts if sum(" " in str(value) for value in c.present) > len(c.present) / 2]
    chosen = spoken or texts[-1:]  # without spaces it may be an id, or a language that has none
    if not chosen:
        raise PipelineError(
            "one column must be text that does not itself name the label",
            got=f"the columns {', '.join([c.name for c in (*columns, label) if c is not None])}",
            do=f"{BY_HAND}.",
        )
    return chosen


def _is_text(column: Column) -> bool:
    """Many different values, most of them with a whole word of letters: an equation has none."""
    if len(column.distinct) <= max(2, len(column.present) // 20):
        return False
    return (
        sum(bool(re.search(r"(?<!\w)[^\W\d_]{2,}(?!\w)", str(value))) for value in column.present)
        > len(column.present) / 2
    )


def _tells(column: Column, label: Column) -> bool:
    """Whether the text of nearly every row names its own label and none of the others: the answer in other words."""
    names = [str(value).casefold() for value in label.distinct]
    patterns = {name: re.compile(rf"(?<!\w){re.escape(name)}(?!\w)") for name in names}
    told = 0
    for text, value in zip(column.values, label.values, strict=True):
        own = str(value).casefold()
        told += {name for name, pattern in patterns.items() if pattern.search(str(text).casefold())} == {own}
    return told >= MOSTLY * len(column.values)


def _ends_with_it(column: Column, label: Column) -> bool:
    """Whether most rows of each label end with it, as a worked answer does ("... so 7 x 3 = 21. Answer: B")."""
    rows: Counter[str] = Counter()
    told: Counter[str] = Counter()
    for text, value in zip(column.values, label.values, strict=True):
        own = str(value).casefold()
        rows[own] += 1
        told[own] += (re.findall(r"\w+", str(text).casefold()) or [None])[-1] == own
    return all(told[own] > count / 2 for own, count in rows.items())


def _repeats(column: list[str], earlier: list[str]) -> bool:
    """Whether nearly every row says what an earlier column says, of bare texts; the first that do not are enough."""
    others = (1 for one, other in zip(column, earlier, strict=True) if one != other)
    return all(count <= (1 - MOSTLY) * len(column) for count, _ in enumerate(others, start=1))


def _bare(value: object) -> str:
    """A text without spaces, case and punctuation."""
    return re.sub(r"[\W_]+", "", str(value).casefold())


def prompt_template(names: list[str], label: str) -> str:
    if names == ["instruction"]:
        return "{instruction}\n"  # a whole question of its own, as the LLM-Adapters data sets have it
    lines = [f"{_title(name)}: {{{name}}}" for name in names]
    return "\n".join([*lines, f"{_title(label)}:"])


def encoder_templates(names: Sequence[str], label: str) -> tuple[str, str | None]:
    """Templates of what an encoder reads, which no answer follows: of two texts a pair."""
    if len(names) == 2:
        return f"{{{names[0]}}}", f"{{{names[1]}}}"
    lines = prompt_template(list(names), label).rpartition("\n")[0]
    return (lines if len(names) > 1 else f"{{{names[0]}}}"), None


def joined(parts: Sequence[str]) -> str:
    """The texts that a model reads of a row, as a person is shown them: the second below the first."""
    return "\n".join(parts)


def _title(name: str) -> str:
    name = re.sub(r".*\.\d+\.", "", name)  # of a path into a column, its last name
    words = re.sub(r"[\W_]+", " ", name).strip()
    return words[:1].upper() + words[1:]
