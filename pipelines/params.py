"""params.yaml as typed, strict models: one class a section, no default anywhere.

Every stage reads the whole file through :func:`load_params` before it does anything else, so a mistake in the last
section is found before the first stage starts.
"""

from __future__ import annotations

import math
import re
import string
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pipelines.errors import PipelineError
from pipelines.explain import explain
from pipelines.sources import HubSource, PypiSource, parse_source
from pipelines.yaml_file import read_yaml
from reft.forms import Activation, DropoutOn, EditForm, Init, Method, check_form
from reft.layers import check_layers
from reft.positions import parse_positions

MAX_LINES = 20  # broken rules in one message
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Section(BaseModel):
    """A strict, immutable section: an unknown key or another type is an error."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class RunParams(Section):
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")]
    threads: Count
    wait_seconds: Annotated[float, Field(ge=0)]


class SourceParams(Section):
    """Where a model or data set comes from; see :mod:`pipelines.sources` for the grammar."""

    source: str
    sha256: Sha256 | None

    @model_validator(mode="after")
    def _pinned(self) -> Self:
        _refuse(_source_problems(self.source))
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
    format: Literal["json", "jsonl", "csv", "tsv", "parquet", "hub"]
    columns: list[str] | None
    quoting: bool
    task: Literal["classification"]
    template: str
    chat: bool
    label_column: str
    labels: dict[Name, LabelParams]
    train_rows: Count
    validation_rows: Count
    test_rows: Count
    max_tokens: Annotated[int, Field(ge=4)]

    @field_validator("validation_source", "test_source")
    @classmethod
    def _readable(cls, source: str | None) -> str | None:
        _refuse([] if source is None else _source_problems(source))
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
        _refuse([*self._label_problems(), *self._column_problems(), *self._split_problems()])
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
        if self.columns is None:
            return []
        if self.format not in ("csv", "tsv"):
            return [f"columns names the columns of csv and tsv files; got format {self.format}; set columns: null"]
        missing = [name for name in (*template_fields(self.template), self.label_column) if name not in self.columns]
        problems = [f"template and label_column name columns that columns holds; got {name!r}" for name in missing]
        if len(set(self.columns)) < len(self.columns):
            problems.append(f"each column has a name of its own; got {self.columns}")
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


class PrunerParams(Section):
    name: Literal["median", "none"]
    startup_trials: Annotated[int, Field(ge=0)]
    warmup_reports: Annotated[int, Field(ge=0)]


class FloatRange(Section):
    low: Annotated[float, Field(gt=0)]
    high: Annotated[float, Field(gt=0)]
    log: bool

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low must be below high; got {self.low} and {self.high}")
        return self


class Recipe(Section):
    """One point of the search space."""

    layers: str
    positions: str
    rank: Count
    learning_rate: Annotated[float, Field(gt=0)]


class SpaceParams(Section):
    layers: Annotated[list[str], Field(min_length=1)]
    positions: Annotated[list[str], Field(min_length=1)]
    rank: Annotated[list[Count], Field(min_length=1)]
    learning_rate: FloatRange

    @model_validator(mode="after")
    def _choices(self) -> Self:
        problems = []
        for choices in (self.layers, self.positions, self.rank):
            if len(set(choices)) < len(choices):
                problems.append(f"a choice stands twice in {choices}; take one of them out")
        for check, specs in ((check_layers, self.layers), (check_positions, self.positions)):
            for spec in specs:
                try:
                    check(spec)
                except ValueError as error:
                    problems.append(str(error))
        _refuse(problems)
        return self

    def holds(self, recipe: Recipe) -> bool:
        """Whether the recipe is a point of this space."""
        return (
            recipe.layers in self.layers
            and recipe.positions in self.positions
            and recipe.rank in self.rank
            and self.learning_rate.low <= recipe.learning_rate <= self.learning_rate.high
        )


class SearchParams(Section):
    trials: Count
    train_rows: Count
    epochs: Count
    storage: str
    sampler: Literal["tpe", "random"]
    pruner: PrunerParams
    reports: Count
    space: SpaceParams
    enqueue: list[Recipe]

    @model_validator(mode="after")
    def _enqueued(self) -> Self:
        outside = [recipe.model_dump() for recipe in self.enqueue if not self.space.holds(recipe)]
        _refuse([f"an enqueued recipe must lie in the space; {recipe} does not" for recipe in outside])
        return self

    @field_validator("storage")
    @classmethod
    def _known_database(cls, storage: str) -> str:
        if not re.match(r"^(sqlite:///.|(postgresql|mysql)(\+\w+)?://.)", storage):
            raise ValueError("the storage of trials is an sqlite:///, postgresql:// or mysql:// address")
        _check_address(storage)
        return storage


class OverrideParams(Section):
    """What one layer has of its own; see :class:`reft.config.LayerOverride`."""

    layer: Annotated[int, Field(ge=0)]
    rank: Count | None
    positions: str | None

    @field_validator("positions")
    @classmethod
    def _readable(cls, positions: str | None) -> str | None:
        if positions is not None:
            check_positions(positions)
        return positions


class TrainParams(Section):
    method: Method
    init: Init
    tied: bool
    activation: Activation
    dropout: Share
    dropout_on: DropoutOn
    projection_bias: bool
    overrides: list[OverrideParams]
    epochs: Count
    batch_size: Count
    accumulation: Count
    warmup_ratio: Share
    weight_decay: Annotated[float, Field(ge=0)]
    max_grad_norm: Annotated[float, Field(gt=0)]
    gradient_checkpointing: bool
    checkpoint_every: Count

    @model_validator(mode="after")
    def _has_a_form(self) -> Self:
        form = EditForm(1, self.init, self.activation, self.dropout, self.dropout_on, self.projection_bias)
        check_form(self.method, form)
        return self

    @field_validator("overrides")
    @classmethod
    def _ascending(cls, overrides: list[OverrideParams]) -> list[OverrideParams]:
        layers = [override.layer for override in overrides]
        if layers != sorted(set(layers)):
            raise ValueError(f"the layers of overrides must ascend, each once, like {sorted(set(layers))}")
        return overrides


class ConeParams(Section):
    """How much of what no intervention can change is kept. The budgets change no result: no stage depends on them."""

    enabled: bool
    memory_gib: Annotated[float, Field(ge=0)]
    disk_gib: Annotated[float, Field(ge=0)]


class EvaluateParams(Section):
    batch_size: Count
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    bootstrap: Annotated[int, Field(ge=100)]


class TrackingParams(Section):
    uri: str
    artifacts: str
    experiment: Name

    @field_validator("uri")
    @classmethod
    def _known_store(cls, uri: str) -> str:
        if not re.match(r"^(sqlite:///|postgresql(\+\w+)?://|mysql(\+\w+)?://|https?://)", uri):
            raise ValueError("the tracking store is an sqlite:///, postgresql://, mysql:// or http(s):// address")
        _check_address(uri)
        return uri


class RegisterParams(Section):
    model: Name


class NotifyParams(Section):
    """Who is told that a run failed or crashed. No stage reads it, so a change makes nothing stale."""

    webhook: str | None
    command: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)] | None

    @field_validator("webhook")
    @classmethod
    def _private(cls, webhook: str | None) -> str | None:
        if webhook is None:
            return None
        parts = urlsplit(webhook)
        local = parts.scheme == "http" and parts.hostname == "127.0.0.1"
        if not parts.hostname or not (parts.scheme == "https" or local):
            raise ValueError("a webhook is an https:// address (http:// only on 127.0.0.1)")
        if parts.username or parts.password:
            raise ValueError("a webhook's secret comes from the variable REFT_WEBHOOK_SECRET, not from its address")
        return webhook


class Params(Section):
    """The whole of params.yaml."""

    seed: Annotated[int, Field(ge=0, lt=2**31)]
    run: RunParams
    base: BaseParams
    prepare: PrepareParams
    search: SearchParams
    train: TrainParams
    cone: ConeParams
    evaluate: EvaluateParams
    tracking: TrackingParams
    register_: Annotated[RegisterParams, Field(alias="register")]
    notify: NotifyParams

    @model_validator(mode="after")
    def _rows(self) -> Self:
        if self.search.train_rows > self.prepare.train_rows:
            raise ValueError(
                f"search.train_rows must not be above prepare.train_rows; "
                f"got {self.search.train_rows} and {self.prepare.train_rows}"
            )
        return self


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


def check_positions(spec: str) -> None:
    """Raise ValueError for positions that are unreadable, or that prepared rows do not have."""
    if parse_positions(spec).spans:
        raise ValueError("positions of spans need rows that name their own, which prepared rows do not; take it out")


def load_params(path: Path) -> Params:
    """Read and check params.yaml.

    Raises:
        PipelineError: for a file that is missing, not UTF-8 YAML, or breaks a rule; every broken rule is named, with
            the key, the value and, for an unknown key, the nearest known one.
    """
    return check_params(read_yaml(path), str(path))


def check_params(raw: object, name: str) -> Params:
    """Check what was read from params.yaml; ``name`` stands in the messages."""
    if not isinstance(raw, Mapping):
        raise PipelineError(
            f"{name} must hold a mapping of sections", got=type(raw).__name__, do="Write it as section: values."
        )
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        lines = [line for e in error.errors(include_url=False) for line in explain(dict(e), Params)]
        if len(lines) > MAX_LINES:
            lines[MAX_LINES:] = [f"and {len(lines) - MAX_LINES} more"]
        raise PipelineError(
            f"{name} breaks {error.error_count()} rule(s), so nothing was run; correct each of them\n  "
            + "\n  ".join(lines)
        ) from None


def _refuse(problems: Sequence[str]) -> None:
    """Raise every broken rule at once, a line each, for pydantic to collect."""
    if problems:
        raise ValueError("\n".join(problems))


def _source_problems(source: str) -> list[str]:
    try:
        parse_source(source)
    except PipelineError as error:
        return [str(error)]
    return []


def _check_address(uri: str) -> None:
    """Raise ValueError for an address whose host or port cannot be read, or that holds a NUL."""
    if "\0" in uri:
        raise ValueError("an address must not hold a NUL")
    _ = urlsplit(uri).port
