"""The keys that the section `prepare` has for every task family: where rows come from, and how a prompt is made."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from pipelines.errors import PipelineError
from pipelines.sections import Count, Section, Sha256, refuse
from pipelines.sources.addresses import HubSource, PypiSource, parse_source
from pipelines.sources.raw_row import DELIMITERS, Format
from pipelines.tasks.keys.template import template_fields, text_fields


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


Part = Annotated[float, Field(gt=0, lt=1)]


class GrowingParams(Section):
    """Shares of the units (groups, or single texts) that splits get for ever; null for one with a source of its own."""

    validation: Part | None
    test: Part | None


class PrepareParams(SourceParams):
    """What each family's section has; a family adds ``task``, its own name, and the keys of its answers."""

    task: str
    validation_source: str | None
    test_source: str | None
    format: Format
    columns: list[str] | None
    quoting: bool
    template: str
    second_template: str | None
    chat: bool
    group_column: str | None
    domain_column: str | None
    train_rows: Count
    validation_rows: Count
    test_rows: Count
    growing: GrowingParams | None
    max_tokens: Annotated[int, Field(ge=4)]

    @abstractmethod
    def measure_name(self) -> str:
        """What the answers are measured by: the first of search.objectives."""

    @abstractmethod
    def answer_columns(self) -> dict[str, str]:
        """The columns that hold what is to be told, by the key that names each."""

    def sections(self) -> dict[str, Self]:
        """These keys, by where they stand in params.yaml."""
        return {"prepare": self}

    def has_head(self) -> bool:
        """Whether an encoder can answer, by a head: with one of a few labels that all rows share, or with a number."""
        return False

    def wordless(self) -> list[str]:
        """The keys whose words a decoder needs to be asked, and that are null, which is for an encoder alone."""
        return []

    def one_answer(self) -> bool:
        """Whether a text has one right answer, so that rows which give it others contradict each other."""
        return True

    def family_problems(self) -> list[str]:
        """The broken rules between the family's own keys."""
        return []

    def text_columns(self) -> tuple[str, ...]:
        """The columns that the model reads, in the order of the templates."""
        return text_fields(self.template, self.second_template)

    def task_columns(self) -> tuple[str, ...]:
        """The columns of the data that the task reads: the templates' first."""
        return tuple(dict.fromkeys((*self.text_columns(), *self.answer_columns().values())))

    def made_columns(self) -> tuple[str, ...]:
        """The columns that the task makes of others."""
        return ()

    def row_columns(self) -> tuple[str, ...]:
        """Every column that is read."""
        named = (*self.task_columns(), self.domain_column, self.group_column)
        return tuple(dict.fromkeys(name for name in named if name is not None and name not in self.made_columns()))

    @field_validator("validation_source", "test_source")
    @classmethod
    def _readable(cls, source: str | None) -> str | None:
        refuse([] if source is None else _source_problems(source))
        return source

    @field_validator("template", "second_template")
    @classmethod
    def _plain_fields(cls, template: str | None) -> str | None:
        if template is not None and not template_fields(template):
            raise ValueError("the template must name at least one column, like {text}")
        return template

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        refuse([*self.family_problems(), *self._column_problems(), *self._split_problems(), *self._growth_problems()])
        return self

    def _column_problems(self) -> list[str]:
        problems = self._domain_problems()
        if self.columns is None:
            return problems
        if self.format not in DELIMITERS:
            kinds = ", ".join(DELIMITERS)
            return [f"columns names the columns of {kinds}; got format {self.format}; set columns: null"]
        answers = self.answer_columns()
        missing = [name for name in self.task_columns() if name not in self.columns]
        named = " and ".join(["template", *answers])
        problems += [f"{named} name columns that columns holds; got {name!r}" for name in missing]
        for key, column in (("domain_column", self.domain_column), ("group_column", self.group_column)):
            if column is not None and column not in (*self.columns, *self.made_columns()):
                problems.append(f"{key} names a column that columns holds; got {column!r}")
        if len(set(self.columns)) < len(self.columns):
            problems.append(f"each column has a name of its own; got {self.columns}")
        return problems

    def _domain_problems(self) -> list[str]:
        if self.domain_column is None:
            return []
        problems = [
            f"domain_column must not be {key}, which is to be told; got {self.domain_column!r}"
            for key, column in self.answer_columns().items()
            if column == self.domain_column
        ]
        if set(self.text_columns()) == {self.domain_column}:
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

    def _growth_problems(self) -> list[str]:
        """A split gets a share of the main source exactly where it has no source of its own."""
        if self.growing is None:
            return []
        problems, shares = [], 0.0
        own = {"validation": self.validation_source, "test": self.test_source}
        for split, share in (("validation", self.growing.validation), ("test", self.growing.test)):
            shares += share or 0.0
            if share is None and own[split] is None:
                problems.append(f"growing.{split} must be a share, since it is cut from source; got None")
            if share is not None and own[split] is not None:
                problems.append(f"growing.{split} must be null, since its rows are those of {own[split]}; got {share}")
        if shares >= 1:
            problems.append(f"growing must leave a share for the train split; got {shares:g} for the others")
        return problems


def _source_problems(source: str) -> list[str]:
    try:
        parse_source(source)
    except PipelineError as error:
        return [str(error)]
    return []
