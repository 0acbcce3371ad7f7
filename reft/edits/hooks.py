"""Where a frozen model is edited: its layers found by structure, and hooks that edit chosen tokens."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from reft.data import to_device


@dataclass(frozen=True)
class Stack:
    """The part of a base that runs its layers.

    Attributes:
        module: the module that owns the list of layers and receives the key-value cache.
        layers: the layers, in their order.
    """

    module: nn.Module
    layers: nn.ModuleList


def find_stack(base: nn.Module, num_layers: int) -> Stack:
    """Find the list of layers: the outermost ``nn.ModuleList`` of ``num_layers`` modules.

    By structure, so no table of families is kept (``model.layers``, ``transformer.h``, ``gpt_neox.layers``, ...).

    Raises:
        ValueError: if there is no such list, or more than one (an encoder beside a decoder, for one).
    """
    found: dict[str, nn.ModuleList] = {}
    for name, module in base.named_modules():
        nested = any(name.startswith(f"{outer}.") for outer in found)
        if isinstance(module, nn.ModuleList) and len(module) == num_layers and not nested:
            found[name] = module
    if len(found) != 1:
        raise ValueError(
            f"a base must have exactly one list of {num_layers} layers; {type(base).__name__} has "
            f"{', '.join(found) or 'none'}; use a model of one stack of layers"
        )
    ((name, layers),) = found.items()
    return Stack(base.get_submodule(name.rpartition(".")[0]), layers)


@dataclass(frozen=True)
class Placed:
    """An intervention and the tokens that it edits.

    Attributes:
        intervention: h, scale -> h on [edited, hidden].
        mask: bool [batch, sequence], over the prompt batch and what follows it, as far as it is known to be edited.
        scale: the strength that it is applied with.
    """

    intervention: nn.Module
    mask: Tensor
    scale: float = 1.0


class Edits:
    """Applies interventions at the edited tokens of one prompt batch, for one or more forward passes.

    A token's column in the whole sequence is the length of the cache before the pass plus its column in the pass. So
    the same tokens are edited with the cache on or off and in a prefill by chunks, and of those generated later the
    ones alone whose columns the masks hold. When the passes have k rows for each of the batch (beams, several samples),
    each of its rows stands for k in a run.

    Args:
        placed: what is applied at each layer's output, in this order.
    """

    def __init__(self, placed: Mapping[int, Sequence[Placed]]) -> None:
        self._placed = placed
        masks = {id(each.mask): each.mask for chosen in placed.values() for each in chosen}
        self._end = max((_end(mask) for mask in masks.values()), default=0)
        self._past = 0
        self._places: dict[int, Tensor] = {}

    @contextmanager
    def on(self, layers: Stack) -> Iterator[None]:
        """Edit the layers' outputs for as long as the context is open.

        The hooks live no longer than that, so a base may be shared by several models and is left as it was.
        """
        with ExitStack() as undo:
            start = layers.module.register_forward_pre_hook(self._start_pass, with_kwargs=True)
            undo.callback(start.remove)
            for layer, chosen in self._placed.items():
                hook = layers.layers[layer].register_forward_hook(_LayerHook(self, chosen))
                undo.callback(hook.remove)
            yield

    def _start_pass(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        cache = kwargs.get("past_key_values")
        if cache is None and args:
            cache = inspect.signature(module.forward).bind_partial(*args).arguments.get("past_key_values")
        # As an integer now: the layers of this pass make the cache longer.
        self._past = 0 if cache is None else int(cache.get_seq_length())
        self._places = {}

    @property
    def over(self) -> bool:
        """Whether the pass is behind the last edited column, as those of most generated tokens are."""
        return self._past >= self._end

    def places(self, mask: Tensor, hidden: Tensor) -> Tensor:
        """Return the flat places [edited] of a mask in a pass over ``hidden`` [rows, columns, width], on its device.

        They are found where the mask is: on the CPU, nothing waits for a device.
        """
        key = id(mask)  # layers share their masks, so most layers of a pass find the places ready
        if key not in self._places:
            rows, columns, _ = hidden.shape
            self._places[key] = to_device(_flat_places(mask, self._past, rows, columns), hidden.device)
        return self._places[key]


class _LayerHook:
    """Replaces a layer's output by one with the chosen tokens edited; the others keep their bits."""

    def __init__(self, edits: Edits, placed: Sequence[Placed]) -> None:
        self._edits = edits
        self._placed = placed

    def __call__(self, _module: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
        if self._edits.over:
            return None
        hidden = output[0] if isinstance(output, tuple) else output
        rows, columns, width = hidden.shape
        flat = hidden.reshape(rows * columns, width)
        for each in self._placed:
            places = self._edits.places(each.mask, hidden)
            if places.numel():
                flat = flat.index_copy(0, places, each.intervention(flat.index_select(0, places), each.scale))
        edited = flat.view(rows, columns, width)
        return (edited, *output[1:]) if isinstance(output, tuple) else edited


@contextmanager
def checkpointed(stack: Stack, *, within: Callable[[], AbstractContextManager[None]] | None = None) -> Iterator[None]:
    """Keep no activation inside a layer for the backward pass: each layer is run again then.

    transformers' own gradient checkpointing is bound to training mode, in which the base's dropout would run. The
    edits are outside the layers, so they are not run twice.

    Args:
        stack: the layers.
        within: what a layer must run inside of when it has trained parts itself, which may draw; it is opened again
            for the second run, which draws the same.
    """
    with ExitStack() as undo:
        for layer in stack.layers:
            replace_forward(layer, _Recomputed(layer.forward, within), undo)
        yield


class _Recomputed:
    """A layer's forward that is run again in the backward pass."""

    def __init__(self, forward: Callable[..., Any], within: Callable[[], AbstractContextManager[None]] | None) -> None:
        self._forward = forward
        self._within = within

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        draws = self._within is not None
        return checkpoint(self._run, *args, use_reentrant=False, preserve_rng_state=draws, **kwargs)

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        with self._within() if self._within is not None else nullcontext():
            return self._forward(*args, **kwargs)


def replace_forward(module: nn.Module, forward: Callable[..., Any], undo: ExitStack) -> None:
    """Give this one module another forward until ``undo`` is left."""
    own = vars(module)
    before = own.get("forward")
    own["forward"] = forward
    if before is None:
        undo.callback(own.pop, "forward")
    else:
        undo.callback(own.__setitem__, "forward", before)


def _end(mask: Tensor) -> int:
    """Return the number of columns up to the last one that has an edited token."""
    edited = mask.any(0).nonzero()
    return int(edited[-1]) + 1 if len(edited) else 0


def _flat_places(mask: Tensor, past: int, rows: int, columns: int) -> Tensor:
    if rows % mask.shape[0]:
        raise ValueError(
            f"a pass must have a multiple of the batch's {mask.shape[0]} rows; got {rows}; "
            "give attention mask and prompt lengths of the same batch"
        )
    chunk = mask[:, past : past + columns]
    row, column = chunk.repeat_interleave(rows // mask.shape[0], dim=0).nonzero(as_tuple=True)
    return row * columns + column
