"""What the parts measure on, and what each of them leaves."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from benchmarks.sides.ours import Subject
from benchmarks.sides.random_base import random_subject

Figure = dict[str, Any]


class WrongError(AssertionError):
    """What was computed is not what it must be."""


@dataclass
class Bench:
    """A device, and the bases that are on it.

    Attributes:
        device: what is asked.
        tiny: whether every base is the tiny one and every measurement as short as can be, to try the parts out.
    """

    device: torch.device
    tiny: bool
    _large: Subject | None = field(default=None, repr=False)

    @property
    def dtype(self) -> torch.dtype:
        """Of the bases whose speed is measured."""
        return torch.float32 if self.device.type == "cpu" else torch.bfloat16

    def small(self, dtype: torch.dtype = torch.float32, *, attention: str = "sdpa") -> Subject:
        """Return a new base to check answers on: SmolLM2's shape, or the tiny one."""
        name = "tiny" if self.tiny else "SmolLM2-135M"
        return random_subject(name, self.device, dtype, attention=attention, texts=8, loud=self.tiny)

    def large(self) -> Subject:
        """Return the base whose speed is measured, Llama-3-8B's shape or the tiny one; one for all parts."""
        if self._large is None:
            name = "tiny" if self.tiny else "Llama-3-8B"
            self._large = random_subject(name, self.device, self.dtype, texts=8 if self.tiny else 600)
        return self._large

    def tidy(self) -> None:
        """Free what a part has left on the device."""
        if self.device.type == "cuda":
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)


@dataclass(frozen=True)
class Part:
    """A part of the benchmark.

    Attributes:
        name: that its file has.
        title: what it shows.
        share: of all minutes, that it may take.
        measure: yields its figures one by one, so that those before an error are kept.
    """

    name: str
    title: str
    share: float
    measure: Callable[[Bench], Iterator[Figure]]


def distance(found: torch.Tensor, right: torch.Tensor) -> float:
    """Return |found - right| / |right|, of the tensors' norms in fp64 on the CPU; NaN stays NaN."""
    one, other = found.detach().cpu().double(), right.detach().cpu().double()
    return float((one - other).norm() / other.norm().clamp(min=1e-12))


def demand(holds: bool, rule: str, figure: Figure) -> Figure:
    """Return a figure whose rule holds.

    Raises:
        WrongError: with the figure, if it does not.
    """
    if not holds:
        raise WrongError(f"{rule}; got {figure}")
    return figure
