"""LoRA, then ReFT on top of the result, as HEFT does (Hill 2025): LoRA as its section says, ReFT as `train` says."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from pipelines.recipes.methods.lora import METHOD as LORA
from pipelines.recipes.methods.lora import LoraRecipe
from pipelines.recipes.methods.parts import DomainRange, Form, RivalMethod, TrainingRecipe
from pipelines.recipes.methods.reft import Recipe, Settable
from pipelines.sections import Section

Between = Annotated[float, Field(gt=0.0, lt=1.0)]


class StackedParams(Section):
    """Section `method.lora_then_reft`."""

    lora_share: Settable[Between]


class StackedRecipe(TrainingRecipe):
    """All parts of both; how rows are batched and for how long is the same for both."""

    name: Literal["lora_then_reft"]
    lora_share: Between
    lora: LoraRecipe
    reft: Recipe

    def effect(self, num_layers: int) -> dict[str, Any]:
        """What the recipe does to a base of so many layers."""
        both = {"lora": self.lora.effect(num_layers), "reft": self.reft.effect(num_layers)}
        return {"name": self.name, "lora_share": self.lora_share, **both}


def _form(recipe: StackedRecipe, num_layers: int, domains: DomainRange) -> Form:
    lora = {"method": LORA.name, **LORA.form(recipe.lora, num_layers, domains)}
    return {"lora": lora, "reft": recipe.reft.form(num_layers).to_dict()}


METHOD = RivalMethod(
    name="lora_then_reft",
    title="LoRA, then ReFT",
    section=StackedParams,
    recipe=StackedRecipe,
    form=_form,
    sized=frozenset(),
    made_of=("lora", "reft"),
)
