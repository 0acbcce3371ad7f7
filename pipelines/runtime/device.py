"""The device that run.device in params.yaml names."""

from __future__ import annotations

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
