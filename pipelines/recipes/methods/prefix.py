"""Prefix tuning: keys and values before each prompt, which a perceptron makes (Li & Liang 2021)."""

from __future__ import annotations

from typing import Literal

from pipelines.recipes.methods.parts import DomainRange, Form, PartRecipe, RivalMethod
from pipelines.recipes.methods.reft import Settable
from pipelines.sections import Count, Positive, Section


class PrefixParams(Section):
    """Section `method.prefix`."""

    virtual_tokens: Settable[Count]
    width: Settable[Count]
    learning_rate: Settable[Positive]


class PrefixRecipe(PartRecipe):
    """All parts of prefix tuning."""

    name: Literal["prefix"]
    virtual_tokens: Count
    width: Count


def _form(recipe: PrefixRecipe, _num_layers: int, _domains: DomainRange) -> Form:
    return {"virtual_tokens": recipe.virtual_tokens, "width": recipe.width}


METHOD = RivalMethod(
    name="prefix",
    title="prefix tuning",
    section=PrefixParams,
    recipe=PrefixRecipe,
    form=_form,
    sized=frozenset({"virtual_tokens", "width"}),
)
