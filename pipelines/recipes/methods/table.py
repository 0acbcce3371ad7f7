"""The methods that a recipe may be of, ReFT and its rivals of :mod:`reft.peers.table`, with the parts of each."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

from pydantic import TypeAdapter, create_model

from pipelines.recipes.methods import reft as reft_recipe
from pipelines.recipes.methods.parts import SHARED, RivalMethod, TrainingRecipe
from pipelines.recipes.methods.reft import SEARCHED, Recipe
from pipelines.sections import STRICT, Section
from reft.peers.table import METHODS as RIVALS

REFT = "reft"
STACKED = "lora_then_reft"

# Each rival is declared in the module of its name beside this one. The methods of the ReFT family are in
# reft.edits.methods.table.
METHODS: tuple[str, ...] = (REFT, *RIVALS)


def _declared(name: str) -> RivalMethod:
    method: RivalMethod = import_module(f"pipelines.recipes.methods.{name}").METHOD
    return method


DECLARED: Mapping[str, RivalMethod] = MappingProxyType({name: _declared(name) for name in RIVALS})
READS_DOMAIN: tuple[str, ...] = tuple(name for name, method in DECLARED.items() if method.reads_domain)

# What a space may have: every part of every method.
OWN_PARTS: tuple[str, ...] = tuple(
    f"{name}.{key}" for name, method in DECLARED.items() for key in method.section.model_fields
)
PARTS: tuple[str, ...] = (*reft_recipe.PARTS, *OWN_PARTS)

AnyRecipe = Recipe | TrainingRecipe


class _MethodParams(Section):
    """Section `method`: which method is trained, and the parts of each method but `reft`, fixed or `searched`."""

    name: str

    def value(self, part: str) -> Any:
        """What stands at a part of a rival."""
        method, _, key = part.partition(".")
        return getattr(getattr(self, method), key)

    def fixed(self) -> dict[str, Any]:
        """What of the rivals' parts is not searched."""
        return {part: value for part in OWN_PARTS if (value := self.value(part)) != SEARCHED}


if TYPE_CHECKING:
    MethodName = str
    Part = str

    class MethodParams(_MethodParams):
        """The section, with a sub-section for each rival."""

else:
    MethodName = Literal[METHODS]
    Part = Literal[PARTS]
    MethodParams = create_model(
        "MethodParams",
        __base__=_MethodParams,
        __doc__=_MethodParams.__doc__,
        name=(MethodName, ...),
        **{name: (method.section, ...) for name, method in DECLARED.items()},
    )


def _checks() -> dict[str, TypeAdapter[Any]]:
    found: dict[str, TypeAdapter[Any]] = {str(part): check for part, check in reft_recipe.CHECKS.items()}
    for name, method in DECLARED.items():
        hints = get_type_hints(method.recipe, include_extras=True)
        found |= {f"{name}.{key}": TypeAdapter(hints[key], config=STRICT) for key in method.section.model_fields}
    return found


# How a value of each part is checked, wherever it stands.
CHECKS: Mapping[str, TypeAdapter[Any]] = _checks()


def owner(part: str) -> str | None:
    """The method that a part is of; None for a part of all."""
    if part in SHARED:
        return None
    return part.partition(".")[0] if "." in part else REFT


def is_part_of(part: str, method: str) -> bool:
    """Whether a recipe of the method has the part."""
    of = owner(part)
    return of is None or of == method or (method in DECLARED and of in DECLARED[method].made_of)


def make_recipe(method: str, values: Mapping[str, Any]) -> AnyRecipe:
    """The whole recipe of a method.

    Args:
        method: its name.
        values: of its parts, by their names in :data:`PARTS`; and ReFT's ``overrides``.
    """
    if method == REFT:
        return Recipe(**{name: values[name] for name in Recipe.model_fields})
    declared = DECLARED[method]
    shared = {name: values[name] for name in SHARED}
    own: dict[str, Any] = {key: values[f"{method}.{key}"] for key in declared.section.model_fields}
    own |= {name: make_recipe(name, values) for name in declared.made_of}
    return declared.recipe(name=method, **shared, **own)


def plain_parts(recipe: AnyRecipe) -> dict[str, Any]:
    """The value of each part by its name in :data:`PARTS`; of ReFT also ``overrides``, of a rival also its ``name``."""
    if isinstance(recipe, Recipe):
        return recipe.model_dump()
    declared = DECLARED[recipe.name]
    found: dict[str, Any] = {}
    for name in declared.made_of:
        found |= plain_parts(getattr(recipe, name))
    found |= {f"{recipe.name}.{key}": getattr(recipe, key) for key in declared.section.model_fields}
    return {**found, **recipe.model_dump(include={*map(str, SHARED)}), "name": recipe.name}
