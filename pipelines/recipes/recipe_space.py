"""The recipes that a search chooses from: the points of its space, completed by what is fixed of every recipe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.recipes.methods.reft import TrainParams
from pipelines.recipes.methods.table import (
    METHODS,
    PARTS,
    AnyRecipe,
    MethodName,
    MethodParams,
    Part,
    is_part_of,
    make_recipe,
)
from pipelines.recipes.published import named_point
from pipelines.recipes.space import SpaceParams
from reft.edits.layers import parse_layers

Point = dict[str, Any]


@dataclass(frozen=True)
class LayerChoices:
    """The layers that recipes may name in a base.

    Attributes:
        edited: of each choice of layers that ReFT edits, by its text: their numbers.
        problems: why choices are none of the base.
    """

    edited: Mapping[str, tuple[int, ...]]
    problems: Sequence[str]


@dataclass(frozen=True)
class RecipeSpace:
    """The recipes of one method: what is searched of them, what is fixed, and which come first.

    Attributes:
        method: that all of them are of.
        space: what is searched of its parts, and from what; nothing of other methods.
        fixed: what is not searched: the values of all methods' parts, and ReFT's ``overrides``.
        first: the points that `search.enqueue` names and that are the method's, in their order.
        trial_epochs: the epochs of a trial, where they are not a part that is searched.
    """

    method: MethodName
    space: SpaceParams
    fixed: Mapping[str, Any]
    first: tuple[Point, ...]
    trial_epochs: int | None

    def recipe(self, point: Mapping[str, Any], *, trial: bool = False) -> AnyRecipe:
        """The whole recipe of a point of the space; a ``trial`` has the epochs of a trial."""
        values: dict[str, Any] = self.space.complete(point)
        if trial and self.trial_epochs is not None:
            values["epochs"] = self.trial_epochs
        return self.whole(values)

    def whole(self, values: Mapping[str, Any]) -> AnyRecipe:
        """The recipe with these values, and those that are fixed for its other parts."""
        return make_recipe(self.method, {**self.fixed, **values})

    def corners(self, parts: Iterable[Part]) -> list[AnyRecipe]:
        """The trials' recipes at every choice of some parts, ranges at their ends; of others at one value."""
        return [self.recipe(point, trial=True) for point in self.space.corners(parts)]

    def has(self, part: str) -> bool:
        """Whether the recipes have the part."""
        return is_part_of(part, self.method)

    def values(self, part: Part) -> list[Any]:
        """Every value that a part may have; of a range, its ends."""
        return self.space.extremes(part) if part in self.space.root else [self.fixed[part]]

    def layer_choices(self, num_layers: int) -> LayerChoices:
        """What the parts that name layers may name, of a base of so many."""
        found: dict[str, tuple[int, ...]] = {}
        problems = []
        for part in PARTS:
            if part.rpartition(".")[2] != "layers" or not self.has(part):
                continue
            for text in self.values(part):
                try:
                    layers = parse_layers(text, num_layers)
                except ValueError as error:
                    problems.append(str(error))
                    continue
                if part == "layers":
                    found[text] = layers
        return LayerChoices(found, problems)

    def decides(self) -> dict[str, Any]:
        """What of the fixed values decides a trained adapter: all that is the method's."""
        own: dict[str, Any] = {part: self.fixed[part] for part in PARTS if part in self.fixed and self.has(part)}
        if self.has("layers"):
            own["overrides"] = [override.model_dump() for override in self.fixed["overrides"]]
        return {"trained": self.method} | own


def recipe_space(
    method: MethodParams, train: TrainParams, space: SpaceParams, enqueue: Sequence[str | Mapping[Part, Any]], *,
    trial_epochs: int | None,
) -> RecipeSpace:  # fmt: skip
    """Put together what sections `method`, `train` and `search` say of recipes; what is other methods' is left out."""
    own = space.of_method(method.name)
    first = [enqueued_point(each, space) for each in enqueue]
    return RecipeSpace(
        method=method.name,
        space=own,
        fixed={**train.fixed(), **method.fixed()},
        first=tuple(point for point in first if not own.problems(point)),
        trial_epochs=trial_epochs,
    )


def enqueued_point(entry: str | Mapping[Part, Any], space: SpaceParams) -> Point:
    """The point that an entry of `search.enqueue` stands for: itself, or of a named recipe what the space has."""
    if isinstance(entry, str):
        return named_point(entry, space)
    return {str(part): value for part, value in entry.items()}


def enqueued_problems(space: SpaceParams, enqueue: Sequence[str | Mapping[Part, Any]]) -> list[str]:
    """Why entries of `search.enqueue` are no points of any method's space."""
    problems = []
    for recipe in (enqueued_point(each, space) for each in enqueue):
        # A recipe is of the methods that have its parts: of several, if these are parts of all.
        methods = [name for name in METHODS if all(is_part_of(part, name) for part in recipe)]
        found = [space.of_method(name).problems(recipe) for name in methods] or [["no method has these parts"]]
        if all(found):
            problems.append(f"an enqueued recipe must lie in the space; {recipe} does not: {'; '.join(found[0])}")
    return problems
