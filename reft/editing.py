"""Where a frozen decoder is edited: its layers found by structure, and hooks that edit chosen tokens."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from reft.positions import PositionMasks


@dataclass(frozen=True)
class Decoder:
    """The part of a base that runs its layers.

    Attributes:
        module: the module that owns the list of layers and receives the key-value cache.
        layers: the layers, in their order.
    """

    module: nn.Module
    layers: nn.ModuleList


def find_decoder(base: nn.Module, num_layers: int) -> Decoder:
    """Find the list of decoder layers: the outermost ``nn.ModuleList`` of ``num_layers`` modules.

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
            f"{', '.join(found) or 'none'}; use a decoder-only language model"
        )
    ((name, layers),) = found.items()
    return Decoder(base.get_submodule(name.rpartition(".")[0]), layers)


class Edits:
    """Applies interventions at the edited tokens of one prompt batch, for one or more forward passes.

    A token's column in the whole sequence is the length of the cache before the pass plus its column in the pass. So
    the same prompt tokens are edited with the cache on or off and in a prefill by chunks, and tokens generated later
    are not. When the passes have k rows for each of the batch (beams, several samples), each of its rows stands for k
    in a run.

    Args:
        masks: the edited positions of the prompt batch.
        tied: whether one intervention serves both ends of the prompt.
    """

    def __init__(self, masks: PositionMasks, *, tied: bool) -> None:
        self._masks = (masks.either,) if tied else (masks.first, masks.last)
        self._past = 0
        self._indices: list[Tensor] | None = None

    @contextmanager
    def on(self, decoder: Decoder, interventions: Mapping[int, list[nn.Module]]) -> Iterator[None]:
        """Edit the outputs of the given layers for as long as the context is open.

        The hooks live no longer than that, so a base may be shared by several models and is left as it was.
        """
        with ExitStack() as stack:
            start = decoder.module.register_forward_pre_hook(self._start_pass, with_kwargs=True)
            stack.callback(start.remove)
            for layer, chosen in interventions.items():
                hook = decoder.layers[layer].register_forward_hook(_LayerHook(self, chosen))
                stack.callback(hook.remove)
            yield

    def _start_pass(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        cache = kwargs.get("past_key_values")
        if cache is None and args:
            cache = inspect.signature(module.forward).bind_partial(*args).arguments.get("past_key_values")
        # As an integer now: the layers of this pass make the cache longer.
        self._past = 0 if cache is None else int(cache.get_seq_length())
        self._indices = None

    def indices(self, rows: int, columns: int) -> list[Tensor]:
        """Return, for each mask, the flat places [edited] in a pass of [rows, columns] tokens."""
        if self._indices is None:  # the same for every layer of the pass
            self._indices = [_flat_places(mask, self._past, rows, columns) for mask in self._masks]
        return self._indices


class _LayerHook:
    """Replaces a layer's output by one with the chosen tokens edited; the others keep their bits."""

    def __init__(self, edits: Edits, interventions: list[nn.Module]) -> None:
        self._edits = edits
        self._interventions = interventions

    def __call__(self, _module: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output
        rows, columns, width = hidden.shape
        flat = hidden.reshape(rows * columns, width)
        for intervention, places in zip(self._interventions, self._edits.indices(rows, columns), strict=True):
            if places.numel():
                flat = flat.index_copy(0, places, intervention(flat.index_select(0, places)))
        edited = flat.view(rows, columns, width)
        return (edited, *output[1:]) if isinstance(output, tuple) else edited


def _flat_places(mask: Tensor, past: int, rows: int, columns: int) -> Tensor:
    if rows % mask.shape[0]:
        raise ValueError(
            f"a pass must have a multiple of the batch's {mask.shape[0]} rows; got {rows}; "
            "give attention mask and prompt lengths of the same batch"
        )
    chunk = mask[:, past : past + columns]
    row, column = chunk.repeat_interleave(rows // mask.shape[0], dim=0).nonzero(as_tuple=True)
    return row * columns + column


def position_ids(attention_mask: Tensor) -> Tensor:
    """Return each token's place among the real tokens of its row, int64 [batch, sequence]; 0 at padding."""
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)


def accepts(module: nn.Module, argument: str) -> bool:
    """Whether a module's ``forward`` names ``argument``."""
    return argument in inspect.signature(module.forward).parameters


def text_config(base: nn.Module) -> Any:
    """Return the config of a base's language model.

    Raises:
        ValueError: if the base is an encoder-decoder, whose prompt is not where it is edited here.
    """
    config: Any = base.config
    if getattr(config, "is_encoder_decoder", False):
        raise ValueError(
            f"a base must be a decoder-only language model; got {type(base).__name__}; choose another base"
        )
    return config.get_text_config()
