"""What a base's constants follow from beside the row: its content, compared by value and not by where it stands."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from inspect import unwrap
from types import FunctionType, MethodType
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules import module as torch_module
from transformers import PreTrainedConfig

from reft.data import to_device
from reft.files import canonical_json

_GLOBAL = ("_global_forward_hooks", "_global_forward_pre_hooks")
_OF_TORCH = frozenset(vars(nn.Module()))
"""What every module has; its tensors, modules and hooks are looked at by themselves."""

_PLAIN = frozenset([bool, int, float, str, type(None)])
_SAMPLES = 16
_PIECE = 1 << 22  # words that are multiplied at once on an accelerator


@dataclass(frozen=True)
class Base:
    """The modules of a base that constants follow from, found once for each comparison.

    Attributes:
        config: of the base.
        modules: by name, without those that are trained whole, as a head is.
        trained: ids of the parameters that no constant follows from.
    """

    config: Any
    modules: Sequence[tuple[str, nn.Module]]
    trained: frozenset[int]

    @classmethod
    def of(cls, base: nn.Module, trained: Collection[nn.Parameter], *, config: Any = None) -> Base:
        """Walk through a base, or through a model over one, whose config is given then."""
        ours = frozenset(id(parameter) for parameter in trained)
        return cls(base.config if config is None else config, list(_frozen(base, ours)), ours)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield parameters, buffers and tensors of the modules' own, by name; a tied one as often as it is named."""
        for name, module in self.modules:
            for own in (module._parameters, module._buffers, vars(module)):
                for key in own if own else ():
                    value = own[key]
                    if isinstance(value, Tensor) and id(value) not in self.trained:
                        yield f"{name}.{key}", value

    def functions(self) -> Iterator[Any]:
        """Yield what runs: each type's forward, and the functions and classes of its file that the forward names."""
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS  # slow to load, and few need it

        for kind in {type(module): None for _, module in self.modules}:
            forward: Any = kind.forward
            yield forward
            inner: Any = unwrap(forward)
            if isinstance(inner, FunctionType):
                values = (inner.__globals__.get(name) for name in inner.__code__.co_names)
                yield from (value for value in values if callable(value) and hasattr(value, "__qualname__"))
        attention = ALL_ATTENTION_FUNCTIONS.get(self.config._attn_implementation)
        if attention is not None:
            yield attention


def _frozen(base: nn.Module, ours: frozenset[int]) -> Iterator[tuple[str, nn.Module]]:
    heads: tuple[str, ...] = ()
    for name, module in base.named_modules():
        if ours:
            own = [id(parameter) for parameter in module.parameters()]
            if own and ours.issuperset(own):
                heads = (*heads, f"{name}.")
                continue
            if name.startswith(heads):
                continue
        yield name, module


def unfit(base: Base) -> str | None:
    """Return why a base has no constants now, or None."""
    if any(getattr(torch_module, name) for name in _GLOBAL):
        return "hooks on every module may change what a base gives"
    for _, module in base.modules:
        for parameter in module._parameters.values():
            if parameter is not None and parameter.requires_grad and id(parameter) not in base.trained:
                return "a base whose own weights are trained has no constants"
        if module.training:
            return "a base in training mode may draw, so it has no constants; call eval() on it"
        if module._forward_hooks or module._forward_pre_hooks:
            return "hooks on a base may change what it gives; remove them"
    return None


def quick(base: Base) -> tuple[Any, ...]:
    """Return what tells most changes at once, for each batch.

    It is first all but the tensors: which modules there are, their settings and functions. Then which tensors, how they
    lie and how often they were written, and of those on the CPU some values, since a change through ``.data`` leaves
    all else. To read values of an accelerator's is to wait for it in each batch: there such a change is seen when the
    next use of rows begins.
    """
    seen: dict[int, Any] = {}
    code: list[Any] = [_described(base.config, seen), *base.functions()]  # flat: many small tuples wake the collector
    tensors: list[Tensor] = []
    for name, module in base.modules:
        code += (name, id(module), type(module))
        for key, value in vars(module).items():
            if key not in _OF_TORCH:
                code += (key, value if type(value) in _PLAIN else _described(value, seen))
                if isinstance(value, Tensor):
                    tensors.append(value)
        tensors += [each for each in module._parameters.values() if each is not None and id(each) not in base.trained]
        tensors += [each for each in module._buffers.values() if each is not None]
    places = [part for each in tensors for part in (id(each), each.data_ptr(), each._version, *each.stride())]
    return code, places, _samples(tensors)


