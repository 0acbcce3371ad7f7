"""What this machine has: memory, cores, accelerators."""

from __future__ import annotations

import os
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class Machine:
    """Bytes of memory, cores that this process may use, and the devices that torch can compute on."""

    memory: int
    free_memory: int
    cores: int
    devices: tuple[str, ...]


def this_machine() -> Machine:
    """Return what this machine has; loads torch."""
    import torch

    cuda = [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
    mps = ["mps"] if torch.backends.mps.is_available() else []
    memory = psutil.virtual_memory()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(memory.total, memory.available, cores, (*cuda, *mps, "cpu"))
