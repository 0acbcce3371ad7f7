"""How often a step waits for its device: each time, the device runs out of work while the program catches up."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.gpu.bench import Bench, Figure, demand
from benchmarks.sides.ours import CASES, OurTraining, fit_config

_ATEN = torch.ops.aten
READING = (
    _ATEN._local_scalar_dense.default,
    _ATEN.equal.default,
    _ATEN.is_nonzero.default,
    _ATEN.masked_select.default,
    _ATEN.nonzero.default,
)
ALLOWED = 1  # the loss, with the gradient's norm: a step that is not finite must not be applied


class _Counted(TorchDispatchMode):
    """Notes operations that give a program values of a device."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.found: list[str] = []
        self._device = device.type

    def __torch_dispatch__(self, operation: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        tensors = [each for each in pytree.tree_leaves((args, given)) if isinstance(each, torch.Tensor)]
        here = any(each.device.type == self._device for each in tensors)
        target = given.get("device")
        leaves = operation is _ATEN._to_copy.default and target is not None and torch.device(target).type == "cpu"
        into = operation is _ATEN.copy_.default and args[0].device.type == "cpu"
        if here and (operation in READING or leaves or into):
            self.found.append(str(operation))
        return operation(*args, **given)


@contextmanager
def waits(device: torch.device) -> Iterator[list[str]]:
    """Yield what waits for a device inside the context, as far as it is known: CUDA says so itself."""
    if device.type != "cuda":
        with _Counted(device) as counted:
            yield counted.found
        return
    found: list[str] = []
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode(before)
            found += [f"{each.filename.rpartition('/')[2]}:{each.lineno}" for each in said if _is_wait(each.message)]


def _is_wait(message: Warning | str) -> bool:
    return "synchronizing" in str(message)


def steps(bench: Bench) -> Iterator[Figure]:
    """Count the waits of a warm training step of each recipe; on a CPU there is nothing to wait for."""
    if bench.device.type == "cpu":
        yield {"left out": "a program does not wait for its own CPU"}
        return
    subject = bench.small(bench.dtype)
    for case in (CASES["a"], CASES["d"]) if bench.tiny else CASES.values():
        rows = subject.rows(40, 8)
        training = OurTraining(
            subject.model(case.config(subject.num_layers)), rows, fit_config(4, 3), pad_id=subject.pad_id
        )
        _run(training, 4)
        with waits(bench.device) as found:
            training.step()
        figure = {"case": case.name, "waits": list(found)}
        yield demand(len(found) <= ALLOWED, "a warm step waits for its loss alone", figure)


def _run(training: OurTraining, count: int) -> Sequence[float]:
    return [training.step() for _ in range(count)]
