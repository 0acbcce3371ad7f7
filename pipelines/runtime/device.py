"""The device that run.device in params.yaml names, and how many threads torch has there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pipelines.errors import PipelineError


def resolve_device(name: str) -> torch.device:
    """``auto`` is the first of CUDA, MPS and CPU that this machine has.

    Raises:
        PipelineError: if the named device is not there.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    if (name.startswith("cuda") and not cuda) or (name == "mps" and not mps):
        raise PipelineError("run.device must be on this machine", got=name, do="Set run.device to auto or cpu.")
    return torch.device(name)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch use so many threads inside the context, and as many as before after it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
