"""Sections `run` and `cone`: on what everything is computed, and what is kept of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from pipelines.sections import Count, Section


class RunParams(Section):
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")]
    threads: Count
    wait_seconds: Annotated[float, Field(ge=0)]


class ConeParams(Section):
    """How much of what no edit can change is kept. The two budgets change no result, so no stage reads them."""

    enabled: bool
    memory_gib: Annotated[float, Field(ge=0)]
    disk_gib: Annotated[float, Field(ge=0)]


@dataclass(frozen=True)
class Computation:
    """How a process computes: its device and threads, and what it keeps of the base."""

    run: RunParams
    cone: ConeParams

    def decides(self) -> tuple[bool, int, str]:
        """What of it changes the last bits of a result."""
        return self.cone.enabled, self.run.threads, self.run.device
