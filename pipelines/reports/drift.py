"""Drift: how the rows of each file differ from those before it, and the live champion's score, decision by decision.

The files of a growing folder are taken in the order of their names, which dates make that of time.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.contracts.predictions import Prediction
from pipelines.contracts.prepared import Row
from pipelines.contracts.verdict import Decision
from pipelines.markdown import table, text
from pipelines.wording import measure_words, share

WORD = re.compile(r"\w+")
MOST_LABELS = 8  # in a table or picture
LEAST = 30  # rows on each side, for a p-value
CAPTION = (
    "Length: of the prompt, in characters; p is that of the two-sample Kolmogorov-Smirnov test against all files "
    "before. New words: the share of the words of a file that stand in no file before it. Labels: p is that of a "
    "chi-square test of homogeneity against all files before. No p is adjusted for the number of files. Answers: the "
    "adapter's of this run, on the file's test rows."
)


@dataclass(frozen=True)
class PartDrift:
    """A file of rows beside all those before it.

    Attributes:
        name: of the file.
        rows: that splits took.
        length: the median of its prompts, in characters.
        length_p: None of the first file, and of too few rows.
        new_words: None of the first file.
        labels: shares of the right answers, by label or slice; empty where a task has none.
        labels_p: as ``length_p``.
        answers: shares of the adapter's answers on test rows; empty where answers are free or numbers.
    """

    name: str
    rows: int
    length: float
    length_p: float | None
    new_words: float | None
    labels: Mapping[str, float]
    labels_p: float | None
    answers: Mapping[str, float]


def drift(rows: Iterable[Row], predictions: Sequence[Prediction]) -> list[PartDrift]:
    """The files of prepared rows in the order of their names, each beside those before it."""
    by_part: dict[str, list[Row]] = {}
    for row in rows:
        by_part.setdefault(_part(row.id), []).append(row)
    answers: dict[str, Counter[str]] = {}
    for said in predictions:
        if said.label and isinstance(said.adapter.value, str):
            answers.setdefault(_part(said.id), Counter())[said.adapter.value] += 1
    return list(_parts(dict(sorted(by_part.items())), answers))


def drift_page(parts: Sequence[PartDrift], decisions: Sequence[Decision]) -> str:
    """All of it as Markdown."""
    labels = commonest(part.labels for part in parts)
    answers = commonest(part.answers for part in parts)
    header = [
        "file",
        "rows",
        "length",
        "p",
        "new words",
        *(text(f"{name}") for name in labels),
        *(["p"] if labels else []),
    ]
    header += [f"answered {text(name)}" for name in answers]
    lines = [
        [text(part.name), f"{part.rows:,}", f"{part.length:.0f}", _p(part.length_p),
         "–" if part.new_words is None else share(part.new_words),
         *(share(part.labels.get(name, 0.0)) for name in labels), *([_p(part.labels_p)] if labels else []),
         *(share(part.answers.get(name, 0.0)) if part.answers else "–" for name in answers)]
        for part in parts
    ]  # fmt: skip
    page = ["# Drift", "", "## Rows, file by file", "", *table(header, lines, right=range(1, len(header))), "", CAPTION]
    return "\n".join([*page, "", *_scores(decisions), ""])


def commonest(shares: Iterable[Mapping[str, float]]) -> list[str]:
    """The names that are shown: those with the largest shares."""
    total: Counter[str] = Counter()
    for each in shares:
        total.update(each)
    return [name for name, _ in total.most_common(MOST_LABELS)]


def _scores(decisions: Sequence[Decision]) -> Iterator[str]:
    yield from ("## The champion's score", "")
    if not decisions:
        yield "The gate was not asked yet."
        return
    measure = text(measure_words(decisions[-1].verdict.measure))
    header = ["at", "test rows", "champion", f"its {measure}", "challenger", f"its {measure}", "base", "promoted"]
    rows = []
    for one in decisions:
        values = one.verdict.values
        told = [share(values[name]) if name in values else "–" for name in ("champion", "challenger", "base")]
        live = "none" if one.champion is None else f"version {one.champion}"
        rows.append(
            [text(one.at), f"{one.verdict.rows:,}", live, told[0], f"version {one.version}", told[1], told[2],
             "yes" if one.promoted else "no"]
        )  # fmt: skip
    yield from table(header, rows, right=(1, 3, 5, 6))
    yield ""
    yield (
        "Each line is measured on the test rows of its day, without those that one of both was made with; so a "
        "champion's score moves with the rows, which is the drift, and by chance."
    )


def _parts(rows: Mapping[str, Sequence[Row]], answers: Mapping[str, Counter[str]]) -> Iterator[PartDrift]:
    lengths: list[int] = []
    labels: Counter[str] = Counter()
    known: set[str] = set()
    for name, own in rows.items():
        own_lengths = [len(row.prompt) + len(row.second) for row in own]
        own_labels = Counter(row.label for row in own if row.label)
        words = Counter(word for row in own for word in WORD.findall(f"{row.prompt} {row.second}".casefold()))
        strange = sum(count for word, count in words.items() if word not in known)
        yield PartDrift(
            name=name,
            rows=len(own),
            length=float(np.median(own_lengths)),
            length_p=_lengths_p(own_lengths, lengths),
            new_words=strange / max(1, words.total()) if known else None,
            labels=_shares(own_labels),
            labels_p=_labels_p(own_labels, labels),
            answers=_shares(answers.get(name, Counter())),
        )
        lengths += own_lengths
        labels += own_labels
        known |= words.keys()


def _part(identity: str) -> str:
    return identity.rpartition(":")[0].rpartition("/")[2]


def _shares(counts: Counter[str]) -> dict[str, float]:
    return {name: count / counts.total() for name, count in sorted(counts.items())}


def _lengths_p(own: Sequence[int], before: Sequence[int]) -> float | None:
    from scipy import stats

    if min(len(own), len(before)) < LEAST:
        return None
    return float(stats.ks_2samp(own, before, method="asymp").pvalue)


def _labels_p(own: Counter[str], before: Counter[str]) -> float | None:
    from scipy import stats

    names = sorted(own.keys() | before.keys())
    if min(own.total(), before.total()) < LEAST or len(names) < 2:
        return None
    counts = [[each[name] for name in names] for each in (own, before)]
    return float(stats.chi2_contingency(counts, correction=False).pvalue)


def _p(value: float | None) -> str:
    return "–" if value is None else f"{value:.2g}"
