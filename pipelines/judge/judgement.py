"""What a judge's replies say of two systems, and what calibration says of the judge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.contracts.interval import Interval
from pipelines.judge.length import length_controlled
from pipelines.judge.pairs import Pair, score
from pipelines.judge.question import REJECTED, Outcome, Question
from pipelines.judge.rates import (
    Bounds,
    Floats,
    corrected_rate,
    known_rate,
    tells_apart,
    win_rate,
    with_ties,
)
from pipelines.judge.tally import Tally
from pipelines.wording import share

Outcomes = Callable[[Question], Outcome | None]

SURE = 0.99  # of what is said against a judge
TOLERATED = 0.05  # share of known pairs that a judge may surely get wrong before that is said
NONE = "none"  # the outcome of a question without a reply
PLACES = {("first", "first"): "first", ("second", "second"): "second"}  # of both orders: what stands there wins


@dataclass(frozen=True)
class Calibration:
    """The judge on pairs whose better answer is known.

    Attributes:
        made: whether they were made of references; then no win rate is corrected by them.
        pairs: how many there are.
        scored: of these, judged in both orders; the same answer twice, which nobody is asked about, says nothing.
        true_positives: mean score where the one is the better.
        false_positives: mean score where the other is.
        longer: mean score of the better where it is the longer.
        shorter: where it is the shorter; the three kinds are None where there are no such pairs.
        tells_apart: whether it surely prefers the better answer.
    """

    made: bool
    pairs: int
    scored: int
    true_positives: Interval | None
    false_positives: Interval | None
    longer: Interval | None
    shorter: Interval | None
    tells_apart: bool


@dataclass(frozen=True)
class Judgement:
    """One system against another.

    Attributes:
        pairs: how many there are.
        alike: of these, with the same answer twice; a tie that nobody was asked about.
        scored: with a verdict in both orders, or alike.
        win_rate: share of the scored that the one wins, ties half, as the judge says.
        length_controlled: the same at equal lengths; None where lengths cannot be told from the rest.
        length_slope: of that model: above 0, longer answers win, all else equal.
        corrected: the share whose one answer is the better, without the judge's errors; None without pairs that people
            know the verdicts of, and where the judge does not tell better from worse.
        contradictions: pairs, known ones too, where both orders name the same place.
        first_place: of these, the first.
        outcomes: of all questions.
        calibration: of the judge.
        findings: what is to be said against the judge, or of how it was asked.
    """

    pairs: int
    alike: int
    scored: int
    win_rate: Interval | None
    length_controlled: Interval | None
    length_slope: Interval | None
    corrected: Interval | None
    contradictions: int
    first_place: int
    outcomes: dict[str, int]
    calibration: Calibration
    findings: tuple[str, ...]


def judgement(
    pairs: Sequence[Pair], known: Sequence[Pair], outcomes: Outcomes, tally: Tally, *, made: bool, confidence: float
) -> Judgement:
    """Add up what the judge said.

    Args:
        pairs: to be judged.
        known: pairs whose better answer is known.
        outcomes: of a question.
        tally: of asking.
        made: whether ``known`` were made of references.
        confidence: of the intervals.
    """
    said = {pair: _both(pair, outcomes) for pair in {*pairs, *known}}
    scores = {pair: 0.5 if pair.alike else score(both) for pair, both in said.items()}
    scored = [(pair, value) for pair in pairs if (value := scores[pair]) is not None]
    calibration = _calibration(known, scores, made=made, confidence=confidence)
    values = np.array([value for _, value in scored], dtype=np.float64)
    lengths = np.array([len(pair.one) - len(pair.other) for pair, _ in scored], dtype=np.float64)
    controlled = length_controlled(values, lengths, confidence) if scored else None
    places = Counter(PLACES[both] for pair, both in said.items() if both in PLACES and not pair.alike)
    counts: Counter[str] = Counter(outcome or NONE for pair, both in said.items() if not pair.alike for outcome in both)
    return Judgement(
        pairs=len(pairs),
        alike=sum(pair.alike for pair in pairs),
        scored=len(scored),
        win_rate=_interval(win_rate(values, confidence)) if scored else None,
        length_controlled=None if controlled is None else controlled.rate,
        length_slope=None if controlled is None else controlled.slope,
        corrected=_corrected(scored, known, scores, calibration, confidence),
        contradictions=places.total(),
        first_place=places["first"],
        outcomes=dict(counts),
        calibration=calibration,
        findings=(*_against_judge(calibration, places), *_of_asking(counts, tally)),
    )


def _both(pair: Pair, outcomes: Outcomes) -> tuple[Outcome | None, Outcome | None]:
    first, second = pair.questions()
    return outcomes(first), outcomes(second)


Scores = dict[Pair, float | None]


def _of(known: Sequence[Pair], scores: Scores, wanted: Callable[[Pair], bool], *, better: bool = False) -> Floats:
    """Scores of the known pairs that are wanted; with ``better`` those of the better answer, not of the one."""
    judged = [pair for pair in known if not pair.alike]
    found = [(pair, value) for pair in judged if wanted(pair) and (value := scores[pair]) is not None]
    turned = [1 - value if better and pair.better == "other" else value for pair, value in found]
    return np.array(turned, dtype=np.float64)


def _lead(pair: Pair) -> int:
    """How much longer the better answer is."""
    lead = len(pair.one) - len(pair.other)
    return lead if pair.better == "one" else -lead


def _calibration(known: Sequence[Pair], scores: Scores, *, made: bool, confidence: float) -> Calibration:
    one = _of(known, scores, lambda pair: pair.better == "one")
    other = _of(known, scores, lambda pair: pair.better == "other")
    longer = _of(known, scores, lambda pair: _lead(pair) > 0, better=True)
    shorter = _of(known, scores, lambda pair: _lead(pair) < 0, better=True)

    def rate(found: Floats) -> Interval | None:
        return _interval(known_rate(found, confidence)) if len(found) else None

    return Calibration(
        made=made,
        pairs=len(known),
        scored=len(one) + len(other),
        true_positives=rate(one),
        false_positives=rate(other),
        longer=rate(longer),
        shorter=rate(shorter),
        tells_apart=bool(len(one) and len(other) and tells_apart(one, other, confidence)),
    )


def _corrected(
    scored: Sequence[tuple[Pair, float]],
    known: Sequence[Pair],
    scores: Scores,
    calibration: Calibration,
    confidence: float,
) -> Interval | None:
    """The rate without the judge's errors, which are of pairs that it was asked about alone."""
    if calibration.made or not calibration.tells_apart or not scored:
        return None
    asked = np.array([value for pair, value in scored if not pair.alike], dtype=np.float64)
    alike = len(scored) - len(asked)
    if not len(asked):
        return _interval(win_rate(np.full(alike, 0.5), confidence))  # no judge erred
    better = _of(known, scores, lambda pair: pair.better == "one")
    worse = _of(known, scores, lambda pair: pair.better == "other")
    others = corrected_rate(asked, better, worse, confidence)
    return _interval(with_ties(others, len(asked), alike, confidence))


