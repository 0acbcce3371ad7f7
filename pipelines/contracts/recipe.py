"""The recipe of best.yaml, whole: what the search chose, and what is fixed of the others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipelines.contracts.best import AGAIN, read_chosen
from pipelines.errors import PipelineError
from pipelines.recipes.methods.table import AnyRecipe
from pipelines.recipes.recipe_space import RecipeSpace


@dataclass(frozen=True)
class BestRecipe:
    """What the search left in best.yaml: the parts that it chose, with the others a recipe; and its study and trial."""

    chosen: dict[str, object]
    recipe: AnyRecipe
    study: str
    trial: int


def read_best(path: Path, recipes: RecipeSpace) -> BestRecipe:
    """Read best.yaml.

    Raises:
        PipelineError: if it is not what the search stage writes, or has not the parts that the search was to choose.
    """
    best, searched = read_chosen(path), sorted(recipes.space.root)
    if sorted(best.chosen) != searched:
        raise PipelineError(
            "best.yaml must hold the recipe that the search wrote",
            got=f"{path}: chosen has {', '.join(best.chosen)}; and search.space has {', '.join(searched)}",
            do=AGAIN,
        )
    try:
        return BestRecipe(best.chosen, recipes.whole(best.chosen), best.study, best.trial)
    except ValueError as error:
        raise PipelineError(
            "best.yaml must hold the recipe that the search wrote", got=f"{path}: {error}", do=AGAIN
        ) from None
