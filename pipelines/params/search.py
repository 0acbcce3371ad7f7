"""Sections `search` and `search.space` of params.yaml."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, RootModel, ValidationError, field_validator, model_validator
from pydantic_core import InitErrorDetails

from pipelines.params.pruner import PrunerParams
from pipelines.recipes.domains import Conditional, Domain, Span, Steps, checked, size, values_of
from pipelines.recipes.methods import CHECKS, METHODS, PARTS, Part, is_part_of, owner
from pipelines.recipes.published import paper_point
from pipelines.sections import STRICT, Count, Section, refuse

Objective = Literal["accuracy", "parameters", "seconds", "memory_mb"]
Cost = Literal["parameters", "seconds", "memory_mb"]
COUNTABLE = 10_000  # points that a grid may have


class SpaceParams(RootModel[dict[Part, Domain]]):
    """Section `search.space`: the searched parts, each with what it is chosen from."""

    model_config = STRICT

    @model_validator(mode="after")
    def _sound(self) -> SpaceParams:
        mistakes: list[InitErrorDetails] = []
        root = {part: checked(part, domain, (part,), mistakes) for part, domain in self.root.items()}
        if mistakes:
            raise ValidationError.from_exception_data("space", mistakes)
        made = type(self).model_construct(root)
        refuse([problem for part in root for problem in made._condition_problems(part)])
        return made

    def of_method(self, method: str) -> SpaceParams:
        """The parts that recipes of a method have."""
        return type(self).model_construct(
            {part: domain for part, domain in self.root.items() if is_part_of(part, method)}
        )

    def parts(self) -> list[Part]:
        """The searched parts: first those that others may depend on."""
        names = [part for part in PARTS if part in self.root]
        return sorted(names, key=lambda part: isinstance(self.root[part], Conditional))

    def domain(self, part: Part) -> list[Any] | Span | Steps:
        """What a part is chosen from, while it is chosen."""
        domain = self.root[part]
        return domain.among if isinstance(domain, Conditional) else domain

    def conditional(self) -> bool:
        """Whether a part is chosen under a condition."""
        return any(isinstance(domain, Conditional) for domain in self.root.values())

    def chosen(self, part: Part, others: Mapping[str, Any]) -> bool:
        """Whether a part is chosen when the others have these values."""
        domain = self.root[part]
        if not isinstance(domain, Conditional):
            return True
        return all(others[parent] in values for parent, values in domain.when.items())

    def complete(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """The value of every searched part at a point: the parts that it does not choose have their ``otherwise``."""
        found = {part: domain.otherwise for part, domain in self.root.items() if isinstance(domain, Conditional)}
        found |= {part: point[part] for part in self.parts() if part in point}
        return {str(part): value for part, value in found.items()}

    def extremes(self, part: Part) -> list[Any]:
        """Every value that a searched part may have; of a range, its ends."""
        values, found = self._ends(self.domain(part)), self.root[part]
        return [*values, found.otherwise] if isinstance(found, Conditional) else values

    def problems(self, point: Mapping[Any, Any]) -> list[str]:
        """Why these values are no point of the space; nothing if they are one."""
        absent = [part for part in self.parts() if not isinstance(self.root[part], Conditional) and part not in point]
        if absent:
            return [f"it has no {part}" for part in absent]
        wanted = [part for part in self.parts() if self.chosen(part, point)]
        said = [f"it has no {part}" for part in wanted if part not in point]
        said += [f"it must not have {part}" for part in point if part not in wanted]
        outside = [part for part in wanted if part in point and not self._holds(part, point[part])]
        return said + [f"{part} is not of search.space" for part in outside]

    def size(self) -> float:
        """The number of points; infinite where a part is a real number."""
        return sum(
            math.prod(size(self.domain(part)) for part in self.parts() if self._free(part, parents))
            for parents in self._parents()
        )

    def points(self, only: Iterable[Part] = PARTS) -> Iterator[dict[str, Any]]:
        """Every choice of the parts in ``only`` (and of those that they depend on), which must be finite."""
        for parents in self._parents():
            parts = [part for part in self.parts() if self._free(part, parents) and part in only]
            for values in product(*(values_of(self.domain(part)) for part in parts)):
                yield {**parents, **dict(zip(parts, values, strict=True))}

    def corners(self, parts: Iterable[Part]) -> Iterator[dict[str, Any]]:
        """Every choice of some parts, ranges at their ends; of the other parts the first or lowest value."""
        for parents in self._parents():
            free = [part for part in self.parts() if self._free(part, parents)]
            ends = {part: self._ends(self.domain(part)) for part in free}
            for values in product(*(ends[part] if part in parts else ends[part][:1] for part in free)):
                yield {**parents, **dict(zip(free, values, strict=True))}

    @staticmethod
    def _ends(domain: list[Any] | Span | Steps) -> list[Any]:
        return domain if isinstance(domain, list) else [domain.low, domain.high]

    def _parents(self) -> Iterator[dict[str, Any]]:
        """Every combination of the values that conditions ask for."""
        names = sorted({p for d in self.root.values() if isinstance(d, Conditional) for p in d.when}, key=PARTS.index)
        for values in product(*(values_of(self.domain(name)) for name in names)):
            yield dict(zip(names, values, strict=True))

    def _holds(self, part: Part, value: object) -> bool:
        domain = self.domain(part)
        try:
            value = CHECKS[part].validate_python(value)
        except ValidationError:
            return False
        return value in domain if isinstance(domain, list) else domain.holds(value)

    def _free(self, part: Part, parents: Mapping[str, Any]) -> bool:
        return part not in parents and self.chosen(part, parents)

    def _condition_problems(self, part: Part) -> Iterator[str]:
        domain = self.root[part]
        if not isinstance(domain, Conditional):
            return
        for parent, values in domain.when.items():
            choices = self.root.get(parent)
            if parent == part or not isinstance(choices, list):
                yield (
                    f"{part}.when must name another part that search.space has as a list; got {parent}; "
                    "correct it, or take the condition out"
                )
            elif owner(parent) not in (None, owner(part)):
                yield f"{part}.when must name a part of the same method; got {parent}; correct it"
            elif strangers := [value for value in values if value not in choices]:
                yield f"{part}.when.{parent} must hold choices of {parent}; got {strangers}; it has {choices}"
            elif len(domain.when) == 1 and all(choice in values for choice in choices):
                yield f"{part}.when must leave out a choice of {parent}; got all of them; take the condition out"


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
    objectives: Annotated[list[Objective], Field(min_length=1)]
    limits: LimitParams
    choose: Literal["best", "smallest"]
    confirm: ConfirmParams | None
    space: SpaceParams
    enqueue: list[dict[Part, Any]]
    earlier: Annotated[int, Field(ge=0)]

    @model_validator(mode="before")
    @classmethod
    def _published(cls, raw: Any) -> Any:
        """Put what the space has of it in the place of a published recipe's name."""
        if not isinstance(raw, Mapping) or not isinstance(raw.get("enqueue"), list):
            return raw
        space = raw.get("space")
        if not isinstance(space, Mapping):
            return raw
        points = [paper_point(each, space) if isinstance(each, str) else each for each in raw["enqueue"]]
        return {**raw, "enqueue": points}

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        refuse([*self._objective_problems(), *self._pruner_problems(), *self._enqueued_problems()])
        return self

    @field_validator("storage")
    @classmethod
    def _known_database(cls, storage: str) -> str:
        if not re.match(r"^(sqlite:///.|postgresql(\+\w+)?://.)", storage):
            raise ValueError("the storage of trials is an sqlite:/// or postgresql:// address")
        check_address(storage)
        return storage

    def sampler_problems(self) -> list[str]:
        """Why the sampler cannot propose points of the space; asked of the section of one method, :meth:`of_method`."""
        problems = []
        points = self.space.size()
        if self.sampler == "grid" and points > COUNTABLE:
            problems.append(
                f"sampler grid tries every point, so there must be at most {COUNTABLE:,}; got {points:,}; use lists or "
                "steps in search.space, or another sampler"
            )
        if self.sampler == "gp" and self.space.conditional():
            problems.append("sampler gp knows no conditions; got one in search.space; use tpe, random, grid or qmc")
        return problems

    def _objective_problems(self) -> list[str]:
        problems = []
        if self.objectives[0] != "accuracy" or len(set(self.objectives)) < len(self.objectives):
            problems.append(f"objectives are accuracy and then costs, each once; got {self.objectives}")
        if len(self.objectives) > 1 and self.pruner.name != "none":
            problems.append(f"trials with several objectives cannot be pruned; got {self.pruner.name}; use name: none")
        return problems

    def _pruner_problems(self) -> list[str]:
        """A pruner looks at every report but the last, so its first look must come before that."""
        key, first = self.pruner.first_look()
        if first < self.reports:
            return []
        return [
            f"pruner {self.pruner.name} first looks at report {first}, and the last of a trial's reports is too late; "
            f"got {self.reports} reports; raise search.reports, lower pruner.{key}, or use name: none"
        ]

    def of_method(self, method: str) -> Self:
        """The section without what is other methods': parts of the space, and enqueued recipes."""
        space = self.space.of_method(method)
        enqueue = [recipe for recipe in self.enqueue if not space.problems(recipe)]
        return self.model_copy(update={"space": space, "enqueue": enqueue})

    def _enqueued_problems(self) -> list[str]:
        problems = []
        for recipe in self.enqueue:
            # A recipe is of the methods that have its parts: of several, if these are parts of all.
            methods = [name for name in METHODS if all(is_part_of(part, name) for part in recipe)]
            found = [self.space.of_method(name).problems(recipe) for name in methods] or [["no method has these parts"]]
            if all(found):
                problems.append(f"an enqueued recipe must lie in the space; {recipe} does not: {'; '.join(found[0])}")
        return problems


def check_address(uri: str) -> None:
    """Raise ValueError for an address whose host or port cannot be read, or that holds a NUL."""
    if "\0" in uri:
        raise ValueError("an address must not hold a NUL")
    _ = urlsplit(uri).port
