"""What a part of a recipe may be chosen from: a list, a range, or either under a condition."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    PlainSerializer,
    Tag,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from pipelines.recipes.methods.table import CHECKS, Part
from pipelines.recipes.nested import BY_PART, nested
from pipelines.sections import Section


def _number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("an end or a step of a range is a finite number")
    return value


Number = Annotated[Any, AfterValidator(_number)]  # whether an integer or not is the part's to say


class Span(Section):
    """All numbers from low to high, both included; with ``log``, each ratio of them is as likely as any other."""

    low: Number
    high: Number
    log: bool

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low must be below high; got {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"low must be above 0 where log is true; got {self.low}")
        return self

    @property
    def whole(self) -> bool:
        """Whether it is of integers."""
        return isinstance(self.low, int)

    def size(self) -> float:
        """How many numbers it has."""
        return self.high - self.low + 1 if self.whole else math.inf

    def values(self) -> Iterable[Any]:
        """Each integer of it."""
        if not self.whole:
            raise ValueError(f"real numbers cannot be listed; got {self.low} to {self.high}; count them first")
        return range(self.low, self.high + 1)

    def holds(self, value: Any) -> bool:
        """Whether a number of the part's type is one of it."""
        return bool(self.low <= value <= self.high)

    def at(self, share: float) -> Any:
        """The number at a share in [0, 1) of the way through; an integer stands for as much of the way as any other."""
        low, high = (self.low, self.high + 1) if self.whole else (self.low, self.high)
        value = low * (high / low) ** share if self.log else low + (high - low) * share
        return min(int(value) if self.whole else value, self.high)


class Steps(Section):
    """The numbers low, low + step, and so on to high."""

    low: Number
    high: Number
    step: Number

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low must be below high; got {self.low} and {self.high}")
        if self.step <= 0:
            raise ValueError(f"step must be above 0; got {self.step}")
        if not self.holds(self.high):
            raise ValueError(f"high must be low and some steps; got {self.low}, {self.high} and steps of {self.step}")
        return self

    @property
    def whole(self) -> bool:
        """Whether it is of integers."""
        return isinstance(self.low, int)

    def size(self) -> float:
        """How many numbers it has."""
        return int((_exact(self.high) - _exact(self.low)) / _exact(self.step)) + 1

    def values(self) -> Iterable[Any]:
        """Each number of it."""
        return (self._number(place) for place in range(int(self.size())))

    def holds(self, value: Any) -> bool:
        """Whether a number of the part's type is one of it."""
        return bool(self.low <= value <= self.high and (_exact(value) - _exact(self.low)) % _exact(self.step) == 0)

    def at(self, share: float) -> Any:
        """The number at a share in [0, 1) of the way through."""
        return self._number(int(share * self.size()))

    def nearest(self, value: float) -> Any:
        """The number that is nearest: sums of floats miss it in their last bits."""
        return self._number(round((_exact(value) - _exact(self.low)) / _exact(self.step)))

    def _number(self, place: int) -> Any:
        value = _exact(self.low) + place * _exact(self.step)
        return int(value) if self.whole else float(value)


def _exact(value: float) -> Fraction:
    """A number as its decimals say it: three steps of 0.1 are 0.3."""
    return Fraction(str(value))


def _form(value: object) -> str:
    if isinstance(value, list):
        return "choices"
    if isinstance(value, Mapping) and "among" in value:
        return "conditional"
    return "steps" if isinstance(value, Mapping) and "step" in value else "span"


def _listed(value: object) -> object:
    if not isinstance(value, list | Mapping):
        raise ValueError("a part is chosen from a list, or from a range like {low: 1, high: 64, log: true}")
    return value


Choices = Annotated[list[Any], Field(min_length=1)]
Plain = Annotated[
    Annotated[Choices, Tag("choices")] | Annotated[Span, Tag("span")] | Annotated[Steps, Tag("steps")],
    Discriminator(_form),
    BeforeValidator(_listed),
]


class Conditional(Section):
    """What is chosen ``among`` while other parts have one of the values in ``when``; else the part is ``otherwise``."""

    among: Plain
    when: Annotated[dict[Part, Choices], Field(min_length=1), BY_PART, PlainSerializer(nested)]
    otherwise: Any


Domain = Annotated[
    Annotated[Choices, Tag("choices")]
    | Annotated[Span, Tag("span")]
    | Annotated[Steps, Tag("steps")]
    | Annotated[Conditional, Tag("conditional")],
    Discriminator(_form),
    BeforeValidator(_listed),
]


def size(domain: list[Any] | Span | Steps) -> float:
    """How many values it has; infinitely many where they are real numbers."""
    return len(domain) if isinstance(domain, list) else domain.size()


def values_of(domain: list[Any] | Span | Steps) -> Iterable[Any]:
    """Each value of a domain of finite size."""
    return domain if isinstance(domain, list) else domain.values()


def checked(part: Part, domain: Any, loc: tuple[str | int, ...], mistakes: list[InitErrorDetails]) -> Any:
    """The domain with every value as the part has it (1 as 1.0 where it is real); what is wrong is added to a list."""
    if isinstance(domain, Conditional):
        among = checked(part, domain.among, (*loc, "among"), mistakes)
        otherwise = _value(part, domain.otherwise, (*loc, "otherwise"), mistakes)
        return domain.model_copy(update={"among": among, "otherwise": otherwise})
    if isinstance(domain, list):
        choices = [_value(part, choice, (*loc, place), mistakes) for place, choice in enumerate(domain)]
        if any(one in choices[:place] for place, one in enumerate(choices)):
            mistakes.append(_mistake(loc, domain, "a choice stands twice; take one of them out"))
        return choices
    ends = {end: _value(part, getattr(domain, end), (*loc, end), mistakes) for end in ("low", "high")}
    if isinstance(domain, Steps) and isinstance(ends["low"], int) and not isinstance(domain.step, int):
        mistakes.append(_mistake((*loc, "step"), domain.step, "a step between integers is an integer"))
    return domain.model_copy(update=ends)


def _value(part: Part, value: object, loc: tuple[str | int, ...], mistakes: list[InitErrorDetails]) -> Any:
    try:
        return CHECKS[part].validate_python(value)
    except ValidationError as error:
        texts = [one["msg"].removeprefix("Value error, ") for one in error.errors(include_url=False)]
        mistakes += [_mistake(loc, value, text) for text in texts]
        return value


def _mistake(loc: tuple[str | int, ...], value: object, text: str) -> InitErrorDetails:
    return {"type": PydanticCustomError("rule", "{text}", {"text": text}), "loc": loc, "input": value}
