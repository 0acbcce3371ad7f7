"""Which dtype of the base's weights this machine multiplies faster: halved numbers are not faster everywhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import linear

from pipelines.runtime.device import torch_threads

WIDTH = 256  # of a base that is not known yet
WIDEST = 768  # that is measured: a dtype without instructions of its own multiplies 1e9 numbers a second
TOKENS = (8 * 14, 32 * 14)
"""Of eight rows whose edited ends run alone, and of four whole prompts."""
DIRECTIONS = ("forward", "backward")
ROUNDS = 3  # at most
ENOUGH = 0.2  # seconds of a dtype, after which no further round begins
SAME = 1.1  # times as long that are told apart from none


@dataclass(frozen=True)
class Products:
    """Seconds of products with a weight of the base's width, the fastest of the rounds.

    Attributes:
        seconds: by the dtype's name, for each of ``DIRECTIONS`` each of ``TOKENS``.
    """

    seconds: dict[str, tuple[tuple[float, ...], ...]]

    def times(self, dtype: str, other: str) -> tuple[tuple[float, ...], ...]:
        """Return how many times as long as in ``other`` products in ``dtype`` take, in the order of ``seconds``."""
        pairs = zip(self.seconds[dtype], self.seconds[other], strict=True)
        return tuple(tuple(one / two for one, two in zip(*pair, strict=True)) for pair in pairs)

    def better_than(self, dtype: str) -> str | None:
        """Return the dtype that is faster in everything that was measured; None where there is none."""
        others = [
            other
            for other in self.seconds
            if other != dtype and min(min(each) for each in self.times(dtype, other)) > SAME
        ]
        return min(others, key=lambda other: sum(map(sum, self.seconds[other])), default=None)


def measure_products(dtypes: Sequence[str], *, width: int, device: torch.device, threads: int) -> Products:
    """Multiply states by a square weight as a layer does, and gradients as its backward pass does, in each dtype.

    Args:
        dtypes: names of torch's.
        width: of the base's states.
        device: where.
        threads: of torch on a CPU.
    """
    with torch_threads(threads):
        return Products({name: _fastest(min(width, WIDEST), name, device) for name in dtypes})


def _fastest(width: int, dtype: str, device: torch.device) -> tuple[tuple[float, ...], ...]:
    weight = torch.randn(width, width, device=device).to(getattr(torch, dtype))
    states = [torch.randn(tokens, width, device=device).to(weight.dtype) for tokens in TOKENS]
    work: list[Callable[[], Tensor]] = [partial(linear, each, weight) for each in states]
    work += [partial(torch.matmul, each, weight) for each in states]
    for each in work[:: len(TOKENS)]:  # the fewest tokens warm up what the others use too
        each()
    found, spent = [float("inf")] * len(work), 0.0
    for _ in range(ROUNDS):
        taken = [_seconds(each, device) for each in work]
        found, spent = [min(pair) for pair in zip(found, taken, strict=True)], spent + sum(taken)
        if spent > ENOUGH:
            break
    return tuple(found[: len(TOKENS)]), tuple(found[len(TOKENS) :])


def _seconds(work: Callable[[], Tensor], device: torch.device) -> float:
    _finish(device)
    started = time.perf_counter()
    work()
    _finish(device)
    return time.perf_counter() - started


def _finish(device: torch.device) -> None:
    """Wait for an accelerator, which works on after a call has returned."""
    if device.type != "cpu":
        torch.accelerator.synchronize()
