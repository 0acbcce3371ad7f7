"""The gate: whether a challenger takes the champion's place, decided from numbers alone.

Both are compared on the same test rows, without those that either was trained or chosen on, by groups. A challenger
must lead by more than a stated gain and by more than chance explains, lose no label or slice, and keep the limits.
What is not known, is no number, or is level keeps the champion.

A team that tries a challenger every week would promote an equal one sooner or later. So the looks of a year share what
chance may have: the k-th look has the part of it that the spending function k / (k + n) grows by (Lan & DeMets 1983;
n is ``gate.looks``), and the union bound adds them up, however the looks depend on each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from pipelines.contracts.identities import Identity, Seen
from pipelines.contracts.verdict import Lead, Measured, SliceLead, Verdict
from pipelines.model import intervals
from pipelines.model.intervals import Ints, against, numbered
from pipelines.params.gate import GateParams
from pipelines.registry.paired import Drawing, Pair, chance, lead, shown
from pipelines.tasks.measures import Floats, Measure
from pipelines.wording import many, points

FORGOTTEN, PERPLEXITY, UNREADABLE, MEGABYTES, MILLISECONDS = (
    "forgotten", "perplexity", "unreadable", "megabytes", "milliseconds"
)  # fmt: skip
WORDS = {
    FORGOTTEN: "of what the frozen base answers rightly, the share that it loses",
    PERPLEXITY: "the rise of the perplexity of neutral text, as a share of the base's,",
    UNREADABLE: "the share of answers that cannot be read",
    MEGABYTES: "the adapter's megabytes",
    MILLISECONDS: "the milliseconds for a test row",
}


@dataclass(frozen=True)
class Side:
    """One system that was asked the test rows.

    Attributes:
        ids: of the rows that it was asked.
        scores: of its answers, [rows, ...].
        problem: why it could not be asked; None if it was.
        seen: what it was made with; None where nobody knows, as of a version of an earlier release.
        perplexity: how much higher that of neutral text is than the base's, as a share; None where it has no limit.
        unreadable: share of answers that cannot be read.
        megabytes: of its adapter.
        milliseconds: that a row took.
    """

    ids: tuple[str, ...]
    scores: Floats
    problem: str | None = None
    seen: Seen | None = None
    perplexity: float | None = None
    unreadable: float | None = None
    megabytes: float | None = None
    milliseconds: float | None = None


@dataclass(frozen=True)
class Contest:
    """All that a verdict is made from.

    Attributes:
        measure: of the task.
        rows: today's test rows.
        labels: of each of them, the label or slice, or of a mixture the task; "" for none.
        challenger: who wants the place.
        champion: who has it; None: nobody.
        base: the challenger's frozen base.
        majority: scores of always giving the commonest answer, [rows]; None where a task has no such answer.
    """

    measure: Measure
    rows: Sequence[Identity]
    labels: Sequence[str]
    challenger: Side
    champion: Side | None
    base: Side
    majority: Floats | None

    def sides(self) -> Iterator[tuple[str, Side]]:
        """Each system with its name."""
        yield "challenger", self.challenger
        if self.champion is not None:
            yield "champion", self.champion
        yield "base", self.base


def level_of(settings: GateParams, look: int) -> float:
    """What the p-value of a look must be below: all of them together, for ever, are ``false_promotions``."""
    planned = settings.looks
    return settings.false_promotions * planned / ((planned + look - 1) * (planned + look))


def decide(contest: Contest, settings: GateParams, drawing: Drawing, *, look: int) -> Verdict:
    """Decide.

    Args:
        contest: who was asked which rows, and what came of it.
        settings: the section ``gate``.
        drawing: of intervals; its confidence is that of a lead over the base.
        look: which comparison with a champion this is in its year, from 1.
    """
    level = level_of(settings, look) if contest.champion is not None else 1 - drawing.confidence
    look = look if contest.champion is not None else 0
    kept, left_out = _rows_left(contest)
    units = _units(contest, kept)
    empty = Verdict(
        promote=False, reasons=(), asked=True, measure=contest.measure.name, rows=len(kept),
        units=len(set(units.tolist())), left_out=left_out, look=look, level=level, values={},
        over_champion=None, over_base=None, over_majority=None, detectable=None, slices={}, figures={},
    )  # fmt: skip
    reasons = list(_unusable(contest))
    if reasons:
        return _kept(replace(empty, asked=all(side.problem is None for _, side in contest.sides())), reasons)
    least = max(settings.least_rows, _least_units(1 - 2 * level if look else drawing.confidence))
    if empty.units < least:
        said = f"{least} test rows, or groups of them, must be left that neither was made with"
        return _kept(empty, [f"{said}; {empty.units} are, and {left_out} rows were left out"])
    return _compared(_Left(contest, kept, units, settings, drawing), empty)


@lru_cache
def _least_units(confidence: float) -> int:
    """With fewer, nothing is called better."""
    return intervals.least_rows(confidence)


@dataclass(frozen=True)
class _Left:
    """A contest on the rows that are left."""

    contest: Contest
    kept: Ints
    units: Ints
    settings: GateParams
    drawing: Drawing

    def pair(self, other: Floats) -> Pair:
        """The challenger against something else."""
        return Pair(self.contest.measure, self.contest.challenger.scores[self.kept], other[self.kept], self.units)


def _compared(left: _Left, empty: Verdict) -> Verdict:
    known = replace(empty, figures=_figures(left), values=_values(left))
    verdict, reasons = _against_base(left, known) if left.contest.champion is None else _against_champion(left, known)
    reasons += _over_limits(verdict.figures)
    return _kept(verdict, reasons) if reasons else replace(verdict, promote=True, reasons=(_why(verdict),))


def _against_champion(left: _Left, known: Verdict) -> tuple[Verdict, list[str]]:
    """The verdict with what it says of champion and base, and the rules that the challenger breaks."""
    assert left.contest.champion is not None
    pair, settings = left.pair(left.contest.champion.scores), left.settings
    over = lead(pair, left.drawing, level=known.level)
    base = lead(left.pair(left.contest.base.scores), left.drawing, level=(1 - left.drawing.confidence) / 2)
    slices = _slices(left, pair)
    reasons = [*_gains(over, known, settings), *_broken(slices, settings)]
    if not (base.low > 0 and 2 * base.p_value < 1 - left.drawing.confidence):
        reasons.append(f"it must be better than the frozen base by more than chance; {_told(base)}")
    least = shown(pair, known.level)
    return replace(known, over_champion=over, over_base=base, detectable=least, slices=slices), reasons


def _against_base(left: _Left, known: Verdict) -> tuple[Verdict, list[str]]:
    """Without a champion, the same by the rule that stage evaluate calls an adapter better by."""
    reasons: list[str] = []

    def over(words: str, scores: Floats) -> Lead:
        pair, drawing = left.pair(scores), left.drawing
        found = against(pair.measure, [pair.one], [pair.other], drawing.of(pair.units))
        own = Lead(found.difference.value, found.difference.low, found.difference.high, found.p_value)
        if not found.better:
            reasons.append(f"it must be better than {words} by more than chance; {_told(own)}")
        return own

    majority = left.contest.majority
    over_base = over("the frozen base", left.contest.base.scores)
    over_majority = None if majority is None else over("always giving the commonest answer", majority)
    return replace(known, over_base=over_base, over_majority=over_majority), reasons


def _rows_left(contest: Contest) -> tuple[Ints, int]:
    """The places of rows that neither version was made with, and how many others there are."""
    seen = [side.seen for name, side in contest.sides() if name != "base" and side.seen is not None]
    kept = [p for p, row in enumerate(contest.rows) if not any(one.knows(row.text, row.group) for one in seen)]
    return np.array(kept, dtype=np.int64), len(contest.rows) - len(kept)


def _units(contest: Contest, kept: Ints) -> Ints:
    """The group of each row that is left, or its text."""
    rows = [contest.rows[place] for place in kept]
    return numbered([(row.group is None, row.group or row.text) for row in rows])


def _unusable(contest: Contest) -> Iterator[str]:
    """What makes any comparison impossible."""
    ids = tuple(row.id for row in contest.rows)
    for name, side in contest.sides():
        if name == "base" and side.problem is not None and side.problem == contest.challenger.problem:
            continue  # what kept one from being asked kept the other
        if side.problem is not None:
            yield f"the {name} must answer the test rows; {side.problem}"
        elif side.ids != ids or len(side.scores) != len(ids):
            yield f"the {name} must be asked today's test rows, all of them and no others; it was asked others"
        elif not np.isfinite(side.scores).all():
            yield f"the scores of the {name} must be numbers; {_broken_rows(side.scores)} of {len(ids)} are not"
    if contest.challenger.seen is None and contest.challenger.problem is None:
        yield (
            "the challenger must keep the hashes of the rows that it was made with; it has none, as one that an "
            "earlier release registered: `dvc repro -f -s register` adds them while its files are the project's"
        )


def _broken_rows(scores: Floats) -> int:
    return int((~np.isfinite(scores.reshape(len(scores), -1)).all(axis=1)).sum())


def _gains(over: Lead, verdict: Verdict, settings: GateParams) -> Iterator[str]:
    if not (over.value > 0 and over.value >= settings.least_gain):
        yield f"it must lead the champion by {points(settings.least_gain, sign=False)} or more; {_told(over)}"
    elif not over.p_value < verdict.level:
        yield (
            f"its lead over the champion must be more than chance: p below {verdict.level:.2g} at look {verdict.look} "
            f"of the year; {_told(over)}"
        )


def _told(found: Lead) -> str:
    return f"it leads by {points(found.value)} [{points(found.low)}, {points(found.high)}], p = {found.p_value:.2g}"


def _slices(left: _Left, pair: Pair) -> dict[str, SliceLead]:
    """The lead on the rows of each label or slice; each tested by itself, since a broken one costs more than a week."""
    labels = np.array([left.contest.labels[place] for place in left.kept])
    found, level = {}, 1 - left.settings.slices.confidence
    for label in sorted(set(labels.tolist()) - {""}):
        own = pair.only(np.flatnonzero(labels == label))
        found[label] = SliceLead(len(own.one), own.value, chance(own.turned(), left.drawing, level=level))
    return found


def _broken(slices: Mapping[str, SliceLead], settings: GateParams) -> Iterator[str]:
    for label, found in slices.items():
        if -found.value > settings.slices.loss and found.p_value < 1 - settings.slices.confidence:
            yield (
                f"no label or slice may lose more than {points(settings.slices.loss, sign=False)}, surely; {label} "
                f"loses {points(-found.value, sign=False)} on {many(found.rows, 'row')}, p = {found.p_value:.2g}"
            )


def _values(left: _Left) -> dict[str, float]:
    return {name: left.contest.measure.add_up(side.scores[left.kept]) for name, side in left.contest.sides()}


def _figures(left: _Left) -> dict[str, Measured]:
    """What has limits, of both versions; rows of a measure that is no mean are not right or wrong by themselves."""
    contest, limits = left.contest, left.settings.limits
    champion = contest.champion
    bounds = {name: getattr(limits, name) for name in WORDS}
    if not contest.measure.is_mean:
        bounds[FORGOTTEN] = None

    def known(side: Side | None, name: str) -> float | None:
        if side is None:
            return None
        return _forgotten(left, side) if name == FORGOTTEN else getattr(side, name)

    return {
        name: Measured(known(contest.challenger, name), known(champion, name), limit) for name, limit in bounds.items()
    }


def _forgotten(left: _Left, side: Side) -> float | None:
    if not left.contest.measure.is_mean:
        return None
    base, own = left.contest.base.scores[left.kept], side.scores[left.kept]
    right = float(base.sum())
    return float(np.maximum(base - own, 0).sum()) / right if right > 0 else 0.0


def _over_limits(figures: Mapping[str, Measured]) -> Iterator[str]:
    for name, found in figures.items():
        if found.limit is None:
            continue
        if found.challenger is None or not np.isfinite(found.challenger):
            yield f"{WORDS[name]} must be known, since gate.limits.{name} is {found.limit:g}; it is not"
        elif found.challenger > found.limit:
            yield f"{WORDS[name]} must be at most {found.limit:g}; it is {found.challenger:.3g}"


def _why(verdict: Verdict) -> str:
    if verdict.over_champion is not None:
        return f"it is better than the champion: {_told(verdict.over_champion)}, below {verdict.level:.2g}"
    assert verdict.over_base is not None
    return f"there is no champion, and it is better than the frozen base: {_told(verdict.over_base)}"


def _kept(verdict: Verdict, reasons: Sequence[str]) -> Verdict:
    return replace(verdict, promote=False, reasons=tuple(reasons))
