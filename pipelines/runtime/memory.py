"""How much memory a trial takes at its height."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil
import torch

EVERY_SECONDS = 0.02


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

    def look() -> float:
        heights[0] = max(heights[0], process.memory_info().rss)
        return _megabytes(heights[0])

    def watch() -> None:
        while not ended.wait(EVERY_SECONDS):
            look()

    watcher = threading.Thread(target=watch, name="peak-memory", daemon=True)
    watcher.start()
    try:
        yield look
    finally:
        ended.set()
        watcher.join()


def _megabytes(count: int) -> float:
    return round(count / 1e6, 1)
