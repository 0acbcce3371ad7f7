"""What can be said of free answers without a judge: how near they are to references, how long, how repetitive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipelines.contracts.interval import Interval
from pipelines.judge.gather import Compared
from pipelines.model.intervals import Resampling, each_alone, figure, measured_difference
from pipelines.tasks.measures import Floats, Mean, Measure
from pipelines.tasks.overlap import CorpusChrf, chrf_statistics

NO_JUDGEMENT = (
    "None of these figures is a judgement of quality: they say how near the answers are to one reference of many, how "
    "long they are, and how much they repeat themselves."
)
RUN = 4  # words of a run that is looked for again


@dataclass(frozen=True)
class NatsPerToken(Mean):
    """The loss of all rows together: nats and tokens, [rows, 2], are added up first. Lower is better."""

    name: str = "loss"
    is_mean: bool = False
    width: int = 2

    def add_up(self, scores: Floats) -> float:
        """The nats of a token."""
        nats, tokens = scores.sum(axis=0)
        return float(nats / tokens)


@dataclass(frozen=True)
class Likeness:
    """Figures of one system's answers.

    Attributes:
        rows: how many answers.
        empty: of these, without text.
        with_reference: rows that have one; chrf is of these.
        chrf: to the references, these rows together; None where there are none, or they are the answers.
        characters: median length.
        repetition: mean share of an answer's runs of four words that stood in it before (Welleck et al. 2020).
        with_loss: rows with a reference that both systems can read to its end; loss is of these.
        loss: of the references after the prompts, nats a token; None where there are none.
    """

    rows: int
    empty: int
    with_reference: int
    chrf: Interval | None
    characters: float
    repetition: Interval
    with_loss: int
    loss: Interval | None


@dataclass(frozen=True)
class Difference:
    """The one system less the other, on the same rows."""

    chrf: Interval | None
    repetition: Interval
    loss: Interval | None


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
    losses = _losses(compared, both=not against_reference)
    first = likeness(one, compared.references, losses[0], how)
    if against_reference:
        return Measured(first, None, None)
    second = likeness(other, compared.references, losses[1], how)
    return Measured(first, second, difference(one, other, compared.references, losses, how))


def likeness(answers: Sequence[str], references: Sequence[str], losses: Floats, how: Resampling) -> Likeness:
    """Measure answers.

    Args:
        answers: of the rows.
        references: of the same rows; "" where there is none.
        losses: nats and tokens of the references that both systems can read, [rows of them, 2].
        how: rows are resampled.
    """
    chrf = _chrf(answers, references)
    return Likeness(
        rows=len(answers),
        empty=sum(not answer.strip() for answer in answers),
        with_reference=len(chrf),
        chrf=figure(CorpusChrf(), chrf, _rows_of(chrf, how)) if len(chrf) else None,
        characters=float(np.median([len(answer) for answer in answers])),
        repetition=figure(Mean("repetition"), _repetitions(answers), how),
        with_loss=len(losses),
        loss=figure(NatsPerToken(), losses, _rows_of(losses, how)) if len(losses) else None,
    )


def difference(
    one: Sequence[str], other: Sequence[str], references: Sequence[str], losses: tuple[Floats, Floats], how: Resampling
) -> Difference:
    """Compare two systems on the same rows; arguments as of :func:`likeness`."""
    chrf = _chrf(one, references), _chrf(other, references)
    return Difference(
        _difference(CorpusChrf(), chrf, how),
        measured_difference(Mean("repetition"), [_repetitions(one)], [_repetitions(other)], how),
        _difference(NatsPerToken(), losses, how),
    )


def _difference(measure: Measure, scores: tuple[Floats, Floats], how: Resampling) -> Interval | None:
    if not len(scores[0]):
        return None
    return measured_difference(measure, [scores[0]], [scores[1]], _rows_of(scores[0], how))


def _rows_of(scores: Floats, how: Resampling) -> Resampling:
    """The same drawing, of these rows alone."""
    return replace(how, groups=each_alone(len(scores)))


def _losses(compared: Compared, *, both: bool) -> tuple[Floats, Floats]:
    """Nats and tokens of the references, of each system on the same rows: those of which ``both`` have some."""
    one, other = compared.losses
    rows = [pair.id for pair in compared.pairs if pair.id in one and (not both or pair.id in other)]
    first = np.array([one[row] for row in rows], dtype=np.float64).reshape(-1, 2)
    return first, np.array([other[row] for row in rows], dtype=np.float64).reshape(-1, 2) if both else first


def repetition(text: str) -> float:
    """The share of its runs of :data:`RUN` words that stood in it before; 0 of a text with fewer than two."""
    words = text.split()
    runs = [tuple(words[start : start + RUN]) for start in range(len(words) - RUN + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def _repetitions(answers: Sequence[str]) -> Floats:
    return np.array([repetition(answer) for answer in answers], dtype=np.float64)


def _chrf(answers: Sequence[str], references: Sequence[str]) -> Floats:
    """Counts of the rows that have a reference, [rows of them, ...]."""
    told = [(answer, [right]) for answer, right in zip(answers, references, strict=True) if right]
    return chrf_statistics(told) if told else np.zeros((0, CorpusChrf().width))
