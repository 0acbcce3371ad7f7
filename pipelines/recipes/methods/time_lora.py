"""LoRA whose core moves with a number of each row, its domain."""

from __future__ import annotations

from typing import Literal

from pipelines.recipes.methods.parts import DomainRange, Form, LowRankParams, LowRankRecipe, RivalMethod
from pipelines.recipes.methods.reft import Settable
from pipelines.sections import Count


class TimeLoraParams(LowRankParams):
    """Section `method.time_lora`."""

    degree: Settable[Count]


class TimeLoraRecipe(LowRankRecipe):
    """All parts of time-varying LoRA."""

    name: Literal["time_lora"]
    degree: Count


def _form(recipe: TimeLoraRecipe, num_layers: int, domains: DomainRange) -> Form:
    low, high = domains
    return {**recipe.low_rank(num_layers), "low": low, "high": high, "degree": recipe.degree}


METHOD = RivalMethod(
    name="time_lora",
    title="time-varying LoRA",
    section=TimeLoraParams,
    recipe=TimeLoraRecipe,
    form=_form,
    sized=frozenset({"rank", "target_modules", "layers", "degree"}),
    reads_domain=True,
)
