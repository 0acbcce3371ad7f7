"""The sections of params.yaml that say where a model and rows come from, and what a row is turned into."""

from __future__ import annotations

import math
import re
import string
from itertools import combinations
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from pipelines.errors import PipelineError
from pipelines.sections import Count, Name, Section, Sha256, refuse
from pipelines.sources.addresses import HubSource, PypiSource, parse_source
from pipelines.sources.raw_row import DELIMITERS, Format


class SourceParams(Section):
    """Where a model or data set comes from; see :mod:`pipelines.sources.addresses` for the grammar."""

    source: str
    sha256: Sha256 | None

    @model_validator(mode="after")
    def _pinned(self) -> Self:
        refuse(_source_problems(self.source))
        if self.source.startswith("pypi:") and self.sha256 is None:
            raise ValueError(f"a pypi: source needs the sha256 of the fetched file; got none for {self.source}")
        return self


class BaseParams(SourceParams):
    dtype: Literal["float32", "bfloat16", "float16"]


class LabelParams(Section):
    """One label: the word that the model is to answer with, and which values of the label column mean it."""

    word: Annotated[str, Field(min_length=1)]
    min: float | None
    max: float | None
    values: list[str | int | float | bool] | None

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        ranged = self.min is not None or self.max is not None
        if ranged == (self.values is not None):
            raise ValueError("a label is given either by values or by min and/or max, and by one of them")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min must not be above max; got {self.min} and {self.max}")
        return self

    def overlaps(self, other: LabelParams) -> bool:
        """Whether both rules hold for some value."""
        if self.values is None and other.values is None:
            return max(self._low, other._low) <= min(self._high, other._high)
        if self.values is not None and other.values is not None:
            return any(a == b and isinstance(a, bool) == isinstance(b, bool) for a in self.values for b in other.values)
        ranged, values = (self, other.values) if self.values is None else (other, self.values)
        numbers = [value for value in values or [] if not isinstance(value, bool | str)]
        return any(ranged._low <= number <= ranged._high for number in numbers)

    @property
    def _low(self) -> float:
        return -math.inf if self.min is None else self.min

    @property
    def _high(self) -> float:
        return math.inf if self.max is None else self.max


class PrepareParams(SourceParams):
    validation_source: str | None
    test_source: str | None
    format: Format
    columns: list[str] | None
    quoting: bool
    task: Literal["classification"]
    template: str
    chat: bool
    label_column: str
    labels: dict[Name, LabelParams]
    domain_column: str | None
    train_rows: Count
    validation_rows: Count
    test_rows: Count
    max_tokens: Annotated[int, Field(ge=4)]

    @field_validator("validation_source", "test_source")
    @classmethod
    def _readable(cls, source: str | None) -> str | None:
        refuse([] if source is None else _source_problems(source))
        return source

    @field_validator("template")
    @classmethod
    def _plain_fields(cls, template: str) -> str:
        fields = template_fields(template)
        if not fields:
            raise ValueError("the template must name at least one column, like {text}")
        return template

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        refuse([*self._label_problems(), *self._column_problems(), *self._split_problems()])
        return self

    def _label_problems(self) -> list[str]:
        problems = []
        if len(self.labels) < 2:
            problems.append(f"classification needs at least two labels; got {', '.join(self.labels) or 'none'}")
        for (one, a), (other, b) in combinations(self.labels.items(), 2):
            if a.word == b.word:
                problems.append(f"two labels must not have the same word; got {a.word!r} of {one} and {other}")
            if a.overlaps(b):
                problems.append(f"no value may have two labels; got one that {one} and {other} both hold for")
        return problems

    def _column_problems(self) -> list[str]:
        problems = self._domain_problems()
        if self.columns is None:
            return problems
        if self.format not in DELIMITERS:
            kinds = ", ".join(DELIMITERS)
            return [f"columns names the columns of {kinds}; got format {self.format}; set columns: null"]
        missing = [name for name in (*template_fields(self.template), self.label_column) if name not in self.columns]
        problems += [f"template and label_column name columns that columns holds; got {name!r}" for name in missing]
        if self.domain_column is not None and self.domain_column not in self.columns:
            problems.append(f"domain_column names a column that columns holds; got {self.domain_column!r}")
        if len(set(self.columns)) < len(self.columns):
            problems.append(f"each column has a name of its own; got {self.columns}")
        return problems

    def _domain_problems(self) -> list[str]:
        if self.domain_column is None:
            return []
        problems = []
        if self.domain_column == self.label_column:
            problems.append(f"domain_column must not be label_column, which is to be told; got {self.domain_column!r}")
        if set(template_fields(self.template)) == {self.domain_column}:
            problems.append(f"the template must name a column beside domain_column; got {self.domain_column!r} alone")
        return problems

    def _split_problems(self) -> list[str]:
        problems = []
        main = parse_source(self.source)
        if (self.format == "hub") != isinstance(main, HubSource):
            problems.append(f"format: hub and a hub: source go together; got {self.format} and {self.source}")
        used = [self.source]
        for key, text in (("validation_source", self.validation_source), ("test_source", self.test_source)):
            if text is None:
                continue
            if text in used:
                problems.append(f"{key} must not be the source of another split; got {text}")
            used.append(text)
            own = parse_source(text)
            if type(own) is not type(main):
                problems.append(f"{key} must be of the kind of source; got {text}")
            elif isinstance(own, PypiSource) and isinstance(main, PypiSource) and own.filename != main.filename:
                problems.append(f"{key} must lie in {main.filename}, whose sha256 is given; got {text}")
        return problems


def template_fields(template: str) -> list[str]:
    """Return the column names in a template.

    Raises:
        ValueError: if a placeholder is more than a column name (an attribute, an index, a format).
    """
    names = []
    for _, field, spec, conversion in string.Formatter().parse(template):
        if field is None:
            continue
        if not re.fullmatch(r"\w+", field) or spec or conversion:
            raise ValueError(f"a placeholder is a column's name in braces, like {{text}}, not {{{field}}}")
        names.append(field)
    return names


def _source_problems(source: str) -> list[str]:
    try:
        parse_source(source)
    except PipelineError as error:
        return [str(error)]
    return []
