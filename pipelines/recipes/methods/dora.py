"""DoRA: LoRA, and a trained length of each row of the sum (Liu et al. 2024)."""

from __future__ import annotations

from typing import Literal

from pipelines.recipes.methods.parts import DomainRange, Form, LowRankParams, LowRankRecipe, RivalMethod


class DoraParams(LowRankParams):
    """Section `method.dora`."""


class DoraRecipe(LowRankRecipe):
    """All parts of DoRA."""

    name: Literal["dora"]


def _form(recipe: DoraRecipe, num_layers: int, _domains: DomainRange) -> Form:
    return {**recipe.low_rank(num_layers), "decomposed": True}


METHOD = RivalMethod(
    name="dora",
    title="DoRA",
    section=DoraParams,
    recipe=DoraRecipe,
    form=_form,
    sized=frozenset({"rank", "target_modules", "layers"}),
)
