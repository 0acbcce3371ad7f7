"""What the search chose: best.yaml, which the stage train takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import PipelineError
from pipelines.recipes.methods.table import AnyRecipe
from pipelines.recipes.recipe_space import RecipeSpace
from pipelines.yaml_file import read_yaml


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
    raw = read_yaml(path)
    try:
        fields = dict(raw)  # type: ignore[call-overload]
        chosen = {str(part): value for part, value in dict(fields["chosen"]).items()}
        study, trial = str(fields["study"]), int(fields["trial"])
        searched = sorted(recipes.space.root)
        if sorted(chosen) != searched:
            raise ValueError(f"chosen has {', '.join(chosen)}; and search.space has {', '.join(searched)}")
        return BestRecipe(chosen, recipes.whole(chosen), study, trial)
    except (TypeError, KeyError, ValueError) as error:
        raise PipelineError(
            "best.yaml must hold the recipe that the search wrote",
            got=f"{path}: {type(error).__name__}: {error}",
            do="Run: dvc repro -f search",
        ) from None
