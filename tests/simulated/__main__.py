"""Everything that is asked of the simulated device, in one process, printed as JSON."""

from __future__ import annotations

import io
import json
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

from torch import Tensor

import reft.cone.decoder
import reft.cone.window
from benchmarks.gpu.__main__ import main as ask
from reft.cone.device_copies import DeviceCopies
from reft.data import to_device
from tests.simulated.device import install
from tests.simulated.trainings import observe

ALL = "cone,methods,padding,generation,mixed,resume,waits,training,tokens"


def asked(parts: str) -> dict[str, Any]:
    """Return the exit status of the benchmark on the device, and what its parts came to."""
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        status = ask(["--out", folder, "--device", "sim", "--tiny", "--minutes", "60", "--parts", parts])
        outcomes = {part: json.loads((Path(folder) / f"{part}.json").read_text()) for part in parts.split(",")}
    return {"status": status, "outcomes": outcomes}


def left_on_the_cpu() -> dict[str, Any]:
    """Ask with kept constants left on the CPU."""

    def numbers_alone(tensor: Tensor, device: Any) -> Tensor:
        return tensor if tensor.is_floating_point() else to_device(tensor, device)

    with (
        patch.object(DeviceCopies, "of", lambda _self, _row, constants, _device: constants),
        patch.object(reft.cone.window, "to_device", numbers_alone),
    ):
        return asked("cone")


def waiting() -> dict[str, Any]:
    """Ask with a step that reads a logit."""
    losses = reft.cone.decoder.token_losses

    def reading(logits: Tensor, labels: Tensor) -> Tensor:
        logits.sum().item()
        return losses(logits, labels)

    with patch.object(reft.cone.decoder, "token_losses", reading):
        return asked("waits")


def main() -> None:
    """Print what was seen; with the word ``all``, of all parts of the benchmark."""
    device = install()
    if sys.argv[1:] == ["all"]:
        found = {"asked": asked(ALL)}
    else:
        found = {"trainings": observe(device), "left on the CPU": left_on_the_cpu(), "waiting": waiting()}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
