"""LoRA: two thin matrices beside each chosen linear module (Hu et al. 2021)."""

from __future__ import annotations

from typing import Literal

from pipelines.recipes.methods.parts import DomainRange, Form, LowRankParams, LowRankRecipe, RivalMethod


class LoraParams(LowRankParams):
    """Section `method.lora`."""


class LoraRecipe(LowRankRecipe):
    """All parts of LoRA."""

    name: Literal["lora"]


def _form(recipe: LoraRecipe, num_layers: int, _domains: DomainRange) -> Form:
    return {**recipe.low_rank(num_layers), "decomposed": False}


METHOD = RivalMethod(
    name="lora",
    title="LoRA",
    section=LoraParams,
    recipe=LoraRecipe,
    form=_form,
    sized=frozenset({"rank", "target_modules", "layers"}),
)
