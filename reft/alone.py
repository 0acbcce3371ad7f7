"""The one way in which constants are computed: each row alone, in a batch of one without padding, unedited."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from reft.constants import Constants, Ids, Output, Want
from reft.editing import Stack
from reft.grouped_attention import is_small, takes_groups
from reft.kept_layers import recorded
from reft.prefix_cache import PrefixCache, run_behind

if TYPE_CHECKING:
    from reft.adapted import AdaptedModel


@torch.no_grad()
def whole_row(model: AdaptedModel, row: Any, want: Want) -> Constants:
    """Run a row through the base of any kind of model, up to the highest layer that is wanted of it.

    Args:
        model: whose base it is.
        row: of the model's kind.
        want: outputs at the row's own tokens.
    """
    layers = {layer for layer, _ in want.outputs}
    with model.disabled(), _precise(model.base), recorded(model.stack, layers, last=max(layers)) as seen:
        model.target_losses(model.collate([row], 0).to(model.device))
    return Constants({(layer, ()): _kept(seen[layer]) for layer in layers})


@torch.no_grad()
def prompt(base: nn.Module, stack: Stack, ids: Ids, want: Want) -> Constants:
    """Run a prompt through a decoder, then each continuation of it after the prompt's keys and values.

    No layer runs that nothing wanted follows from: of the highest, only the keys and values are computed, and a
    continuation stops at the highest layer whose output is wanted.

    Args:
        base: the decoder.
        stack: its layers.
        ids: the prompt's token ids.
        want: its constants.
    """
    device = next(base.parameters()).device
    count = len(stack.layers)
    top = max((layer for layer, _ in want.outputs), default=-1)
    continued = any(after for _, after in want.outputs)
    lowest = count if want.lowest is None else want.lowest

    def passed(tokens: Ids, before: int, cache: PrefixCache) -> None:
        mask = torch.ones(1, before + len(tokens), dtype=torch.long, device=device)
        run_behind(base, torch.tensor([tokens], device=device), mask, cache)

    cache = PrefixCache(
        count,
        0,
        {},
        recording=[layer for layer in range(count) if layer >= lowest or (continued and layer <= top)],
        last=None if want.lowest is None else count - 1,
        apart=takes_groups(base.config) and is_small(len(ids), 0),
    )
    with _precise(base), recorded(stack, _layers(want, ()), last=top if want.lowest is None else None) as seen:
        passed(ids, 0, cache)
    outputs: dict[Output, Tensor] = {(layer, ()): _kept(output) for layer, output in seen.items()}
    for after in {after for _, after in want.outputs if after}:
        chosen = _layers(want, after)
        apart = takes_groups(base.config) and is_small(len(after), len(ids))
        behind = PrefixCache(count, len(ids), cache.seen, apart=apart)
        with _precise(base), recorded(stack, chosen, last=max(chosen)) as seen:
            passed(after, len(ids), behind)
        outputs |= {(layer, after): _kept(output) for layer, output in seen.items()}
    if want.lowest is None:
        return Constants(outputs)
    return Constants(outputs, lowest, _keys_values([pair for layer, pair in cache.seen.items() if layer >= lowest]))


def _precise(base: nn.Module) -> AbstractContextManager[None]:
    """Keep a caller's autocast out: constants are in the base's dtype."""
    return torch.autocast(next(base.parameters()).device.type, enabled=False)


def _layers(want: Want, after: Ids) -> set[int]:
    return {layer for layer, ids in want.outputs if ids == after}


def _kept(output: Tensor) -> Tensor:
    return output[0].to("cpu").contiguous()


def _keys_values(pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Return the keys and values of all tokens but the last, [layers, 2, heads, tokens - 1, dim]."""
    return torch.stack([torch.cat(pair)[:, :, :-1] for pair in pairs]).to("cpu")
