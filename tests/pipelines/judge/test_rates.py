"""Win rates without a judge's errors: their intervals hold the planted truth, at several truths and few known pairs."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.judge.rates import Floats, corrected_rate, known_rate, tells_apart, win_rate, with_ties

RUNS = 1000
# Of 1,000 runs at a coverage of 95 % fewer than 930 are within once in 500 (binomial); 93 of 100 is what is promised.
LEAST = 0.93
NORMAL = 1.959963984540054  # the quantile at 97.5 %, of any table


def judged(
    generator: np.random.Generator,
    truth: np.ndarray,
    wrong: float | tuple[float, float],
    *,
    place: float = 0.0,
    ties: float = 0.0,
) -> Floats:
    """Scores of pairs by a judge who errs in a share of questions, and else in some names the first place.

    Args:
        generator: draws.
        truth: whether the one is the better.
        wrong: share of the questions; of two, where the one is the better, and where the other is.
        place: share of the others in which the first place is named.
        ties: share of all that are called a tie.
    """
    of_one, of_other = wrong if isinstance(wrong, tuple) else (wrong, wrong)

    def verdict(*, one_first: bool) -> np.ndarray:
        says_one = truth ^ (generator.random(truth.shape) < np.where(truth, of_one, of_other))
        named = np.where(generator.random(truth.shape) < place, one_first, says_one).astype(np.float64)
        return np.where(generator.random(truth.shape) < ties, 0.5, named) if ties else named

    return (verdict(one_first=True) + verdict(one_first=False)) / 2


@pytest.mark.parametrize("known", [5, 10, 30, 100])
@pytest.mark.parametrize(("wrong", "place"), [(0.2, 0.0), (0.05, 0.0), (0.35, 0.0), (0.2, 0.5), (0.0, 0.0)])
def test_the_corrected_rate_is_within_its_interval_of_the_planted_truth(wrong: float, place: float, known: int) -> None:
    generator = np.random.default_rng([known, int(100 * wrong), int(10 * place)])
    for truth in (0.02, 0.2, 0.5, 0.8, 0.98):
        for pairs in (30, 200):
            scores = judged(generator, generator.random((RUNS, pairs)) < truth, wrong, place=place)
            better = judged(generator, np.ones((RUNS, known), dtype=bool), wrong, place=place)
            worse = judged(generator, np.zeros((RUNS, known), dtype=bool), wrong, place=place)
            found = corrected_rate(scores, better, worse, 0.95)
            within = ((found.low <= truth) & (truth <= found.high)).mean()
            assert within >= LEAST, (truth, pairs, within)


@pytest.mark.parametrize("known", [10, 30])
@pytest.mark.parametrize(("wrong", "ties"), [((0.1, 0.4), 0.0), ((0.0, 0.2), 0.0), ((0.1, 0.4), 0.3)])
def test_it_is_so_of_a_judge_who_favours_one_system_and_calls_ties(
    wrong: tuple[float, float], ties: float, known: int
) -> None:
    """Rates of true and false positives that do not add up to 1, as those of the judges above do."""
    generator = np.random.default_rng([known, int(100 * sum(wrong)), int(10 * ties)])
    for truth in (0.2, 0.5, 0.8):
        scores = judged(generator, generator.random((RUNS, 100)) < truth, wrong, ties=ties)
        better = judged(generator, np.ones((RUNS, known), dtype=bool), wrong, ties=ties)
        worse = judged(generator, np.zeros((RUNS, known), dtype=bool), wrong, ties=ties)
        found = corrected_rate(scores, better, worse, 0.95)
        within = ((found.low <= truth) & (truth <= found.high)).mean()
        assert within >= LEAST, (truth, within)


@pytest.mark.parametrize("truth", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_with_pairs_that_are_alike_the_whole_rate_is_within_its_interval(truth: float, share: float) -> None:
    """A judge who names the one in 90 % of the pairs that it won and in 40 % of the others; each row may be alike."""
    generator, within = np.random.default_rng([int(10 * truth), int(10 * share)]), 0
    known, whole = 30, truth * (1 - share) + share / 2
    for _ in range(RUNS):
        alike = int(generator.binomial(200, share))
        asked = judged(generator, generator.random(200 - alike) < truth, (0.1, 0.4))
        better = judged(generator, np.ones(known, dtype=bool), (0.1, 0.4))
        worse = judged(generator, np.zeros(known, dtype=bool), (0.1, 0.4))
        found = with_ties(corrected_rate(asked, better, worse, 0.95), len(asked), alike, 0.95)
        within += bool(found.low <= whole <= found.high)
    assert within / RUNS >= LEAST, within


def test_without_pairs_that_are_alike_the_rate_of_all_is_that_of_the_asked() -> None:
    generator = np.random.default_rng(6)
    scores = judged(generator, generator.random(80) < 0.7, 0.2)
    better, worse = (judged(generator, np.full(20, side), 0.2) for side in (True, False))
    found = corrected_rate(scores, better, worse, 0.95)
    whole = with_ties(found, 80, 0, 0.95)
    for figure, other in ((found.value, whole.value), (found.low, whole.low), (found.high, whole.high)):
        assert float(figure) == pytest.approx(float(other))


def test_what_the_judge_says_is_not_within_its_interval_of_the_truth() -> None:
    """So that the test above can fail: of a judge wrong in 20 % the win rate as it stands misses a truth of 80 %."""
    generator = np.random.default_rng(0)
    scores = judged(generator, generator.random((RUNS, 200)) < 0.8, 0.2)
    found = win_rate(scores, 0.95)
    assert ((found.low <= 0.8) & (found.high >= 0.8)).mean() < 0.1
    assert scores.mean() == pytest.approx(0.8 * 0.8 + 0.2 * 0.2, abs=0.01)


def test_the_figure_is_that_of_rogan_and_gladen() -> None:
    """(0.6 - 0.1) / (0.9 - 0.1), by hand."""
    scores, better, worse = (
        np.repeat([1.0, 0.0], [60, 40]),
        np.repeat([1.0, 0.0], [9, 1]),
        np.repeat([1.0, 0.0], [1, 9]),
    )
    assert float(corrected_rate(scores, better, worse, 0.95).value) == pytest.approx(0.625)


def test_a_judge_known_not_to_err_leaves_the_interval_of_the_pairs() -> None:
    """By hand: 60 of 100 with z² added, half of them 1 (Agresti & Coull 1998)."""
    scores = np.repeat([1.0, 0.0], [60, 40])
    many = 1_000_000
    found = corrected_rate(scores, np.ones(many), np.zeros(many), 0.95)
    count = 100 + NORMAL**2
    middle = (60 + NORMAL**2 / 2) / count
    reach = NORMAL * np.sqrt(middle * (1 - middle) / count)
    assert [float(found.low), float(found.high)] == pytest.approx([middle - reach, middle + reach], abs=1e-4)
    raw = win_rate(scores, 0.95)
    assert [float(raw.low), float(raw.high)] == pytest.approx([middle - reach, middle + reach], abs=1e-12)


def test_the_bounds_solve_fiellers_equation() -> None:
    generator = np.random.default_rng(3)
    scores = judged(generator, generator.random(80) < 0.6, 0.2)
    better = judged(generator, np.ones(25, dtype=bool), 0.2)
    worse = judged(generator, np.zeros(25, dtype=bool), 0.2)
    found = corrected_rate(scores, better, worse, 0.95)

    def added(values: Floats, more: float) -> tuple[float, float]:
        """Mean, and its variance, with some ones and as many zeros."""
        weights = np.concatenate([np.ones(len(values)), [more / 2, more / 2]])
        whole = np.concatenate([values, [1.0, 0.0]])
        mean = np.average(whole, weights=weights)
        return float(mean), float(np.average((whole - mean) ** 2, weights=weights) / weights.sum())

    (w, of_w), (t, of_t), (f, of_f) = added(scores, NORMAL**2), added(better, 2), added(worse, 2)
    for bound in (float(found.low), float(found.high)):
        assert 0 < bound < 1
        variance = of_w + bound**2 * of_t + (1 - bound) ** 2 * of_f
        assert (w - f - bound * (t - f)) ** 2 == pytest.approx(NORMAL**2 * variance, rel=1e-9)


def test_a_judge_who_tells_nothing_rules_nothing_out() -> None:
    ties = np.full(50, 0.5)
    found = corrected_rate(ties, ties, ties, 0.95)
    assert np.isnan(found.value)
    assert (float(found.low), float(found.high)) == (0.0, 1.0)
    assert not tells_apart(ties, ties, 0.95)
    assert not tells_apart(np.zeros(50), np.ones(50), 0.95)  # who always prefers the worse
    assert tells_apart(np.ones(50), np.zeros(50), 0.95)


def test_exchanging_the_systems_turns_the_figures_round() -> None:
    generator = np.random.default_rng(4)
    scores = judged(generator, generator.random(80) < 0.7, 0.2)
    better, worse = (judged(generator, np.full(20, side), 0.2) for side in (True, False))
    found, turned = corrected_rate(scores, better, worse, 0.95), corrected_rate(1 - scores, 1 - worse, 1 - better, 0.95)
    for figure, other in ((found.value, turned.value), (found.low, turned.high), (found.high, turned.low)):
        assert float(figure) == pytest.approx(1 - float(other))


def test_rates_of_few_pairs_are_within_their_interval() -> None:
    generator = np.random.default_rng(5)
    for rate in (0.5, 0.8, 0.95):
        found = known_rate((generator.random((RUNS, 20)) < rate).astype(np.float64), 0.95)
        assert ((found.low <= rate) & (rate <= found.high)).mean() >= LEAST - 0.01
