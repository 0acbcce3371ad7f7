"""Frozen networks that are read and edited at named sites."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

X = TypeVar("X")
S = TypeVar("S")


class Probe(ABC, Generic[X, S]):
    """A frozen network; X is what it reads, S says a place in it.

    States of a site are [rows, hidden], or [rows, tokens, hidden] where it has several tokens.
    """

    @abstractmethod
    def read(self, inputs: Sequence[X], site: S) -> Tensor:
        """Return the states that the inputs have at a site, without gradients."""

    @abstractmethod
    def answers(self, inputs: Sequence[X], site: S, states: Tensor) -> Tensor:
        """Return the logits of the answers, [rows, answers], with ``states`` at the site in place of the network's.

        Gradients reach ``states``.
        """

    @abstractmethod
    def logits(self, inputs: Sequence[X]) -> Tensor:
        """Return the logits of the answers to inputs as they are, [rows, answers], without gradients."""


class ModuleProbe(Probe[Tensor, str]):
    """Any small module that maps a batch [rows, ...] to logits [rows, answers]; a site is the name of a submodule.

    Args:
        module: frozen and put in evaluation mode.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module.requires_grad_(False).eval()

    @torch.no_grad()
    def read(self, inputs: Sequence[Tensor], site: str) -> Tensor:
        """Return the output of the submodule, [rows, ..., hidden]."""
        seen: list[Tensor] = []
        with changed_output(self._submodule(site), seen.append):
            self.module(self._batch(inputs))
        return seen[0]

    def answers(self, inputs: Sequence[Tensor], site: str, states: Tensor) -> Tensor:
        """Return the logits with the submodule's output replaced; see :meth:`Probe.answers`."""
        with changed_output(self._submodule(site), lambda _own: states):
            logits: Tensor = self.module(self._batch(inputs))
        return logits

    @torch.no_grad()
    def logits(self, inputs: Sequence[Tensor]) -> Tensor:
        """Return the logits of the module as it is."""
        logits: Tensor = self.module(self._batch(inputs))
        return logits

    def _batch(self, inputs: Sequence[Tensor]) -> Tensor:
        return inputs if isinstance(inputs, Tensor) else torch.stack(list(inputs))

    def _submodule(self, site: str) -> nn.Module:
        named = dict(self.module.named_modules())
        if site not in named:
            known = ", ".join(name for name in named if name)
            raise ValueError(f"a site is the name of a submodule: {known}; got {site!r}; name one of them")
        return named[site]


def read_states(probe: Probe[X, S], inputs: Sequence[X], site: S, *, batch_size: int) -> Tensor:
    """Return what :meth:`Probe.read` gives, by passes of ``batch_size`` rows."""
    starts = range(0, len(inputs), batch_size)
    return torch.cat([probe.read(inputs[start : start + batch_size], site) for start in starts])


@contextmanager
def changed_output(module: nn.Module, change: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
    """Give a module's output to ``change`` in the passes inside the context; what it returns takes its place.

    Of an output that is a tuple, the first field.
    """

    def hook(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output
        changed = change(hidden)
        if changed is None:
            return None
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
