"""Whether a base can have every recipe of the search space: looked at before any model is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pipelines.errors import PipelineError
from pipelines.recipes.recipe_space import RecipeSpace

if TYPE_CHECKING:
    from pipelines.contracts.base import BaseRecord


def check_space(recipes: RecipeSpace, record: BaseRecord) -> None:
    """Compare the space with the base's depth and width.

    Args:
        recipes: every recipe that a search may try.
        record: of the base.

    Raises:
        PipelineError: naming every choice of layers that the base does not have or that leaves out a layer of
            ``train.overrides``, and every rank above the base's hidden size.
    """
    layers = recipes.layer_choices(record.num_layers)
    problems = [*layers.problems]
    if recipes.has("layers"):
        problems += [*_override_problems(recipes, layers.edited), *_rank_problems(recipes, record.hidden_size)]
    if problems:
        raise PipelineError(
            "search.space must hold only what the base can have",
            got="; and ".join(problems),
            do="Correct search.space in params.yaml, or what train or method fixes.",
        )


def _override_problems(recipes: RecipeSpace, edited: Mapping[str, tuple[int, ...]]) -> list[str]:
    return [
        "every choice of layers must hold those of train.overrides; "
        f"got {text!r} without layer {override.layer}; take one of them out"
        for text, layers in edited.items()
        for override in recipes.fixed["overrides"]
        if override.layer not in layers
    ]


def _rank_problems(recipes: RecipeSpace, hidden_size: int) -> list[str]:
    ranks = [*recipes.values("rank"), *(override.rank or 1 for override in recipes.fixed["overrides"])]
    return [
        f"the rank must not be above the base's hidden size {hidden_size}; got {rank}; lower it"
        for rank in ranks
        if rank is not None and rank > hidden_size
    ]
