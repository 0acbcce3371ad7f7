from __future__ import annotations

import re

import pytest

from benchmarks.sides.timing import Timing, interleaved, ratio
from benchmarks.speed.rotation import HERE, PYREFT, Setting, main, measure

TINY = ["--hidden", "32", "--rank", "2", "--rows", "2", "--positions", "3", "--repeats", "3"]


def test_functions_are_timed_in_turn_after_the_warm_up() -> None:
    calls: list[str] = []
    timings = interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=3, warmup=2)
    assert calls == ["a", "b"] * 5
    assert {name: len(timing.seconds) for name, timing in timings.items()} == {"a": 3, "b": 3}


def test_median_quartiles_and_ratio_are_of_the_rounds() -> None:
    slow, fast = Timing((2.0, 30.0, 6.0)), Timing((1.0, 3.0, 2.0))
    assert (slow.median, slow.quartiles) == (6.0, (4.0, 18.0))
    assert Timing((2.0,)).quartiles == (2.0, 2.0)
    assert ratio(slow, fast) == 3.0  # of 2, 10 and 3: not of the medians alone


@pytest.mark.parametrize(("count", "repeats", "warmup"), [(0, 1, 0), (1, 0, 0), (1, 1, -1)])
def test_a_measurement_of_nothing_is_refused(count: int, repeats: int, warmup: int) -> None:
    with pytest.raises(ValueError, match="needs a function, a round"):
        interleaved({str(name): lambda: None for name in range(count)}, repeats=repeats, warmup=warmup)


def test_the_table_says_what_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(TINY) == 0
    printed = capsys.readouterr().out
    assert "d = 32, r = 2, 2 x 3 tokens, fp32, cpu, threads: 1, rounds in turn: 3" in printed
    row = r"^\| (pyreft|here) +\| +[\d.]+ \| +[\d.]+ to [\d.]+ \| +\d+ \| +([\d.]+) \|$"
    rows = dict(re.findall(row, printed, re.MULTILINE))
    assert rows == {PYREFT: "18.1", HERE: "5.1"}
    assert re.search(r"pyreft takes [\d.]+ times as long and keeps 3.5 times as much\.", printed)


def test_a_ratio_below_the_wanted_one_is_an_exit_code() -> None:
    assert main([*TINY, "--at-least", "1e9"]) == 1


def test_memory_is_of_order_d_r_and_pyrefts_of_order_d_squared() -> None:
    """Ours: R's parameter, what it is read by, W and b; and, kept without gradients, R with what it belongs to."""
    for hidden in (32, 64):
        costs = measure(Setting(hidden=hidden, rank=2, rows=1, positions=1, repeats=1, warmup=0))
        assert costs[HERE].memory == 4 * (5 * hidden * 2 + 2 + 2 * 2 + 2)
        assert costs[PYREFT].memory >= 4 * (hidden * hidden + 2 * hidden * 2 + 2)
