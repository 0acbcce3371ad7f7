"""Whether a base can have every recipe of the search space: looked at before any model is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.errors import PipelineError
from pipelines.params.whole import Params
from pipelines.recipes.methods import Part
from reft.edits.layers import parse_layers

if TYPE_CHECKING:
    from pipelines.contracts.base import BaseRecord


def check_space(params: Params, record: BaseRecord) -> None:
    """Compare the space with the base's depth and width.

    Args:
        params: all of params.yaml; ``search.space`` and the recipe in ``train`` are used.
        record: of the base.

    Raises:
        PipelineError: naming every choice of layers that the base does not have or that leaves out a layer of
            ``train.overrides``, and every rank above the base's hidden size.
    """
    problems = _reft_problems(params, record) if params.has("layers") else []
    parts: tuple[Part, ...] = ("lora.layers", "dora.layers", "time_lora.layers", "full.layers")
    for layers in (layers for part in parts if params.has(part) for layers in params.values(part)):
        try:
            parse_layers(layers, record.num_layers)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise PipelineError(
            "search.space must hold only what the base can have",
            got="; and ".join(problems),
            do="Correct search.space in params.yaml, or what train or method fixes.",
        )


def _reft_problems(params: Params, record: BaseRecord) -> list[str]:
    problems = []
    overrides = params.train.overrides
    for layers in params.values("layers"):
        try:
            edited = parse_layers(layers, record.num_layers)
        except ValueError as error:
            problems.append(str(error))
            continue
        problems += [
            "every choice of layers must hold those of train.overrides; "
            f"got {layers!r} without layer {override.layer}; take one of them out"
            for override in overrides
            if override.layer not in edited
        ]
    problems += [
        f"the rank must not be above the base's hidden size {record.hidden_size}; got {rank}; lower it"
        for rank in [*params.values("rank"), *(override.rank or 1 for override in overrides)]
        if rank > record.hidden_size
    ]
    return problems
