"""The part of the cone that any base has: layers up to the lowest edited one need not run.

Of encoders, of encoder-decoders, and of decoders whose keys and values are not known to be constants.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from reft.cone.compute import whole_row
from reft.cone.constants import Constants, ConstantStore, RowKey, Want
from reft.cone.keeper import Keeper, keeper_of
from reft.cone.kept_layers import kept_output
from reft.data import to_device

if TYPE_CHECKING:
    from reft.cone.edited import EditedModel


@contextmanager
def skipping(model: EditedModel, rows: Sequence[Any], batch: Any) -> Iterator[None]:
    """Skip what no intervention can change in the passes over a batch inside the context.

    Args:
        model: whose base it is.
        rows: the batch's rows.
        batch: the rows, collated by the model and on its device.
    """
    keeper = keeper_of(model.base)
    store = keeper.store(model.base, model.head_tensors().values())
    if store is None or changing_rope(model.base.config) or not _right(model, rows, keeper, store):
        yield
        return
    with _skipping(model, rows, batch.readable.attention_mask, keeper, store):
        yield


def changing_rope(config: Any) -> bool:
    """Whether the longest row of a batch decides how positions are encoded, so that no row has constants of its own."""
    rope = getattr(config.get_text_config(), "rope_parameters", None) or {}
    nested = [value for value in rope.values() if isinstance(value, dict)]
    return any(each.get("rope_type") in ("dynamic", "longrope") for each in [rope, *nested])


@contextmanager
def _skipping(
    model: EditedModel, rows: Sequence[Any], mask: Tensor, keeper: Keeper, store: ConstantStore
) -> Iterator[None]:
    layer = model.config.layers[0]
    want = Want(frozenset([(layer, ())]))
    own = [store.get(model.reads(row), want, partial(_computed, model, row)).outputs for row in rows]
    joined = torch.cat([each[layer, ()] for each in own])
    hidden = joined.new_zeros(*mask.shape, joined.shape[-1])
    hidden[mask.bool()] = joined
    output = to_device(hidden, model.device)
    with kept_output(model.stack, layer, output, fields=keeper.output_fields(model.base, model.stack)):
        yield


def _computed(model: EditedModel, row: Any, wanted: Mapping[RowKey, Want]) -> list[Constants]:
    (want,) = wanted.values()  # no rows are announced, so none runs beside another
    return [whole_row(model, row, want)]


@torch.no_grad()
def _right(model: EditedModel, rows: Sequence[Any], keeper: Keeper, store: ConstantStore) -> bool:
    """Whether losses of unedited rows are the same without the lower layers; found out once for each layer and base.

    Layers may hand on more than their output, as T5's first one does with its position bias.
    """
    layer = model.config.layers[0]
    if layer not in keeper.right:
        name, was_training = type(model.base).__name__, model.training
        model.eval()
        with model.disabled():
            batch = model.collate(rows[:2], 0).to(model.device)
            plain = model.target_losses(batch)
            with _skipping(model, rows[:2], batch.readable.attention_mask, keeper, store):
                skipped = model.target_losses(batch)
        model.train(was_training)
        close = 1e-3 if next(model.base.parameters()).dtype.itemsize > 2 else 5e-2
        same = torch.allclose(plain, skipped, rtol=close, atol=close)
        keeper.right[layer] = same
        if not keeper.right[layer]:
            keeper.say_once(f"layers of {name} are not skipped, because later ones need more than their output")
    return keeper.right[layer]
