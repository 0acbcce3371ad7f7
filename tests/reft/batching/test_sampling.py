"""The next token: greedy, drawn, and its log-probability."""

from __future__ import annotations

import math

import pytest
import torch

from reft.batching.sampling import Sampling, choose

LOGITS = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]]))


def draws(sampling: Sampling, count: int) -> list[int]:
    generator = sampling.generator()
    return [choose(LOGITS, [sampling], [generator])[0].id for _ in range(count)]


def test_draws_have_the_shares_of_the_probabilities() -> None:
    found = draws(Sampling(1.0, seed=1), 1500)
    for token, share in enumerate((0.5, 0.3, 0.15, 0.05)):
        assert found.count(token) / 1500 == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / 1500))


def test_top_p_leaves_the_fewest_tokens_that_have_the_share() -> None:
    assert set(draws(Sampling(1.0, 0.7, seed=1), 500)) == {0, 1}  # 0.5 alone is less than 0.7
    assert set(draws(Sampling(1.0, 0.5, seed=1), 500)) == {0}
    assert set(draws(Sampling(1.0, 1e-9, seed=1), 20)) == {0}


def test_a_small_temperature_is_greedy_and_a_large_one_even() -> None:
    assert set(draws(Sampling(1e-300, seed=1), 50)) == {0}
    even = draws(Sampling(1e6, seed=1), 1500)
    assert all(even.count(token) / 1500 == pytest.approx(0.25, abs=0.045) for token in range(4))


def test_log_probabilities_are_the_models_own_whatever_the_temperature() -> None:
    sampling = Sampling(0.5, seed=1, alternatives=2)
    (chosen,) = choose(LOGITS, [sampling], [sampling.generator()])
    assert chosen.logprob == pytest.approx(float(LOGITS[0, chosen.id]), abs=1e-6)
    assert [token for token, _ in chosen.alternatives] == [0, 1]
    assert [value for _, value in chosen.alternatives] == pytest.approx([math.log(0.5), math.log(0.3)], abs=1e-6)
    assert choose(LOGITS, [Sampling()], [None])[0].logprob is None
