"""Sections `search` and `search.space` of params.yaml."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from pipelines.params.address import check_address
from pipelines.params.pruner import PrunerParams
from pipelines.recipes.methods.table import Part
from pipelines.recipes.nested import BY_PART
from pipelines.recipes.published import RecipeName
from pipelines.recipes.recipe_space import enqueued_problems
from pipelines.recipes.space import SpaceParams
from pipelines.sections import Count, Section, refuse

Cost = Literal["parameters", "seconds", "memory_mb"]
COSTS: tuple[Cost, ...] = get_args(Cost)
COUNTABLE = 10_000  # points that a grid may have


def _form(entry: object) -> str:
    return "named" if isinstance(entry, str) else "point"


# A recipe that is tried first: a point of the space, or a recipe by its name.
Enqueued = Annotated[
    Annotated[RecipeName, Tag("named")] | Annotated[dict[Part, Any], BY_PART, Tag("point")], Discriminator(_form)
]


class LimitParams(Section):
    """Bounds of a trial's costs; null is none."""

    parameters: Count | None
    seconds: Annotated[float, Field(gt=0)] | None
    memory_mb: Annotated[float, Field(gt=0)] | None

    def bounds(self) -> dict[Cost, float]:
        """The bounds that there are."""
        return {cost: bound for cost, bound in self.model_dump().items() if bound is not None}  # type: ignore[misc]


class ConfirmParams(Section):
    """The ``top`` recipes and the one tried first, run again with so many other ``seeds`` each before one is chosen."""

    top: Count
    seeds: Count


class SearchParams(Section):
    """Section `search`."""

    trials: Count
    seconds: Annotated[float, Field(gt=0)] | None
    patience: Count | None
    train_rows: Count
    epochs: Count | None
    storage: str
    sampler: Literal["tpe", "gp", "random", "grid", "qmc"]
    pruner: PrunerParams
    reports: Count
    objectives: Annotated[list[str], Field(min_length=1)]
    judge: Literal["measure", "loss"]
    limits: LimitParams
    choose: Literal["best", "smallest"]
    confirm: ConfirmParams | None
    space: SpaceParams
    enqueue: list[Enqueued]
    earlier: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        found = enqueued_problems(self.space, self.enqueue)
        refuse([*self._objective_problems(), *self._judge_problems(), *self._pruner_problems(), *found])
        return self

    @field_validator("storage")
    @classmethod
    def _known_database(cls, storage: str) -> str:
        if not re.match(r"^(sqlite:///.|postgresql(\+\w+)?://.)", storage):
            raise ValueError("the storage of trials is an sqlite:/// or postgresql:// address")
        check_address(storage)
        return storage

    def sampler_problems(self, space: SpaceParams) -> list[str]:
        """Why the sampler cannot propose points of the trained method's space."""
        problems = []
        points = space.size()
        if self.sampler == "grid" and points > COUNTABLE:
            problems.append(
                f"sampler grid tries every point, so there must be at most {COUNTABLE:,}; got {points:,}; use lists or "
                "steps in search.space, or another sampler"
            )
        if self.sampler == "gp" and space.conditional():
            problems.append("sampler gp knows no conditions; got one in search.space; use tpe, random, grid or qmc")
        return problems

    def _objective_problems(self) -> list[str]:
        problems = []
        costs = self.objectives[1:]
        if not set(costs) <= set(COSTS) or len(set(costs)) < len(costs):
            problems.append(
                f"objectives are the task's measure and then costs ({', '.join(COSTS)}), each once; "
                f"got {self.objectives}"
            )
        if len(self.objectives) > 1 and self.pruner.name != "none":
            problems.append(f"trials with several objectives cannot be pruned; got {self.pruner.name}; use name: none")
        return problems

    def _judge_problems(self) -> list[str]:
        """Where only the task's measure can decide."""
        if self.judge == "measure":
            return []
        problems = []
        if len(self.objectives) > 1:
            problems.append(
                f"trials with several objectives are judged by the measure; got judge: {self.judge}; use measure"
            )
        if self.choose == "smallest":
            problems.append(
                f"choose: smallest counts standard errors of the measure; got judge: {self.judge}; use measure, or "
                "choose: best"
            )
        return problems

    def _pruner_problems(self) -> list[str]:
        """A pruner looks at every report but the last, so its first look must come before that."""
        key, first = self.pruner.first_report()
        if first < self.reports:
            return []
        return [
            f"pruner {self.pruner.name} first looks at report {first}, and the last of a trial's reports is too late; "
            f"got {self.reports} reports; raise search.reports, lower pruner.{key}, or use name: none"
        ]
