"""Operations, bytes and kernels of a piece of work, and how long a device takes for it."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Work:
    """A kind of kernel, run some number of times.

    Attributes:
        name: what it is of, for tables.
        operations: of matrix products, of one kernel: two for each multiplication with its addition.
        bytes: that one kernel reads and writes.
        rows: of the product's left matrix, which its rate follows; 0 for what is no product.
        kernels: how many.
        logits: that one kernel makes the loss and its derivative of.
    """

    name: str
    operations: float
    bytes: float
    rows: int
    kernels: float = 1.0
    logits: float = 0.0

    def times(self, count: float) -> Work:
        """Return the same work so many times."""
        return replace(self, kernels=self.kernels * count)


@dataclass(frozen=True)
class Rates:
    """What a device does in a second, measured or from its data sheet.

    Attributes:
        device: its name.
        products: rows of a product and operations a second of such a one, ascending in the rows.
        traffic: bytes of a kernel that computes nothing to speak of and bytes a second of such a one, ascending.
        launch: seconds until a kernel that does nothing has been run.
        losses: numbers of logits and logits a second that a loss and its derivative take; none where only bytes count.
        queued: whether the device works on while the program starts the next kernels, as accelerators do.
    """

    device: str
    products: tuple[tuple[float, float], ...]
    traffic: tuple[tuple[float, float], ...]
    launch: float
    queued: bool
    losses: tuple[tuple[float, float], ...] = ()

    def seconds(self, works: Iterable[Work]) -> float:
        """Return how long work takes: each kernel as long as the slowest of its operations, bytes and logits.

        The program starts the kernels one after the other: on a device that queues them beside their work, elsewhere
        before each one's.
        """
        chosen = list(works)
        busy = math.fsum(work.kernels * self._busy(work) for work in chosen)
        starting = math.fsum(work.kernels for work in chosen) * self.launch
        return max(busy, starting) if self.queued else busy + starting

    def _busy(self, work: Work) -> float:
        computing = work.operations / _between(self.products, work.rows) if work.operations else 0.0
        moving = work.bytes / _between(self.traffic, work.bytes) if work.bytes else 0.0
        losing = work.logits / _between(self.losses, work.logits) if work.logits and self.losses else 0.0
        return max(computing, moving, losing)


def _between(points: Sequence[tuple[float, float]], at: float) -> float:
    """Return the value at a place between measured ones, in a line over the logarithm of the place; flat outside."""
    place = bisect_left([point for point, _ in points], at)
    if place == 0:
        return points[0][1]
    if place == len(points):
        return points[-1][1]
    (low, lower), (high, higher) = points[place - 1], points[place]
    share = math.log(at / low) / math.log(high / low)
    return lower + share * (higher - lower)
