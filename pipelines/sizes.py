"""How many numbers a recipe trains on a base, and which recipes of the space train fewest and most."""

from __future__ import annotations

from pipelines.base import BaseRecord
from pipelines.errors import PipelineError
from pipelines.params import Params
from pipelines.recipe import Part, Recipe
from pipelines.training import reft_form
from reft import count_parameters

SIZED: tuple[Part, ...] = ("method", "init", "layers", "positions", "tied", "activation", "projection_bias", "rank")


def parameters_of(recipe: Recipe, record: BaseRecord) -> int:
    """The number of trained parameters, without building a model."""
    return count_parameters(reft_form(recipe, record.num_layers), record.hidden_size)


def extremes(params: Params, record: BaseRecord) -> tuple[Recipe, Recipe]:
    """The recipe of the space with fewest parameters, and that with most."""
    points = params.search.space.corners(SIZED)
    recipes = [params.recipe(point, trial=True) for point in points]
    sizes = [parameters_of(recipe, record) for recipe in recipes]
    return recipes[sizes.index(min(sizes))], recipes[sizes.index(max(sizes))]


def check_limit(params: Params, record: BaseRecord) -> None:
    """Refuse a limit that no recipe of the space keeps, before any is trained.

    Raises:
        PipelineError: with the fewest parameters that there are.
    """
    limit, least = params.search.limits.parameters, parameters_of(extremes(params, record)[0], record)
    if limit is not None and least > limit:
        raise PipelineError(
            "search.limits.parameters must leave a recipe of search.space",
            got=f"{limit:,}, and the smallest recipe has {least:,}",
            do="Raise it, or add smaller ranks or fewer layers to search.space.",
        )
