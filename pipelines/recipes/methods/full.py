"""Full fine-tuning: the weights of layers, and of what is outside them."""

from __future__ import annotations

from typing import Literal

from pipelines.recipes.methods.parts import DomainRange, Form, LayeredRecipe, RivalMethod
from pipelines.recipes.methods.reft import Layers, Settable
from pipelines.sections import Positive, Section


class FullParams(Section):
    """Section `method.full`."""

    layers: Settable[Layers]
    embeddings: Settable[bool]
    learning_rate: Settable[Positive]


class FullRecipe(LayeredRecipe):
    """All parts of full fine-tuning."""

    name: Literal["full"]
    embeddings: bool


def _form(recipe: FullRecipe, num_layers: int, _domains: DomainRange) -> Form:
    return {"layers": recipe.layer_numbers(num_layers), "embeddings": recipe.embeddings}


METHOD = RivalMethod(
    name="full",
    title="full fine-tuning",
    section=FullParams,
    recipe=FullRecipe,
    form=_form,
    sized=frozenset({"layers", "embeddings"}),
)
