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
from torch.nn.modules import module as torch_module
from transformers import PreTrainedConfig

from reft.files import canonical_json

_GLOBAL = ("_global_forward_hooks", "_global_forward_pre_hooks")
_OF_TORCH = frozenset(vars(nn.Module()))
"""What every module has; its tensors, modules and hooks are looked at by themselves."""

_PLAIN = frozenset([bool, int, float, str, type(None)])
_SAMPLES = 16


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
    lie and how often they were written, and some values of each, since a change through ``.data`` leaves all else.
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
    """Return a sha256 of the bytes of all weights and buffers, with their names, shapes and types.

    Nothing less is enough: a change through ``.data`` leaves place and version as they were, and a sum or a sample
    lets changes through that leave it as it was.
    """
    digest, seen = hashlib.sha256(), set()
    for name, each in base.tensors():
        digest.update(canonical_json([name, str(each.dtype), list(each.shape)]))
        if id(each) not in seen:
            seen.add(id(each))
            flat = each.detach().cpu().contiguous().view(-1)
            digest.update(memoryview(cast(Any, flat.view(torch.uint8).numpy())))
    return digest.hexdigest()


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
    """Return some values of each tensor that is one piece of memory, in steps that meet every row and column."""
    chosen: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for each in tensors:
        size = each.numel()
        if size and (each.is_contiguous() or each.mT.is_contiguous() if each.ndim > 1 else each.is_contiguous()):
            step = max(1, size // _SAMPLES) | 1
            sample = each.detach().as_strided((min(_SAMPLES, -(-size // step)),), (step,))
            chosen.setdefault((each.device, each.dtype), []).append(sample)
    return b"".join(torch.cat(own).cpu().view(torch.uint8).numpy().tobytes() for own in chosen.values())
