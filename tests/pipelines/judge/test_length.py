"""The win rate at equal lengths: a half of a judge who looks at length alone, the planted one of one who does not."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.judge.length import length_controlled


def sigmoid(value: np.ndarray | float) -> np.ndarray:
    return 1 / (1 + np.exp(-np.asarray(value)))


def test_it_is_within_its_interval_of_the_planted_rate() -> None:
    """Pairs of the model's own making, with answers that are longer on the whole: 300 runs in each of six cells."""
    generator = np.random.default_rng(0)
    for level, slope in ((0.0, 0.0), (0.0, 2.0), (1.0, 0.0), (1.0, 2.0), (-1.0, 0.0), (-1.0, 2.0)):
        within = 0
        for _ in range(300):
            lead = generator.normal(200, 300, size=80).round()
            chance = sigmoid(level + slope * np.tanh(lead / lead.std(ddof=1)))
            scores = (generator.random(80) < chance) * 0.5 + (generator.random(80) < chance) * 0.5
            found = length_controlled(scores, lead, 0.95)
            assert found is not None
            within += found.rate.low <= sigmoid(level) <= found.rate.high
        assert within / 300 >= 0.92, (level, slope, within)  # 0.95 less two and a half standard errors


@pytest.mark.parametrize("count", [30, 100])
@pytest.mark.parametrize("rate", [0.92, 0.97])
def test_it_is_so_far_from_a_half(rate: float, count: int) -> None:
    """Where nearly all pairs are won, or two calls of a pair in both orders, and longer answers win beside."""
    generator = np.random.default_rng([count, int(100 * rate)])
    for slope in (0.0, 2.0):
        within = 0
        for _ in range(300):
            lead = generator.normal(100, 300, size=count).round()
            chance = sigmoid(np.log(rate / (1 - rate)) + slope * np.tanh(lead / lead.std(ddof=1)))
            scores = (generator.random(count) < chance) * 0.5 + (generator.random(count) < chance) * 0.5
            found = length_controlled(scores, lead, 0.95)
            assert found is not None
            within += found.rate.low <= rate <= found.rate.high
        assert within / 300 >= 0.88, (slope, within)  # 0.91, which docs/judge.md says, less two standard errors


def test_a_judge_who_prefers_the_longer_answer_has_no_winner_at_equal_lengths() -> None:
    """With answers mostly longer the win rate is 90 %, of which at equal lengths nothing is surely left."""
    lead = np.concatenate([np.linspace(10, 400, 90), np.linspace(-300, -10, 10)])
    scores = (lead > 0).astype(np.float64)
    found = length_controlled(scores, lead, 0.95)
    assert found is not None
    assert scores.mean() == 0.9
    assert found.slope.low > 0
    assert found.rate.low < 0.5 < found.rate.high
    assert np.isfinite([found.rate.value, found.slope.value]).all()  # although length separates won from lost


def test_exchanging_the_systems_turns_the_rate_round() -> None:
    """A property that AlpacaEval's own has."""
    generator = np.random.default_rng(1)
    lead, scores = generator.normal(50, 100, size=60).round(), generator.integers(3, size=60) / 2
    found, turned = length_controlled(scores, lead, 0.95), length_controlled(1 - scores, -lead, 0.95)
    assert found is not None
    assert turned is not None
    assert 1 - turned.rate.value == pytest.approx(found.rate.value)
    assert turned.slope.value == pytest.approx(found.slope.value)


def test_with_many_pairs_it_is_the_fit_of_maximum_likelihood() -> None:
    """scikit-learn's, without a penalty: Firth's is gone with the number of pairs."""
    from sklearn.linear_model import LogisticRegression

    generator = np.random.default_rng(2)
    lead = generator.normal(30, 100, size=5000).round()
    scores = (generator.random(5000) < sigmoid(0.5 + np.tanh(lead / lead.std(ddof=1)))).astype(np.float64)
    found = length_controlled(scores, lead, 0.95)
    fitted = LogisticRegression(C=1e9).fit(np.tanh(lead / lead.std(ddof=1))[:, None], scores)
    assert found is not None
    assert found.rate.value == pytest.approx(float(sigmoid(fitted.intercept_[0])), abs=1e-3)
    assert found.slope.value == pytest.approx(float(fitted.coef_[0, 0]), abs=5e-3)


def test_lengths_that_differ_alike_cannot_be_told_from_the_rest() -> None:
    assert length_controlled(np.array([1.0, 0.0, 1.0]), np.full(3, 40.0), 0.95) is None
    assert length_controlled(np.array([1.0, 0.0]), np.array([1.0, 2.0]), 0.95) is None


def test_a_side_that_is_longer_by_much_more_than_that_varies_has_no_rate_at_equal_lengths() -> None:
    """tanh of 500 ± 3 over their deviation of 2 is 1 to the last bit: nothing is known of equal lengths."""
    lead, scores = np.linspace(497, 503, 30), np.arange(30) % 3 / 2
    assert length_controlled(scores, lead, 0.95) is None
    assert length_controlled(scores, -lead, 0.95) is None


@pytest.mark.parametrize("ratio", [0.0, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0])
def test_however_much_one_side_is_longer_there_is_a_finite_rate_or_none(ratio: float) -> None:
    """Up to a mean of one standard deviation there always is one, and from five on none."""
    generator, found = np.random.default_rng(3), []
    for _ in range(50):
        lead = generator.normal(100 * ratio, 100, size=30)
        found.append(length_controlled(generator.integers(3, size=30) / 2, lead, 0.95))
    told = [one for one in found if one is not None]
    assert all(np.isfinite([*vars(one.rate).values(), *vars(one.slope).values()]).all() for one in told)
    if ratio <= 1:
        assert len(told) == len(found)
    if ratio >= 5:
        assert not told
