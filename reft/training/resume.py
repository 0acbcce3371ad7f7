"""Checkpoints of a training run: directories of safetensors and JSON from which it goes on, bit for bit.

``accelerate``'s own ``save_state`` pickles, so it is not used.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from reft.files import TEMPORARY_PREFIX, canonical_json, sha256, write_directory

FORMAT = 1
KEPT = 2
"""How many checkpoints stay: when the last is damaged, the one before it is used."""

_TENSORS = "state.safetensors"
_RECORD = "state.json"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingState:
    """A run after some optimiser step.

    Attributes:
        step: steps done; with the row order it is also the place in the data.
        history: what was reported of each step, as plain JSON values.
        tensors: parameters, optimiser state and random states, by name.
    """

    step: int
    history: list[dict[str, Any]]
    tensors: dict[str, Tensor]


class DamagedCheckpointError(Exception):
    """A checkpoint's content is not what was written."""


class CheckpointFolder:
    """The checkpoints of one run.

    Args:
        path: the folder; made when the first checkpoint is written.
        key: hash of all that the run's result follows from; another run's checkpoints are refused.
    """

    def __init__(self, path: Path, key: str) -> None:
        self._path = path
        self._key = key

    def save(self, state: TrainingState) -> None:
        """Write a checkpoint whole, then drop those before the last :data:`KEPT`."""
        tensors = safetensors.torch.save(state.tensors)
        record = {
            "format": FORMAT,
            "key": self._key,
            "step": state.step,
            "tensors_sha256": sha256(tensors),
            "history": state.history,
        }
        record["record_sha256"] = sha256(canonical_json(record))
        files = {_TENSORS: tensors, _RECORD: canonical_json(record)}
        write_directory(self._path / f"step-{state.step:08d}", files)
        for old in self._found()[KEPT:]:
            shutil.rmtree(old)

    def load(self) -> TrainingState | None:
        """Return the newest intact checkpoint, or None when there is none.

        A damaged one is removed with a warning, as is what an interrupted write left behind.

        Raises:
            ValueError: if a checkpoint belongs to a run with other inputs.
        """
        for left in self._path.glob(f"{TEMPORARY_PREFIX}*"):
            _remove(left)
        for path in self._found():
            try:
                return self._read(path)
            except DamagedCheckpointError as error:
                log.warning("checkpoint %s is damaged (%s); using the one before it", path.name, error)
                _remove(path)
        return None

    def _found(self) -> list[Path]:
        """Return the checkpoints, newest first."""
        return sorted(self._path.glob("step-*"), reverse=True)

    def _read(self, path: Path) -> TrainingState:
        try:
            record = json.loads((path / _RECORD).read_bytes())
            content = (path / _TENSORS).read_bytes()
            written = record.pop("record_sha256")
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise DamagedCheckpointError(f"unreadable: {error}") from error
        if sha256(canonical_json(record)) != written or sha256(content) != record["tensors_sha256"]:
            raise DamagedCheckpointError("its sha256 differs")
        if record["format"] != FORMAT or record["key"] != self._key:
            raise ValueError(
                f"a run goes on from checkpoints of the same inputs alone; {self._path} holds another run's; "
                "remove that folder or give another one"
            )
        try:
            tensors = safetensors.torch.load(content)
        except SafetensorError as error:
            raise DamagedCheckpointError(f"unreadable: {error}") from error
        return TrainingState(record["step"], record["history"], tensors)


def _remove(path: Path) -> None:
    """Remove what another process of the same run may be removing too."""
    shutil.rmtree(path, ignore_errors=True)


def capture(parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return copies of the parameters, the optimiser's state for them and torch's random states."""
    tensors = {f"parameter/{name}": value.detach() for name, value in parameters.items()}
    for name, parameter in parameters.items():
        for field, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{name}/{field}"] = value
    tensors["random/cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        for index, state in enumerate(torch.cuda.get_rng_state_all()):
            tensors[f"random/cuda/{index}"] = state
    return {name: value.to("cpu", copy=True).contiguous() for name, value in tensors.items()}


@torch.no_grad()
def restore(
    tensors: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> None:
    """Put back what :func:`capture` returned, in place."""
    for name, parameter in parameters.items():
        parameter.copy_(tensors[f"parameter/{name}"])
        prefix = f"optimizer/{name}/"
        saved = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        if saved:
            optimizer.state[parameter] = saved
    # Moves each tensor to where the optimiser wants it: its step counters stay on the CPU unless it is fused.
    optimizer.load_state_dict(optimizer.state_dict())
    torch.set_rng_state(tensors["random/cpu"])
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            if (state := tensors.get(f"random/cuda/{index}")) is not None:
                torch.cuda.set_rng_state(state, index)
