"""The simulated device: torch's device ``sim``, whose tensors are the CPU's behind a device of their own.

It computes what the CPU does. It differs from it as an accelerator does: an operation on tensors of both devices is an
error, and whatever a program reads of the device's values, or copies to or from it without ``non_blocking``, waits for
it and is noted. torch allows one such backend in a process, for as long as it lives: only child processes install it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils import backend_registration

NAME = "sim"
WAITS: list[str] = []
"""What waited for the device so far, each with the lines of this project that it came from."""

_ATEN = torch.ops.aten
_READING = {
    _ATEN._local_scalar_dense.default,
    _ATEN.equal.default,
    _ATEN.masked_select.default,
    _ATEN.nonzero.default,
    _ATEN.repeat_interleave.Tensor,
}
_INDEXING = {
    _ATEN.index.Tensor,
    _ATEN.index_put.default,
    _ATEN.index_put_.default,
    _ATEN._index_put_impl_.default,
}


class _Backend:
    """What torch asks of the module of a device."""

    free = 1 << 30

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return True

    def _is_in_bad_fork(self) -> bool:
        return False

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return 1

    def manual_seed_all(self, seed: int) -> None:
        pass

    def get_rng_state(self, _device: Any = None) -> Tensor:
        return torch.zeros(1)

    def set_rng_state(self, _state: Tensor, _device: Any = None) -> None:
        pass

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]

    def synchronize(self, _device: Any = None) -> None:
        pass

    def mem_get_info(self, _device: Any = None) -> tuple[int, int]:
        return self.free, 1 << 30


BACKEND = _Backend()


class _Simulated(Tensor):
    """A tensor of the device."""

    raw: Tensor

    @staticmethod
    def __new__(cls, raw: Tensor) -> _Simulated:
        made: _Simulated = torch.Tensor._make_wrapper_subclass(
            cls,
            raw.shape,
            strides=raw.stride(),
            storage_offset=raw.storage_offset(),
            dtype=raw.dtype,
            device=torch.device(NAME, 0),
        )
        made.raw = raw
        return made

    @classmethod
    def __torch_dispatch__(cls, operation: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(operation, args, kwargs or {})


class _Made(TorchFunctionMode):
    """Makes tensors of numbers, and numbers of tensors, on the CPU and copies them, as torch does."""

    def __torch_function__(self, function: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        device = given.get("device")
        if function in (torch.tensor, torch.as_tensor) and device is not None and torch.device(device).type == NAME:
            return function(*args, **{**given, "device": "cpu"}).to(device)
        if function is Tensor.tolist and isinstance(args[0], _Simulated):
            return args[0].cpu().tolist()
        return function(*args, **given)


def install() -> torch.device:
    """Make the device known to torch in this process, and return it."""
    backend_registration._setup_privateuseone_for_python_backend(NAME, BACKEND)
    library = torch.library.Library("_", "IMPL")
    library.fallback(lambda operation, *args, **kwargs: _run(operation, args, kwargs), "PrivateUse1")
    _KEPT.append(library)
    _Made().__enter__()
    return torch.device(NAME, 0)


_KEPT: list[Any] = []  # a library's operators go with it


def _run(operation: Any, args: Any, kwargs: Any) -> Any:
    if operation is _ATEN._to_copy.default:
        return _copied(args[0], kwargs)
    if operation is _ATEN.copy_.default:
        return _copied_into(*args, **kwargs)
    given = [*_tensors(args), *_tensors(tuple(kwargs.values()))]
    here = [each for each in given if isinstance(each, _Simulated)]
    elsewhere = [each for each in given if not isinstance(each, _Simulated)]
    if operation in _READING:
        _note(str(operation))
    if operation in _INDEXING:
        index = [each for each in args[1] if each is not None]
        if any(each.dtype in (torch.bool, torch.uint8) or not isinstance(each, _Simulated) for each in index):
            _note(f"{operation} by a mask or from the CPU")
        elsewhere = [each for each in elsewhere if all(each is not own for own in index)]
    if here and any(each.dim() for each in elsewhere):
        raise RuntimeError(f"Expected all tensors to be on the same device, but found {NAME} and cpu in {operation}")
    device = kwargs.get("device")
    options = {**kwargs, "device": torch.device("cpu")} if device is not None else kwargs
    found = operation(*_raw(args), **{name: _raw(value) for name, value in options.items()})
    if not here and (device is None or torch.device(device).type != NAME):
        return found
    known = {id(each.raw): each for each in here}  # what an operation writes into is given back
    return pytree.tree_map(lambda each: _known(known, each) if isinstance(each, Tensor) else each, found)


def _copied(source: Tensor, kwargs: Any) -> Tensor:
    device = torch.device(kwargs.get("device") or source.device)
    if device.type != source.device.type and (device.type == "cpu" or not kwargs.get("non_blocking")):
        _note(f"copy of {tuple(source.shape)} from {source.device.type} to {device.type}")
    options = {name: value for name, value in kwargs.items() if name not in ("device", "non_blocking")}
    copy = _ATEN._to_copy.default(_raw(source), **options)
    return _new(copy) if device.type == NAME else copy


def _copied_into(target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    if target.device.type != source.device.type and source.dim() and (target.device.type == "cpu" or not non_blocking):
        _note(f"copy of {tuple(source.shape)} from {source.device.type} to {target.device.type}")
    _raw(target).copy_(_raw(source))
    return target


def _raw(value: Any) -> Any:
    """Return the CPU's tensors in place of the device's; operators take them alone, and in lists."""
    if isinstance(value, _Simulated):
        return value.raw
    return type(value)(_raw(each) for each in value) if isinstance(value, list | tuple) else value


def _tensors(value: list[Any] | tuple[Any, ...]) -> Iterator[Tensor]:
    for each in value:
        if isinstance(each, Tensor):
            yield each
        elif isinstance(each, list | tuple):
            yield from _tensors(each)


def _known(known: dict[int, _Simulated], raw: Tensor) -> _Simulated:
    return known[id(raw)] if id(raw) in known else _new(raw)


def _new(raw: Tensor) -> _Simulated:
    return _Simulated(raw)


def _note(what: str) -> None:
    frame, lines = sys._getframe(1), []
    while frame.f_back is not None and len(lines) < 4:
        frame = frame.f_back
        if "/reft/" in frame.f_code.co_filename or "/transformers/" in frame.f_code.co_filename:
            lines.append(f"{frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_lineno}")
    WAITS.append(f"{what} from {' '.join(lines)}")
