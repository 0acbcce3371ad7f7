"""How many numbers a recipe trains on a base, and which recipes of the space train fewest and most."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from pipelines.bases.store import ensure_base
from pipelines.contracts.base import BaseRecord
from pipelines.errors import PipelineError
from pipelines.model.forms import peer_form
from pipelines.recipes.methods.reft import Recipe
from pipelines.recipes.methods.table import DECLARED, AnyRecipe, Part
from pipelines.recipes.recipe_space import RecipeSpace
from reft import ReftConfig, count_parameters
from reft.models.heads import head_modules
from reft.peers.methods import PeerConfig
from reft.peers.parts import PartConfig
from reft.peers.stacked import StackedConfig

# Those of rivals are counted on the base's modules, without its weights.
SIZED: tuple[Part, ...] = (
    "method", "init", "layers", "positions", "tied", "activation", "projection_bias", "rank",
    *(f"{name}.{part}" for name, method in DECLARED.items() for part in sorted(method.sized)),
)  # fmt: skip

PACED: tuple[Part, ...] = ("epochs", "batch_size", "accumulation")  # what changes a trial's time and not its size


def parameters_of(recipe: AnyRecipe, record: BaseRecord, outputs: int = 0) -> int:
    """The number of trained parameters, without building a model.

    Args:
        recipe: of the adapter.
        record: of its base.
        outputs: of an encoder's head, which is trained with every recipe; 0 for a decoder.

    Raises:
        PipelineError: if the base lacks a module that the recipe names.
    """
    try:
        if isinstance(recipe, Recipe):
            return parameters_of_form(recipe.form(record.num_layers), record, outputs)
        return parameters_of_form(peer_form(recipe, record.num_layers), record, outputs)
    except ValueError as error:
        raise PipelineError("the base must have what the method trains", got=error, do="Correct method.") from None


def parameters_of_form(form: ReftConfig | PeerConfig, record: BaseRecord, outputs: int = 0) -> int:
    """The same of what an adapter says of itself.

    Raises:
        ValueError: if the base lacks a module that the form names.
    """
    if isinstance(form, ReftConfig):
        head = _head_parameters(ensure_base(record), outputs) if record.kind == "encoder" else 0
        return count_parameters(form, record.hidden_size) + head
    if isinstance(form, StackedConfig):
        return parameters_of_form(form.lora, record, outputs) + parameters_of_form(form.reft, record, outputs)
    assert isinstance(form, PartConfig)
    return form.count(_skeleton(ensure_base(record)))


@lru_cache(maxsize=1)
def _head_parameters(base: Path, outputs: int) -> int:
    """The numbers in the head of an encoder, counted without its weights."""
    config = AutoConfig.from_pretrained(base, local_files_only=True, num_labels=outputs)
    with torch.device("meta"):
        model: nn.Module = AutoModelForSequenceClassification.from_config(config)
    return sum(value.numel() for name in head_modules(model) for value in model.get_submodule(name).parameters())


@lru_cache(maxsize=1)
def _skeleton(base: Path) -> nn.Module:
    """A base's modules without their weights."""
    config = AutoConfig.from_pretrained(base, local_files_only=True)
    with torch.device("meta"):
        model: nn.Module = AutoModelForCausalLM.from_config(config)
    return model


def extremes(recipes: RecipeSpace, record: BaseRecord, outputs: int = 0) -> tuple[AnyRecipe, AnyRecipe]:
    """The recipe of the space with fewest parameters, and that with most."""
    corners = recipes.corners(SIZED)
    sizes = [parameters_of(recipe, record, outputs) for recipe in corners]
    return corners[sizes.index(min(sizes))], corners[sizes.index(max(sizes))]


def paces(recipes: RecipeSpace, record: BaseRecord) -> tuple[AnyRecipe, AnyRecipe]:
    """The recipe of the space whose trial does least work, and that with most, by :func:`work_of`."""
    corners = recipes.corners((*SIZED, *PACED))
    works = [work_of(recipe, record.num_layers) for recipe in corners]
    return corners[works.index(min(works))], corners[works.index(max(works))]


def work_of(recipe: AnyRecipe, num_layers: int) -> tuple[float, float]:
    """How much a trial computes, for comparison with others of the space: passes over the rows, then steps.

    A pass counts in whole passes of the base. Where ReFT edits the prompt's end or what follows it, what stands before
    is computed once (the cone), and so are the layers below the lowest edited one; such a pass counts a tenth.
    """
    pass_ = 1.0
    if isinstance(recipe, Recipe):
        placed = recipe.placement(num_layers)
        at_end = all("first" not in positions.parts for positions in placed.every())
        pass_ = (num_layers - placed.layers[0]) / num_layers * (0.1 if at_end else 1.0)
    return recipe.epochs * pass_, recipe.epochs / (recipe.batch_size * recipe.accumulation)


def check_limit(recipes: RecipeSpace, limit: int | None, record: BaseRecord, outputs: int = 0) -> None:
    """Refuse a limit of parameters that no recipe of the space keeps, before any is trained.

    Raises:
        PipelineError: with the fewest parameters that there are.
    """
    least = parameters_of(extremes(recipes, record, outputs)[0], record, outputs)
    if limit is not None and least > limit:
        raise PipelineError(
            "search.limits.parameters must leave a recipe of search.space",
            got=f"{limit:,}, and the smallest recipe has {least:,}",
            do="Raise it, or add smaller ranks or fewer layers to search.space.",
        )
