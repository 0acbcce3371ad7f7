"""P-tuning v2: keys and values before each prompt, trained themselves (Liu et al. 2021)."""

from __future__ import annotations

from typing import Literal

from pipelines.recipes.methods.parts import DomainRange, Form, PartRecipe, RivalMethod
from pipelines.recipes.methods.reft import Settable
from pipelines.sections import Count, Positive, Section


class PTuningParams(Section):
    """Section `method.p_tuning_v2`."""

    virtual_tokens: Settable[Count]
    learning_rate: Settable[Positive]


class PTuningRecipe(PartRecipe):
    """All parts of P-tuning v2."""

    name: Literal["p_tuning_v2"]
    virtual_tokens: Count


def _form(recipe: PTuningRecipe, _num_layers: int, _domains: DomainRange) -> Form:
    return {"virtual_tokens": recipe.virtual_tokens, "width": None}


METHOD = RivalMethod(
    name="p_tuning_v2",
    title="P-tuning v2",
    section=PTuningParams,
    recipe=PTuningRecipe,
    form=_form,
    sized=frozenset({"virtual_tokens"}),
)
