"""The parts of a recipe as the configuration of a model of its method."""

from __future__ import annotations

from transformers import PreTrainedModel

from pipelines.errors import PipelineError
from pipelines.recipes.methods.parts import DomainRange, TrainingRecipe
from pipelines.recipes.methods.reft import Recipe
from pipelines.recipes.methods.table import DECLARED
from reft import ReftConfig
from reft.peers.methods import PeerConfig, config_from_dict

ANY_RANGE: DomainRange = (-1.0, 1.0)  # where a form is wanted for its size, which the range does not change


def reft_config(recipe: Recipe, base: PreTrainedModel) -> ReftConfig:
    """The form of the recipe's adapter for this base.

    Raises:
        PipelineError: if the base has no such layer or its hidden states are narrower than the rank.
    """
    config = base.config
    try:
        form = recipe.form(config.num_hidden_layers)
    except ValueError as error:
        raise PipelineError("layers must exist in the base model", got=f"{recipe.layers!r}: {error}") from None
    if recipe.rank is not None and recipe.rank > config.hidden_size:
        raise PipelineError(
            f"the rank must not be above the base's hidden size {config.hidden_size}",
            got=recipe.rank,
            do="Lower it in search.space, or in train.",
        )
    return form


def peer_form(recipe: TrainingRecipe, num_layers: int, domains: DomainRange = ANY_RANGE) -> PeerConfig:
    """What a rival's recipe trains on a base of so many layers.

    Args:
        recipe: of the rival.
        num_layers: of the base.
        domains: the range of the training rows' domains, for a rival that reads them.

    Raises:
        ValueError: if there is no such layer.
    """
    return config_from_dict({"method": recipe.name, **DECLARED[recipe.name].form(recipe, num_layers, domains)})
