"""A device's rates, measured: matrix products of some numbers of rows, traffic of some sizes, losses, kernel starts.

What it takes to start a kernel is that of a training step of a base so small that it does little else: Python, modules
and autograd's engine are in it, as they are in a larger one's.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmarks.cost.step import Recipe, Shape, rows_of, step
from benchmarks.cost.work import Rates
from benchmarks.sides.others import floor_training
from benchmarks.sides.ours import Case, fit_config
from benchmarks.sides.random_base import random_subject

TOKENS = (16, 64, 128, 512, 1024, 4096)
SIZES = (1 << 12, 1 << 16, 1 << 20, 1 << 24, 1 << 26, 1 << 28)  # bytes that a kernel moves
LOGITS = (16, 256, 1024, 4096)  # tokens whose loss is computed
TRIED = 3
SMALL, SMALL_ROWS, SMALL_PROMPT, SMALL_STEPS = "tiny", 2, 16, 100  # of the step that starting kernels is measured by


def measure_rates(
    device: torch.device,
    dtype: torch.dtype,
    *,
    inner: int,
    columns: int,
    vocabulary: int,
    seconds: float = 0.05,
    largest: int = 4096,
) -> Rates:
    """Measure a device.

    Args:
        device: what.
        dtype: of the products.
        inner: hidden size of the bases that are meant, so that weights lie in the caches as theirs do.
        columns: width of their perceptrons.
        vocabulary: their tokens.
        seconds: at least so long is measured for each point, three times, of which the middle one counts: rates are to
            be those that a step finds, beside whatever else the device does.
        largest: number of rows.
    """
    products = []
    for rows in [each for each in TOKENS if each <= largest]:
        # The weights of several layers in turn, which do not lie in a cache from the last time.
        weights = [torch.randn(inner, columns, device=device).to(dtype) for _ in range(4)]
        left = torch.randn(rows, inner, device=device).to(dtype)
        taken = _median(partial(_multiply, left, weights), device, seconds) / len(weights)
        products.append((float(rows), 2.0 * rows * inner * columns / taken))
    one = torch.ones(1, device=device)
    empty = _median(partial(torch.add, one, 1), device, seconds)
    traffic = []
    for size in SIZES:
        values = torch.ones(max(1, size // 8), device=device)  # fp32, read and written
        taken = _median(partial(torch.add, values, 1), device, seconds)
        traffic.append((float(size), size / max(taken - empty, taken / 10)))
    losses = []
    for rows in [each for each in LOGITS if each <= largest]:
        logits = torch.randn(rows, vocabulary, device=device, requires_grad=True)
        right = torch.zeros(rows, dtype=torch.long, device=device)
        losses.append((float(logits.numel()), logits.numel() / _median(partial(_lose, logits, right), device, seconds)))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return Rates(
        name,
        tuple(products),
        tuple(traffic),
        _start(device, dtype, seconds),
        queued=device.type != "cpu",
        losses=tuple(losses),
    )


def _start(device: torch.device, dtype: torch.dtype, seconds: float) -> float:
    """Return the seconds that one of the kernels of a small base's frozen step takes."""
    subject = random_subject(SMALL, device, dtype, texts=1)
    rows, case = subject.rows(SMALL_PROMPT, SMALL_ROWS), Case("", "all", "l1", 1)
    training = floor_training(
        subject, case.config(subject.num_layers), rows, fit_config(SMALL_ROWS, epochs=SMALL_STEPS)
    )
    taken = _median(training.step, device, seconds)
    shape = Shape.of(subject.base.config, dtype.itemsize)
    works = step(shape, Recipe((0,), first=0, last=1, rank=1), rows_of(rows), "floor")
    return taken / sum(work.kernels for work in works)


def _multiply(left: Tensor, weights: Sequence[Tensor]) -> None:
    for each in weights:
        left @ each


def _lose(logits: Tensor, right: Tensor) -> None:
    torch.autograd.grad(cross_entropy(logits, right), logits)


def _median(function: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Return the seconds of one call, of the middle one of some rounds of calls that follow each other."""
    function()
    _finish(device)
    count, found = 1, []
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
        found.append(taken / count)
    return statistics.median(found)


def _finish(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize()
