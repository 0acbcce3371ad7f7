"""How much memory a trial takes at its height, and what is said where there is not enough."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil
import torch

from pipelines.errors import PipelineError

EVERY_SECONDS = 0.02
# How torch's allocators say it that raise a plain RuntimeError: on the CPU of Linux, on other CPUs, and on MPS.
_NOT_ENOUGH = ("can't allocate memory", "not enough memory", "out of memory")


class OutOfMemoryError(PipelineError):
    """There was not enough memory for a training or a scoring."""


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turn what Python and torch raise where memory is not enough into :class:`OutOfMemoryError`, and nothing else.

    Raises:
        OutOfMemoryError: in their place.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        said = isinstance(error, MemoryError | torch.OutOfMemoryError) or any(one in str(error) for one in _NOT_ENOUGH)
        if not said:
            raise
        raise OutOfMemoryError(
            "there must be enough memory",
            got=" ".join(f"{type(error).__name__}: {error}".split()),
            do="Lower the batch size or the ranks, or set train.gradient_checkpointing.",
        ) from error


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Callable[[], float]]:
    """Measure until the block ends; what it gives says the height so far, in millions of bytes.

    On CUDA that is what torch allocated on the device. Elsewhere it is what the process holds, so the frozen base is in
    it, and what earlier trials left to be used again.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        yield lambda: _megabytes(torch.cuda.max_memory_allocated(device))
        return
    process, ended = psutil.Process(), threading.Event()
    heights = [process.memory_info().rss]

    def height() -> float:
        heights[0] = max(heights[0], process.memory_info().rss)
        return _megabytes(heights[0])

    def watch() -> None:
        while not ended.wait(EVERY_SECONDS):
            height()

    watcher = threading.Thread(target=watch, name="peak-memory", daemon=True)
    watcher.start()
    try:
        yield height
    finally:
        ended.set()
        watcher.join()


def _megabytes(count: int) -> float:
    return round(count / 1e6, 1)
