"""Seconds of several functions, taken in turn in one process, so that a slow minute of the machine is shared by all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Timing:
    """What one function took.

    Attributes:
        seconds: of each round, in their order.
    """

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle round."""
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The lower and the upper quartile; half of the rounds lie between them."""
        if len(self.seconds) == 1:
            return self.seconds[0], self.seconds[0]
        lower, _, upper = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return lower, upper


def interleaved(functions: Mapping[str, Callable[[], object]], *, repeats: int, warmup: int) -> dict[str, Timing]:
    """Call each function once a round, in turn.

    Args:
        functions: by the names that the result has.
        repeats: how many rounds are measured.
        warmup: how many rounds go before them unmeasured.

    Raises:
        ValueError: if there is no function or no round.
    """
    if not functions or repeats < 1 or warmup < 0:
        raise ValueError(
            f"a measurement needs a function, a round and no negative warm-up; got {len(functions)} functions, "
            f"{repeats} repeats and {warmup} rounds of warm-up; correct them"
        )
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(warmup + repeats):
        for name, function in functions.items():
            taken = _seconds(function)
            if turn >= warmup:
                seconds[name].append(taken)
    return {name: Timing(tuple(taken)) for name, taken in seconds.items()}


def ratio(slow: Timing, fast: Timing) -> float:
    """Return how many times longer ``slow`` took: the median of the rounds' ratios, each of neighbours in time."""
    return statistics.median(one / other for one, other in zip(slow.seconds, fast.seconds, strict=True))


def _seconds(function: Callable[[], object]) -> float:
    _finish()
    started = time.perf_counter()
    function()
    _finish()
    return time.perf_counter() - started


def _finish() -> None:
    """Wait for an accelerator, which works on after a call has returned."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
