"""A device's rates, measured: matrix products of some numbers of rows, traffic of some sizes, and an empty kernel."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from benchmarks.cost.work import Rates

TOKENS = (16, 64, 128, 512, 1024, 4096)
SIZES = (1 << 12, 1 << 16, 1 << 20, 1 << 24, 1 << 28)  # bytes that a kernel moves
TRIED = 3


def measure_rates(
    device: torch.device, dtype: torch.dtype, *, inner: int, columns: int, seconds: float = 0.05, largest: int = 4096
) -> Rates:
    """Measure a device.

    Args:
        device: what.
        dtype: of the products.
        inner: hidden size of the bases that are meant, so that weights lie in the caches as theirs do.
        columns: width of their perceptrons.
        seconds: at least so long is measured for each point, three times, of which the fastest counts.
        largest: number of rows.
    """
    products = []
    for rows in [each for each in TOKENS if each <= largest]:
        # The weights of several layers in turn, which do not lie in a cache from the last time.
        weights = [torch.randn(inner, columns, device=device).to(dtype) for _ in range(4)]
        left = torch.randn(rows, inner, device=device).to(dtype)
        taken = _fastest(partial(_multiply, left, weights), device, seconds) / len(weights)
        products.append((float(rows), 2.0 * rows * inner * columns / taken))
    one = torch.ones(1, device=device)
    launch = _fastest(partial(torch.add, one, 1), device, seconds)
    traffic = []
    for size in SIZES:
        values = torch.ones(max(1, size // 8), device=device)  # fp32, read and written
        taken = _fastest(partial(torch.add, values, 1), device, seconds)
        traffic.append((float(size), size / max(taken - launch, taken / 10)))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return Rates(name, tuple(products), tuple(traffic), launch, queued=device.type != "cpu")


def _multiply(left: Tensor, weights: Sequence[Tensor]) -> None:
    for each in weights:
        left @ each


def _fastest(function: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Return the seconds of one call, of the fastest of some rounds of calls that follow each other."""
    function()
    _finish(device)
    count, found = 1, float("inf")
    for _ in range(TRIED):
        while True:
            started = time.perf_counter()
            for _ in range(count):
                function()
            _finish(device)
            taken = time.perf_counter() - started
            if taken >= seconds / 2:
                break
            count *= 2
        found = min(found, taken / count)
    return found


def _finish(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize()
