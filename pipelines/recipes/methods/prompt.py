"""Prompt tuning: trained embeddings before each prompt (Lester et al. 2021)."""

from __future__ import annotations

from typing import Literal

from pipelines.recipes.methods.parts import DomainRange, Form, PartRecipe, RivalMethod
from pipelines.recipes.methods.reft import Settable
from pipelines.sections import Count, Positive, Section

PromptInit = Literal["vocabulary", "random"]


class PromptParams(Section):
    """Section `method.prompt`."""

    virtual_tokens: Settable[Count]
    init: Settable[PromptInit]
    learning_rate: Settable[Positive]


class PromptRecipe(PartRecipe):
    """All parts of prompt tuning."""

    name: Literal["prompt"]
    virtual_tokens: Count
    init: PromptInit


def _form(recipe: PromptRecipe, _num_layers: int, _domains: DomainRange) -> Form:
    return {"virtual_tokens": recipe.virtual_tokens, "init": recipe.init}


METHOD = RivalMethod(
    name="prompt",
    title="prompt tuning",
    section=PromptParams,
    recipe=PromptRecipe,
    form=_form,
    sized=frozenset({"virtual_tokens"}),
)