def _against_judge(calibration: Calibration, places: Counter[str]) -> list[str]:
    from scipy import stats

    found = []
    known = "pairs made of references" if calibration.made else "pairs with known verdicts"
    if not calibration.scored:
        found.append("It is not calibrated: no pair with a known verdict was judged, so nobody knows what it is worth.")
    elif not calibration.tells_apart:
        found.append(
            f"It does not surely tell better answers from worse on {calibration.scored} {known}: no win rate of it "
            "says anything."
        )
    wrong = _wrong(calibration)
    if wrong is not None and calibration.tells_apart and wrong.low > TOLERATED:
        found.append(f"It is wrong in {share(wrong.value)} of {known} ({share(wrong.low)} to {share(wrong.high)}).")
    if places.total() and stats.binomtest(places["first"], places.total()).pvalue < 1 - SURE:
        place = max(places, key=lambda name: places[name])
        found.append(
            f"It prefers the answer that stands {place}: of {places.total()} pairs that it judges otherwise in the "
            f"other order, {places[place]} for that alone."
        )
    longer, shorter = calibration.longer, calibration.shorter
    if longer is not None and shorter is not None and _apart(longer, shorter):
        what = "longer" if longer.value > shorter.value else "shorter"
        found.append(
            f"It prefers the {what} answer: on {known} it is right in {share(longer.value)} where the better is the "
            f"longer, and in {share(shorter.value)} where it is the shorter."
        )
    return found


def _wrong(calibration: Calibration) -> Interval | None:
    """The mean of both kinds of errors, with the bounds of their means."""
    hits, alarms = calibration.true_positives, calibration.false_positives
    if hits is None or alarms is None:
        return None
    return Interval(
        (1 - hits.value + alarms.value) / 2, (1 - hits.high + alarms.low) / 2, (1 - hits.low + alarms.high) / 2
    )


def _apart(one: Interval, other: Interval) -> bool:
    """Whether the intervals do not meet: two of 95 % that do not are further apart than chance allows in 1 of 100."""
    return one.low > other.high or other.low > one.high


def _of_asking(counts: Counter[str], tally: Tally) -> list[str]:
    asked, found = counts.total(), []
    said = {
        "unreadable": "could not be read: the judge did not keep to A, B or TIE",
        "cut": "ended before the verdict: give it a larger --max-tokens",
        "refused": "are refusals",
        REJECTED: "were rejected by its server, as too long for it may be; the same command does not ask them again",
    }
    found += [f"{counts[kind]} of {asked} replies {words}." for kind, words in said.items() if counts[kind]]
    if counts[NONE]:
        found.append(f"{counts[NONE]} of {asked} questions have no reply; the same command asks them.")
    failed = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in sorted(tally.failures.items()))
    if tally.left_out:
        found.append(
            f"Its server does not take {', '.join(tally.left_out)}, so it was left out: a second reply may differ."
        )
    if failed:
        found.append(f"Of {tally.calls} calls these failed: {failed}.")
    return found


def _interval(bounds: Bounds) -> Interval:
    return Interval(float(bounds.value), float(bounds.low), float(bounds.high))
