"""Alignments that are learned and searched for: in networks whose variables are known, and in one that was taught."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from statistics import mean, stdev

import pytest
import torch
from torch import Tensor, nn

from benchmarks.causal.__main__ import SEEDS, SETTING
from benchmarks.causal.equality import measure
from reft.causal import (
    Accuracy,
    BoundlessSwap,
    Counterfactual,
    DasConfig,
    Hypothesis,
    ModuleProbe,
    RotatedSwap,
    Taken,
    UnitSwap,
    VectorSwap,
    answer_accuracy,
    interchange_accuracy,
    learn_rotation,
    search_units,
    unchanged_accuracy,
    unit_blocks,
    unit_choices,
)
from reft.causal.equality import EQUALITY, LEFT, RIGHT, draw_counterfactuals, draw_objects
from reft.causal.price_range import LOWER, PRICE_RANGE, UPPER, PriceQuestion, draw_questions
from reft.causal.price_range import draw_counterfactuals as draw_price_rows
from reft.edits.orthogonal import qf

SIGNS: Hypothesis[Tensor] = Hypothesis(
    {"a": lambda x: bool(x[0] > 0), "b": lambda x: bool(x[1] > 0)}, lambda values: int(values["a"] == values["b"])
)
"""Whether two numbers have the same sign."""


class Signs(nn.Module):
    """Holds two numbers along two directions of a turned space of six; answers by the product of their signs."""

    def __init__(self, turn: Tensor) -> None:
        super().__init__()
        self.state = nn.Linear(6, 6, bias=False)
        self.turn = turn
        with torch.no_grad():
            self.state.weight.copy_(turn)

    def forward(self, numbers: Tensor) -> Tensor:
        back = self.state(numbers) @ self.turn
        same = 4 * torch.tanh(back[:, 0]) * torch.tanh(back[:, 1])
        return torch.stack([-same, same], dim=-1)


def numbers(count: int, seed: int) -> Tensor:
    drawn = torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))
    return drawn + 0.3 * drawn.sign()


def sign_rows(count: int, seed: int) -> list[Counterfactual[Tensor]]:
    bases, sources = numbers(count, seed), numbers(count, seed + 1)
    return [SIGNS.counterfactual(base, {"a": source}) for base, source in zip(bases, sources, strict=True)]


def turned_probe() -> ModuleProbe:
    return ModuleProbe(Signs(qf(torch.randn(6, 6, generator=torch.Generator().manual_seed(7)))))


CONFIG = DasConfig(epochs=20, batch_size=64, learning_rate=5e-2, seed=0)


def learned(swap: RotatedSwap | BoundlessSwap, rows: list[Counterfactual[Tensor]]) -> None:
    for _ in learn_rotation(turned_probe(), "state", swap, rows, CONFIG):
        pass


def test_das_finds_the_direction_of_a_variable_and_units_do_not() -> None:
    probe, rows, test = turned_probe(), sign_rows(512, 0), sign_rows(256, 10)
    swap = RotatedSwap(6, {"a": 1}, torch.Generator().manual_seed(0))
    before = interchange_accuracy(probe, "state", swap, test, batch_size=64).value
    learned(swap, rows)
    after = interchange_accuracy(probe, "state", swap, test, batch_size=64).value
    assert after > 0.97
    assert before < 0.8
    found, true = swap.rotation()[0], probe.module.turn[:, 0]  # type: ignore[union-attr, index]
    assert abs(float(found @ true)) > 0.97
    best = search_units(probe, "state", test, [u for size in (1, 2, 3) for u in unit_choices(6, ["a"], size)])[0]
    assert best.accuracy.value < after - 0.05


def test_an_alignment_along_the_axes_is_found_by_units() -> None:
    probe, rows = ModuleProbe(Signs(torch.eye(6))), sign_rows(128, 3)
    fits = search_units(probe, "state", rows, unit_choices(6, ["a"], 1), chunk=4)
    assert (fits[0].units, fits[0].accuracy.value) == ({"a": (0,)}, 1.0)
    for fit in fits:  # each as the swap of its units alone gives it
        swap = UnitSwap(6, fit.units)
        assert interchange_accuracy(probe, "state", swap, rows, batch_size=50) == fit.accuracy


def test_the_same_seed_learns_the_same_bits() -> None:
    swaps = [RotatedSwap(6, {"a": 2}, torch.Generator().manual_seed(1)) for _ in range(2)]
    for swap in swaps:
        learned(swap, sign_rows(128, 0))
    assert torch.equal(swaps[0].rotation(), swaps[1].rotation())


def test_rows_that_move_nothing_new_are_answered_as_they_are() -> None:
    probe, inputs = turned_probe(), numbers(40, 5)
    rows = [SIGNS.counterfactual(each, {"a": each}) for each in inputs]
    labels = [SIGNS.label(each) for each in inputs]
    expected = answer_accuracy(probe, list(inputs), labels, batch_size=16)
    assert expected.value > 0.95
    assert unchanged_accuracy(probe, rows, batch_size=7) == expected
    assert interchange_accuracy(probe, "state", VectorSwap(["a"]), rows, batch_size=9) == expected


@pytest.mark.long
def test_hierarchical_equality_is_found_by_das_and_not_by_units() -> None:
    """Three networks, each taught with its own seed: means, and how far the seeds lie apart."""
    outcomes = [measure(seed, SETTING) for seed in SEEDS]
    assert min(outcome.network for outcome in outcomes) > 0.99
    assert {outcome.choices for outcome in outcomes} == {12_870}  # 16 over 8
    das, localist, random = ([getattr(outcome, name) for outcome in outcomes] for name in ("das", "localist", "random"))
    assert mean(das) > 0.95
    assert stdev(das) < 0.06
    assert stdev(localist) < 0.06
    assert max(localist) < min(das) - 0.1
    assert max(random) < min(das) - 0.2


def test_the_counterfactual_of_equality_is_that_of_its_parts() -> None:
    rows = draw_counterfactuals(60, torch.Generator().manual_seed(0))
    for row in rows:
        values = {name: value(row.base) for name, value in EQUALITY.variables.items()}
        values |= {each.variable: EQUALITY.variables[each.variable](each.source) for each in row.taken}
        assert row.label == int(values[LEFT] == values[RIGHT])
    assert {tuple(each.variable for each in row.taken) for row in rows} == {(LEFT,), (RIGHT,), (LEFT, RIGHT)}
    inputs, labels = draw_objects(400, torch.Generator().manual_seed(1))
    assert [EQUALITY.label(each) for each in inputs] == labels.tolist()
    assert 0.4 < labels.float().mean() < 0.6


def test_price_rows_are_balanced_and_moving_the_answer_is_wrong_in_some() -> None:
    questions = draw_questions(80, Random(0))
    assert len(set(questions)) == 80
    rows = draw_price_rows(questions, LOWER, 200, Random(1))
    changed = [row.label != PRICE_RANGE.label(row.base) for row in rows]
    assert (sum(changed), sum(row.label for row in rows)) == (100, 100)
    answer_moved = [row.label == PRICE_RANGE.label(row.taken[0].source) for row in rows]
    assert 20 < sum(answer_moved) < 180
    for row in rows:
        base, source = row.base, row.taken[0].source
        assert row.label == int(source.lower <= source.price and base.price <= base.upper)
    assert PRICE_RANGE.variables[UPPER](PriceQuestion(20, 40, 40)) is True


def test_the_interval_is_wilsons() -> None:
    # scipy.stats.binomtest(18, 20).proportion_ci(0.95, "wilson")
    assert Accuracy(18, 20).interval == pytest.approx((0.6989663547715128, 0.9721335187862319), abs=1e-12)
    assert Accuracy(20, 20).interval[1] == 1.0


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Counterfactual(1, (), 0), "moves one variable or more"),
        (lambda: Counterfactual(1, (Taken("a", 2), Taken("a", 3)), 0), "each once"),
        (lambda: Counterfactual(1, (Taken("a", 2),), -1), "place of an answer"),
        (lambda: SIGNS.counterfactual(numbers(1, 0)[0], {"c": numbers(1, 1)[0]}), "variables of this hypothesis are a"),
        (lambda: interchange_accuracy(turned_probe(), "state", VectorSwap(["a"]), [], batch_size=1), "a row or more"),
        (lambda: DasConfig(0, 1, 1e-3, 0), "epochs must be at least 1"),
        (lambda: DasConfig(1, 1, float("nan"), 0), "learning_rate must be above 0"),
        (lambda: unit_choices(40, ["a"], 20), "at most 1000000 choices"),
        (lambda: unit_choices(4, ["a", "b", "c"], 1), "one variable or two"),
        (lambda: unit_choices(4, ["a", "b"], 4), "a unit or more"),
        (lambda: draw_price_rows(draw_questions(1, Random(0)), LOWER, 4, Random(0)), "four kinds"),
    ],
)
def test_what_is_refused(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


def test_blocks_of_units_cover_the_state() -> None:
    assert list(unit_blocks(5, "a", 2)) == [{"a": (0, 1)}, {"a": (2, 3)}, {"a": (4,)}]