def settings(base: Base) -> str | None:
    """Return a sha256 of the configs, settings and functions, the same in another process; None where there is none.

    A function that cannot be found by its name, as one that was put in place of another, says nothing to others.
    """
    functions: dict[int, Any] = {id(each): each for each in base.functions()}
    configs: dict[int, Any] = {id(base.config): base.config}
    own = []
    for name, module in base.modules:
        values = {key: value for key, value in vars(module).items() if key not in _OF_TORCH}
        configs |= {id(value): value for value in values.values() if isinstance(value, PreTrainedConfig)}
        functions |= {id(value): value for value in values.values() if callable(value)}
        settled = {key: value for key, value in values.items() if _is_settled(value)}
        own.append([name, f"{type(module).__module__}.{type(module).__qualname__}", repr(sorted(settled.items()))])
    names = [_name(each) for each in functions.values()]
    if None in names:
        return None
    read = [{key: repr(value) for key, value in each.to_dict().items()} for each in configs.values()]
    return hashlib.sha256(canonical_json([read, own, names])).hexdigest()


def content(base: Base) -> str:
    """Return a sha256 of all weights and buffers, with their names, shapes and types.

    On the CPU of their bytes. Nothing less is enough: a change through ``.data`` leaves place and version as they were,
    and a plain sum or a sample lets changes through that leave it as it was. Gigabytes on an accelerator stay there:
    of them it is of sums whose factors are drawn (:func:`_folded`), which another content has with a chance of 2^-64.
    """
    digest, seen = hashlib.sha256(), set()
    for name, each in base.tensors():
        digest.update(canonical_json([name, str(each.dtype), list(each.shape)]))
        if id(each) not in seen:
            seen.add(id(each))
            own = each if each.device.type == "cpu" else _folded(each)
            flat = own.detach().contiguous().view(-1)
            digest.update(memoryview(cast(Any, flat.view(torch.uint8).numpy())))
    return digest.hexdigest()


def _folded(tensor: Tensor) -> Tensor:
    """Return two sums of each piece of an accelerator's tensor, int64 [2, pieces] on the CPU.

    Each is of the piece's words, four bytes each, times factors that were drawn once: sums like these, modulo 2^64, are
    a universal hash, since two contents differ in a word by less than 2^32 and have equal sums for one draw in 2^32 at
    most.
    """
    words = tensor.detach().contiguous().view(-1).view(torch.uint8)
    words = (functional.pad(words, (0, -len(words) % 4)) if len(words) % 4 else words).view(torch.int32)
    generator = torch.Generator().manual_seed(0)
    size = min(_PIECE, max(1, len(words)))
    drawn = torch.randint(-(1 << 63), (1 << 63) - 1, (2, size), generator=generator, dtype=torch.int64)
    factors = to_device(drawn, tensor.device)
    sums = [(factors[:, : len(piece)] * piece.long()).sum(-1) for piece in words.split(_PIECE)]
    return torch.stack(sums, dim=-1).cpu() if sums else drawn[:, :0]


def _described(value: Any, seen: dict[int, Any]) -> Any:
    """Return a value such that it compares by content where it may change in place, and else by identity."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, list | tuple):
        return tuple(_described(each, seen) for each in value)
    if isinstance(value, set | frozenset):
        return frozenset(_described(each, seen) for each in value)
    if isinstance(value, dict):
        return tuple((key, _described(each, seen)) for key, each in value.items())
    if isinstance(value, PreTrainedConfig):
        if id(value) not in seen:
            seen[id(value)] = None
            seen[id(value)] = _described(vars(value), seen)
        return id(value), seen[id(value)]
    return id(value)


def _is_settled(value: Any) -> bool:
    """Whether a value is written the same in every process."""
    if isinstance(value, list | tuple):
        return all(_is_settled(each) for each in value)
    if isinstance(value, dict):
        return all(_is_settled(each) for pair in value.items() for each in pair)
    return type(value) in _PLAIN


def _name(function: Any) -> str | None:
    """Return what a function or class is imported by, or None if something else is."""
    if isinstance(function, MethodType):
        return _name(function.__func__)
    if isinstance(function, partial):
        inner, given = _name(function.func), [list(function.args), sorted(function.keywords.items())]
        return None if inner is None or not _is_settled(given) else f"{inner} of {given}"
    try:
        found = reduce(getattr, function.__qualname__.split("."), sys.modules[function.__module__])
    except (AttributeError, KeyError):
        return None
    return f"{function.__module__}.{function.__qualname__}" if found is function else None


def _samples(tensors: Sequence[Tensor]) -> bytes:
    """Return some values of the CPU's tensors that are one piece of memory, in steps that meet every row and column."""
    chosen: dict[torch.dtype, list[Tensor]] = {}
    for each in tensors:
        size = each.numel() if each.device.type == "cpu" else 0
        if size and (each.is_contiguous() or each.mT.is_contiguous() if each.ndim > 1 else each.is_contiguous()):
            step = max(1, size // _SAMPLES) | 1
            sample = each.detach().as_strided((min(_SAMPLES, -(-size // step)),), (step,))
            chosen.setdefault(each.dtype, []).append(sample)
    return b"".join(torch.cat(own).view(torch.uint8).numpy().tobytes() for own in chosen.values())
