"""Layers that need not run: their outputs recorded once, and put back in later passes.

A skipped layer stays in its list, because families look layers up by number, and hooks on it still fire, because the
edits are hooks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from reft.edits.hooks import Stack, replace_forward


class Reached(Exception):  # noqa: N818  it is no error: all that a pass was started for is there
    """The pass has given what was wanted, and is left."""


@contextmanager
def recorded(stack: Stack, layers: Collection[int], *, last: int | None) -> Iterator[dict[int, Tensor]]:
    """Record outputs of layers in the passes inside the context.

    Args:
        stack: the base's layers.
        layers: whose outputs are recorded.
        last: the layer after which a pass is left with :class:`Reached`, which this context takes; None for none.

    Yields:
        layer -> output [batch, sequence, hidden], as the passes give it.
    """
    outputs: dict[int, Tensor] = {}

    def record(layer: int) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
            if layer in layers:
                hidden = output[0] if isinstance(output, tuple) else output
                outputs[layer] = hidden.detach().clone()  # a later layer may write into it
            if layer == last:
                raise Reached

        return hook

    with ExitStack() as undo:
        for layer in {*layers, *(() if last is None else (last,))}:
            undo.callback(stack.layers[layer].register_forward_hook(record(layer)).remove)
        try:
            yield outputs
        except Reached:
            return


@contextmanager
def kept_output(stack: Stack, layer: int, hidden: Tensor, *, fields: int) -> Iterator[None]:
    """Skip the layers up to ``layer`` inside the context; that one returns ``hidden``.

    Args:
        stack: the base's layers.
        layer: the last one that does not run.
        hidden: its output [batch, sequence, hidden] for the pass.
        fields: of the layers' output where it is a tuple (all but the first are None then); 0 where it is a tensor.
    """
    with ExitStack() as undo:
        for number in range(layer + 1):
            replace_forward(stack.layers[number], _Skipped(hidden if number == layer else None, fields), undo)
        yield


class _Skipped:
    """A layer's forward that returns what was kept, or for a lower layer what came in, which nobody reads."""

    def __init__(self, output: Tensor | None, fields: int) -> None:
        self._output = output
        self._rest = (None,) * (fields - 1)
        self._tuple = fields > 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        output = self._output
        if output is None:
            output = args[0] if args else kwargs["hidden_states"]
        return (output, *self._rest) if self._tuple else output


@torch.no_grad()
def output_fields(base: nn.Module, stack: Stack) -> int:
    """Return how many fields the tuples have that this base's layers return; 0 when they return tensors."""
    found = 0

    def hook(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        nonlocal found
        found = len(output) if isinstance(output, tuple) else 0
        raise Reached

    handle = stack.layers[0].register_forward_hook(hook)
    token = torch.zeros(1, 1, dtype=torch.long, device=next(base.parameters()).device)
    try:
        base(input_ids=token, attention_mask=torch.ones_like(token))
    except Reached:
        return found
    finally:
        handle.remove()
    raise ValueError(f"a base must run its layers; {type(base).__name__} never called the first; use another base")
