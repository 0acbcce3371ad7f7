"""Texts that hold a question and its options, told apart by marks that the answers are named by: guessed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from pipelines.sources.raw_row import RawRow
from pipelines.tasks.keys.choice import SplitParams
from pipelines.tasks.options import LETTERS, OptionReader, searched

MOSTLY = 0.95  # share of the texts that must have a pattern
_NAMED = re.compile(r"(?P<stem>[A-Za-z]+)(?P<place>[1-9])")
# How a text marks an option by its letter: A ) this, A) this, (A) this, A. this, A: this.
_LETTERED = (r"{} \)", r"{}\)", r"\({}\)", r"{}\.", r"{}:")


def marked_texts(rows: Sequence[RawRow], names: Sequence[str]) -> Iterator[OptionReader]:
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
