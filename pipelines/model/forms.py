"""The parts of a recipe as the configuration of a model of its method."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel

from pipelines.errors import PipelineError
from pipelines.recipes.methods import (
    FullRecipe,
    LoraRecipe,
    LowRankRecipe,
    PartRecipe,
    PrefixRecipe,
    PromptRecipe,
    PTuningRecipe,
    StackedRecipe,
    TimeLoraRecipe,
)
from pipelines.recipes.reft import Recipe
from reft import (
    LayerOverride,
    ReftConfig,
)
from reft.peers.methods import (
    FullConfig,
    LoraConfig,
    PartConfig,
    PeerConfig,
    PrefixConfig,
    PromptConfig,
    StackedConfig,
    TimeLoraConfig,
)

DomainRange = tuple[float, float]
ANY_RANGE: DomainRange = (-1.0, 1.0)  # where a form is wanted for its size, which the range does not change


def reft_config(recipe: Recipe, base: PreTrainedModel) -> ReftConfig:
    """The form of the recipe's adapter for this base.

    Raises:
        PipelineError: if the base has no such layer or its hidden states are narrower than the rank.
    """
    config = base.config
    try:
        form = reft_form(recipe, config.num_hidden_layers)
    except ValueError as error:
        raise PipelineError("layers must exist in the base model", got=f"{recipe.layers!r}: {error}") from None
    if recipe.rank is not None and recipe.rank > config.hidden_size:
        raise PipelineError(
            f"the rank must not be above the base's hidden size {config.hidden_size}",
            got=recipe.rank,
            do="Lower it in search.space, or in train.",
        )
    return form


def reft_form(recipe: Recipe, num_layers: int) -> ReftConfig:
    """The form of the recipe's adapter for a base of so many layers.

    Raises:
        ValueError: if there is no such layer, or one of its own that the recipe does not edit.
    """
    return ReftConfig(
        layers=recipe.placement(num_layers).layers,
        positions=recipe.positions,
        rank=recipe.rank,
        method=recipe.method,
        init=recipe.init,
        tied=recipe.tied,
        activation=recipe.activation,
        dropout=recipe.dropout,
        dropout_on=recipe.dropout_on,
        projection_bias=recipe.projection_bias,
        overrides=tuple(LayerOverride(**override.model_dump()) for override in recipe.overrides),
    )


def peer_form(recipe: PartRecipe | StackedRecipe, num_layers: int, domains: DomainRange = ANY_RANGE) -> PeerConfig:
    """What a rival's recipe trains on a base of so many layers.

    Args:
        recipe: of the rival.
        num_layers: of the base.
        domains: the range of the training rows' domains, for a rival that reads them.

    Raises:
        ValueError: if there is no such layer.
    """
    if isinstance(recipe, StackedRecipe):
        lora = _part_form(recipe.lora, num_layers, domains)
        assert isinstance(lora, LoraConfig)
        return StackedConfig(lora, reft_form(recipe.reft, num_layers))
    return _part_form(recipe, num_layers, domains)


def _part_form(recipe: PartRecipe, num_layers: int, domains: DomainRange) -> PartConfig:
    match recipe:
        case TimeLoraRecipe():
            low, high = domains
            return TimeLoraConfig(**_low_rank(recipe, num_layers), low=low, high=high, degree=recipe.degree)
        case LoraRecipe():
            return LoraConfig(**_low_rank(recipe, num_layers), decomposed=recipe.name == "dora")
        case PromptRecipe():
            return PromptConfig(recipe.virtual_tokens, recipe.init)
        case PrefixRecipe():
            return PrefixConfig(recipe.virtual_tokens, recipe.width)
        case PTuningRecipe():
            return PrefixConfig(recipe.virtual_tokens)
        case FullRecipe():
            return FullConfig(recipe.layer_numbers(num_layers), recipe.embeddings)


def _low_rank(recipe: LowRankRecipe, num_layers: int) -> dict[str, Any]:
    return {
        "layers": recipe.layer_numbers(num_layers),
        "targets": tuple(recipe.target_modules.split(",")),
        "rank": recipe.rank,
        "alpha": recipe.alpha,
        "dropout": recipe.dropout,
    }
