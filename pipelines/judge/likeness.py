"""What can be said of free answers without a judge: how near they are to references, how long, how repetitive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.contracts.interval import Interval
from pipelines.judge.gather import Compared
from pipelines.model.intervals import Resampling, figure, measured_difference
from pipelines.tasks.measures import Floats, Mean
from pipelines.tasks.overlap import CorpusChrf, chrf_statistics

NO_JUDGEMENT = (
    "None of these figures is a judgement of quality: they say how near the answers are to one reference of many, how "
    "long they are, and how much they repeat themselves."
)
RUN = 4  # words of a run that is looked for again


@dataclass(frozen=True)
class Likeness:
    """Figures of one system's answers.

    Attributes:
        rows: how many answers.
        empty: of these, without text.
        chrf: to the references, all rows together; None where there are none, or they are the answers.
        characters: median length.
        repetition: mean share of an answer's runs of four words that stood in it before (Welleck et al. 2020).
        loss: of the references after the prompts, nats a token; None where no model was asked.
    """

    rows: int
    empty: int
    chrf: Interval | None
    characters: float
    repetition: Interval
    loss: float | None


@dataclass(frozen=True)
class Difference:
    """The one system less the other, on the same rows."""

    chrf: Interval | None
    repetition: Interval


@dataclass(frozen=True)
class Measured:
    """What is said without a judge: of both systems, and of the one less the other; None of a reference."""

    one: Likeness
    other: Likeness | None
    difference: Difference | None


def measured(compared: Compared, how: Resampling, *, against_reference: bool) -> Measured:
    """Measure both systems' answers.

    Args:
        compared: rows with both answers.
        how: rows are resampled.
        against_reference: whether the other answers are the references, of which nothing is said.
    """
    one, other = [pair.one for pair in compared.pairs], [pair.other for pair in compared.pairs]
    right = compared.references if all(compared.references) else None
    losses = compared.losses
    first = likeness(one, right, losses[0], how)
    if against_reference:
        return Measured(first, None, None)
    return Measured(first, likeness(other, right, losses[1], how), difference(one, other, right, how))


def likeness(answers: Sequence[str], references: Sequence[str] | None, loss: float | None, how: Resampling) -> Likeness:
    """Measure answers.

    Args:
        answers: of the rows.
        references: of the same rows; None for none to compare with.
        loss: of the references.
        how: rows are resampled.
    """
    return Likeness(
        rows=len(answers),
        empty=sum(not answer.strip() for answer in answers),
        chrf=None if references is None else figure(CorpusChrf(), _chrf(answers, references), how),
        characters=float(np.median([len(answer) for answer in answers])),
        repetition=figure(Mean("repetition"), _repetitions(answers), how),
        loss=loss,
    )


def difference(
    one: Sequence[str], other: Sequence[str], references: Sequence[str] | None, how: Resampling
) -> Difference:
    """Compare the answers of two systems to the same rows."""
    chrf = None
    if references is not None:
        chrf = measured_difference(CorpusChrf(), [_chrf(one, references)], [_chrf(other, references)], how)
    return Difference(chrf, measured_difference(Mean("repetition"), [_repetitions(one)], [_repetitions(other)], how))


def repetition(text: str) -> float:
    """The share of its runs of :data:`RUN` words that stood in it before; 0 of a text with fewer than two."""
    words = text.split()
    runs = [tuple(words[start : start + RUN]) for start in range(len(words) - RUN + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def _repetitions(answers: Sequence[str]) -> Floats:
    return np.array([repetition(answer) for answer in answers], dtype=np.float64)


def _chrf(answers: Sequence[str], references: Sequence[str]) -> Floats:
    return chrf_statistics([(answer, [right]) for answer, right in zip(answers, references, strict=True)])
