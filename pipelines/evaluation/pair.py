"""`reft compare A B`: two systems on the same rows, how far one leads, and where they differ."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pipelines.contracts.evaluation import SystemFigures
from pipelines.contracts.interval import Interval
from pipelines.contracts.predictions import Prediction
from pipelines.contracts.prepared import Row
from pipelines.diagnostics.slices import Answered as AnsweredRows
from pipelines.errors import PipelineError
from pipelines.evaluation.ask import Answered, ask_all
from pipelines.evaluation.rows import Asked
from pipelines.evaluation.systems import System, check_can_answer, may_know
from pipelines.model.intervals import Resampling, against, detectable, group_numbers, holm, least_rows
from pipelines.params.whole import Params
from pipelines.stages.evaluate import predictions_of, system_figures
from pipelines.tasks.family import Answer, TaskFamily, open_family, task_places
from pipelines.tasks.measures import Measure

Better = Literal["one", "other"]


@dataclass(frozen=True)
class Side:
    """The rows as one system's base counts their tokens, and what it answered to each."""

    rows: Sequence[Row]
    answers: Sequence[Answer]

    def only(self, places: Iterable[int]) -> Side:
        """Some of them."""
        kept = list(places)
        return Side([self.rows[place] for place in kept], [self.answers[place] for place in kept])


@dataclass(frozen=True)
class PairFigures:
    """Two systems on the same rows.

    Attributes:
        measure: of the task.
        rows: how many there are.
        groups: of rows that belong together, with one that is alone as one.
        confidence: of intervals and tests.
        one: the figures of the first.
        other: of the second.
        difference: the first's lead, with the bootstrap interval over groups.
        p_value: of the exact paired test, which ``test`` names.
        adjusted_p_value: of several tasks by Holm's method over them; of one the same.
        test: what it is called.
        detectable: the least true difference that so many rows show with 80 % power.
        least_rows: with fewer groups nobody is called better.
        better: who is, by more than chance; None: nobody.
        tasks: of a mixture each task by itself; all else is then said of the mean over tasks.
    """

    measure: str
    rows: int
    groups: int
    confidence: float
    one: SystemFigures
    other: SystemFigures
    difference: Interval
    p_value: float
    adjusted_p_value: float
    test: str
    detectable: float | None
    least_rows: int
    better: Better | None
    tasks: dict[str, PairFigures] = field(default_factory=dict)


@dataclass(frozen=True)
class Compared:
    """Two systems, what they answered, and the figures of that.

    Attributes:
        asked: the rows.
        one: the first.
        other: the second.
        figures: of both.
        predictions: each row, with the first's answer as ``adapter`` and the second's as ``base``.
        anew: how many answers were computed now; the others were kept from before.
        unknown: adapters that may have been trained on some of the rows, as :func:`may_know` says.
    """

    asked: Asked
    one: System
    other: System
    figures: PairFigures
    predictions: Sequence[Prediction]
    anew: int
    unknown: tuple[str, ...]


def compare_systems(
    one: System, other: System, every: Sequence[Asked], params: Params, *, root: Path
) -> list[Compared]:
    """Ask both all rows; whether they can answer them is checked before the first is asked.

    Raises:
        PipelineError: if both are the same, or as :func:`check_can_answer` and :func:`ask_all`.
    """
    if (one.adapter_sha256, one.record.sha256) == (other.adapter_sha256, other.record.sha256):
        raise PipelineError(
            "two that are compared must differ",
            got=f"{one.title} and {other.title}, with the same adapter {str(one.adapter_sha256)[:12]} on the same base",
            do="Name another one, or the frozen base: base.",
        )
    for asked in every:
        for system in (one, other):
            check_can_answer(system, asked)
    return [_compared(ask_all((one, other), asked, params, root=root), asked, params) for asked in every]


def _compared(both: Sequence[Answered], asked: Asked, params: Params) -> Compared:
    one, other = (Side(side.rows, side.answers) for side in both)
    task, systems = open_family(asked.task), (both[0].system, both[1].system)
    predictions = [
        replace(own, base=others.base)
        for own, others in zip(_predictions(task, one), _predictions(task, other), strict=True)
    ]
    figures, anew = pair_figures(task, one, other, params), sum(side.anew for side in both)
    return Compared(asked, *systems, figures, predictions, anew, may_know(systems, asked))


def _predictions(task: TaskFamily[Any], side: Side) -> list[Prediction]:
    """Each row with this side's answer in the place of both."""
    read = [(said, said) for said in map(task.read, side.rows, side.answers)]
    return predictions_of(task, AnsweredRows(side.rows, side.answers, side.answers, read))


def pair_figures(task: TaskFamily[Any], one: Side, other: Side, params: Params) -> PairFigures:
    """The figures of two systems' answers to the same rows; of a mixture of each task too."""
    whole = _figures(task, one, other, params)
    if not task.parts():
        return whole
    parts = {
        name: _figures(task.parts()[name], one.only(places), other.only(places), params)
        for name, places in task_places(one.rows).items()
    }
    adjusted = holm([part.p_value for part in parts.values()])
    level = 1 - whole.confidence
    tasks = {
        name: replace(part, adjusted_p_value=value, better=part.better if value < level else None)
        for (name, part), value in zip(parts.items(), adjusted, strict=True)
    }
    return replace(whole, tasks=tasks)


def exact_test_words(measure: Measure, how: Resampling) -> str:
    """What the test of :func:`pipelines.model.intervals.exact_p_value` is called for rows in these groups."""
    if not measure.is_mean:
        return "randomisation test, in which systems exchange groups of rows"
    if not how.alone:
        return "randomisation test of the groups' differences"
    return "exact McNemar test" if measure.counts else "exact sign test"


def _figures(task: TaskFamily[Any], one: Side, other: Side, params: Params) -> PairFigures:
    settings, rows = params.evaluate, one.rows
    how = Resampling(settings.confidence, settings.bootstrap, params.seed, group_numbers(rows))
    scores, others = (task.scores(side.rows, side.answers) for side in (one, other))
    lead, lag = (against(task.measure, [a], [b], how) for a, b in ((scores, others), (others, scores)))
    better: Better | None = "one" if lead.better else "other" if lag.better else None
    return PairFigures(
        measure=task.measure.name,
        rows=len(rows),
        groups=how.units,
        confidence=how.confidence,
        one=system_figures(task, one.rows, one.answers, how),
        other=system_figures(task, other.rows, other.answers, how),
        difference=lead.difference,
        p_value=lead.p_value,
        adjusted_p_value=lead.p_value,
        test=exact_test_words(task.measure, how),
        detectable=detectable(lead.difference, how, task.measure),
        least_rows=least_rows(how.confidence),
        better=better,
    )
