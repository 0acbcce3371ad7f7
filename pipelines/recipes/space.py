"""The space of a search: which parts are chosen, and from what."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from typing import Annotated, Any

from pydantic import RootModel, SerializerFunctionWrapHandler, ValidationError, model_serializer, model_validator
from pydantic_core import InitErrorDetails

from pipelines.recipes.domains import Conditional, Domain, Span, Steps, checked, size, values_of
from pipelines.recipes.methods.table import CHECKS, PARTS, Part, is_part_of, owner
from pipelines.recipes.nested import BY_PART, nested
from pipelines.sections import STRICT, refuse


class SpaceParams(RootModel[Annotated[dict[Part, Domain], BY_PART]]):
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

    @model_serializer(mode="wrap")
    def _as_written(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return nested(plain(self))

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
        return said + [f"{part} is {point[part]!r}, where search.space has {self._words(part)}" for part in outside]

    def _words(self, part: Part) -> str:
        """What a part is chosen from."""
        match self.domain(part):
            case Span(low=low, high=high):
                return f"{low} to {high}"
            case Steps(low=low, high=high, step=step):
                return f"{low} to {high} in steps of {step}"
            case choices:
                return ", ".join(map(repr, choices))

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
