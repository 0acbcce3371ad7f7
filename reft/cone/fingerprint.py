"""What a base's constants follow from beside the row: its content, compared by value and not by where it stands."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from reft.files import canonical_json

_GLOBAL = ("_global_forward_hooks", "_global_forward_pre_hooks")


def frozen_modules(base: nn.Module, trained: Collection[nn.Parameter]) -> Iterator[tuple[str, nn.Module]]:
    """Yield the base's modules by name, without those that are trained whole, as a head is."""
    ours = {id(parameter) for parameter in trained}
    if not ours:  # most bases, and this runs for each batch
        yield from base.named_modules()
        return
    heads: list[str] = []
    for name, module in base.named_modules():
        own = [id(parameter) for parameter in module.parameters()]
        if own and ours.issuperset(own):
            heads.append(f"{name}.")
        elif not name.startswith(tuple(heads)):
            yield name, module


def unfit(base: nn.Module, trained: Collection[nn.Parameter]) -> str | None:
    """Return why a base has no constants now, or None.

    Args:
        base: the base.
        trained: its parameters that no constant follows from.
    """
    ours = {id(parameter) for parameter in trained}
    if any(parameter.requires_grad and id(parameter) not in ours for parameter in base.parameters()):
        return "a base whose own weights are trained has no constants"
    if any(getattr(torch_module, name) for name in _GLOBAL):
        return "hooks on every module may change what a base gives"
    for _, module in frozen_modules(base, trained):
        if module.training:
            return "a base in training mode may draw, so it has no constants; call eval() on it"
        if module._forward_hooks or module._forward_pre_hooks:
            return "hooks on a base may change what it gives; remove them"
    return None


def settings(base: nn.Module, trained: Collection[nn.Parameter]) -> str:
    """Return a sha256 of the config, and of each module's type and own settings; the same in another process."""
    described: Any = base.config
    own = [
        [name, f"{type(module).__module__}.{type(module).__qualname__}", _plain(vars(module))]
        for name, module in frozen_modules(base, trained)
    ]
    config = {key: repr(value) for key, value in described.to_dict().items()}
    return hashlib.sha256(canonical_json([config, own])).hexdigest()


def own_forwards(base: nn.Module, trained: Collection[nn.Parameter]) -> dict[str, int]:
    """Return which modules have another forward than their class's, by name."""
    return {
        name: id(vars(module)["forward"]) for name, module in frozen_modules(base, trained) if "forward" in vars(module)
    }


def quick(base: nn.Module, trained: Collection[nn.Parameter]) -> tuple[Any, ...]:
    """Return what tells most changes at once, for each batch: which tensors, how often written, modules, forwards."""
    modules = tuple(
        (name, id(module), id(vars(module).get("forward"))) for name, module in frozen_modules(base, trained)
    )
    return modules, tuple((name, id(each), each.data_ptr(), each._version) for name, each in _tensors(base, trained))


def content(base: nn.Module, trained: Collection[nn.Parameter]) -> str:
    """Return a sha256 of the bytes of all weights and buffers, with their names, shapes and types.

    Nothing less is enough: a change through ``.data`` leaves place and version as they were, and a sum or a sample
    lets changes through that leave it as it was.
    """
    digest = hashlib.sha256()
    for name, each in _tensors(base, trained):
        digest.update(canonical_json([name, str(each.dtype), list(each.shape)]))
        flat = each.detach().cpu().contiguous().view(-1)
        digest.update(memoryview(cast(Any, flat.view(torch.uint8).numpy())))
    return digest.hexdigest()


def _tensors(base: nn.Module, trained: Collection[nn.Parameter]) -> Iterator[tuple[str, Tensor]]:
    ours = {id(parameter) for parameter in trained}
    yield from ((name, each) for name, each in base.named_parameters() if id(each) not in ours)
    yield from base.named_buffers()


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if isinstance(value, bool | int | float | str)}
