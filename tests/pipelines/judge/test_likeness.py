"""Figures without a judge are of the rows that both systems have something of, and say how many those are."""

from __future__ import annotations

import pytest

from pipelines.judge.answers import Losses
from pipelines.judge.gather import Compared
from pipelines.judge.likeness import measured
from pipelines.judge.pairs import Pair
from pipelines.judge.systems import System
from pipelines.model.intervals import Resampling, each_alone

HOW = Resampling(0.95, 100, 0, each_alone(3))
PAIRS = [Pair(f"r:{n}", f"Say {n}.", f"one {n}", f"another {n}") for n in range(3)]


def compared(references: list[str], losses: tuple[Losses, Losses]) -> Compared:
    return Compared(PAIRS, references, (System("adapter"), System("base")), 0, losses)


def test_losses_are_of_rows_that_both_systems_can_read() -> None:
    """By hand: nats a token of rows 0 and 1 together; row 2, which the one alone reads, would make it 102/12."""
    one: Losses = {"r:0": (10.0, 5), "r:1": (2.0, 5), "r:2": (90.0, 2)}
    found = measured(
        compared(["a", "b", "c"], (one, {"r:1": (6.0, 5), "r:0": (12.0, 5)})), HOW, against_reference=False
    )
    assert found.other is not None
    assert found.difference is not None
    assert found.one.loss is not None
    assert found.other.loss is not None
    assert found.difference.loss is not None
    assert (found.one.with_loss, found.other.with_loss) == (2, 2)
    assert (found.one.loss.value, found.other.loss.value) == pytest.approx((1.2, 1.8))
    assert found.difference.loss.value == pytest.approx(-0.6)
    assert found.difference.loss.low == pytest.approx(-0.8)  # row 1 twice, and row 0 twice: of rows of as many tokens
    assert found.difference.loss.high == pytest.approx(-0.4)


def test_chrf_is_of_the_rows_with_a_reference_and_says_how_many() -> None:
    found = measured(compared(["one 0", "", "one 2"], ({}, {})), HOW, against_reference=False)
    assert found.one.chrf is not None
    assert (found.one.rows, found.one.with_reference, found.one.chrf.value) == (3, 2, pytest.approx(1.0))
    assert found.one.loss is None
    assert found.difference is not None
    assert found.difference.chrf is not None
    assert found.difference.chrf.value > 0
    none = measured(compared(["", "", ""], ({}, {})), HOW, against_reference=True)
    assert (none.one.chrf, none.one.with_reference) == (None, 0)
