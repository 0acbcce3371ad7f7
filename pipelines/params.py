"""params.yaml as typed, strict models: one class a section, no default anywhere.

Every stage reads the whole file through :func:`load_params` before it does anything else, so a mistake in the last
section is found before the first stage starts.
"""

from __future__ import annotations

import difflib
import re
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pipelines.errors import PipelineError
from reft.layers import check_layers
from reft.positions import parse_positions

MAX_BYTES = 1_000_000
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
        if not self.source.startswith(("hub:", "file:", "pypi:")):
            raise ValueError("a source starts with hub:, file: or pypi:")
        if self.source.startswith("pypi:") and self.sha256 is None:
            raise ValueError("a pypi: source needs the sha256 of the fetched file")
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
            raise ValueError("min must not be above max")
        return self


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

    @field_validator("template")
    @classmethod
    def _plain_fields(cls, template: str) -> str:
        fields = template_fields(template)
        if not fields:
            raise ValueError("the template must name at least one column, like {text}")
        return template

    @model_validator(mode="after")
    def _labels(self) -> Self:
        if len(self.labels) < 2:
            raise ValueError("classification needs at least two labels")
        words = [label.word for label in self.labels.values()]
        if len(set(words)) < len(words):
            raise ValueError("two labels must not have the same word")
        if (self.format == "hub") != self.source.startswith("hub:"):
            raise ValueError("format: hub and a hub: source go together")
        return self


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
            raise ValueError("low must be below high")
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
        for choices in (self.layers, self.positions, self.rank):
            if len(set(choices)) < len(choices):
                raise ValueError(f"a choice stands twice in {choices}")
        for layers in self.layers:
            check_layers(layers)
        for positions in self.positions:
            parse_positions(positions)
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
        for recipe in self.enqueue:
            if not self.space.holds(recipe):
                raise ValueError(f"an enqueued recipe must lie in the space; {recipe.model_dump()} does not")
        return self


class TrainParams(Section):
    method: Literal["loreft"]
    init: Literal["identity", "paper"]
    tied: bool
    epochs: Count
    batch_size: Count
    accumulation: Count
    warmup_ratio: Share
    weight_decay: Annotated[float, Field(ge=0)]
    max_grad_norm: Annotated[float, Field(gt=0)]
    checkpoint_every: Count


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
        return uri


class RegisterParams(Section):
    model: Name


class Params(Section):
    """The whole of params.yaml."""

    seed: Annotated[int, Field(ge=0, lt=2**31)]
    run: RunParams
    base: BaseParams
    prepare: PrepareParams
    search: SearchParams
    train: TrainParams
    evaluate: EvaluateParams
    tracking: TrackingParams
    register_: Annotated[RegisterParams, Field(alias="register")]

    @model_validator(mode="after")
    def _rows(self) -> Self:
        if self.search.train_rows > self.prepare.train_rows:
            raise ValueError("search.train_rows must not be above prepare.train_rows")
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
        raise PipelineError(f"{name} must hold a mapping of sections", got=type(raw).__name__)
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        lines = [_explain(dict(e)) for e in error.errors(include_url=False)]
        raise PipelineError(f"{name} breaks {len(lines)} rule(s)\n  " + "\n  ".join(lines)) from None


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice and any alias (a few of which can fill the memory)."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not allowed")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.YAMLError(f"line {key.start_mark.line + 1}: a key must be a plain word")
            if key.value in seen:
                raise yaml.YAMLError(f"line {key.start_mark.line + 1}: the key {key.value!r} is given twice")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> object:
    """Read a YAML file safely; a broken one raises :class:`PipelineError` with the line."""
    if not path.is_file():
        raise PipelineError("the file must exist", got=path, do="Run the command in the project's folder.")
    data = path.read_bytes()
    if len(data) > MAX_BYTES:
        raise PipelineError(f"{path.name} must be smaller than {MAX_BYTES} bytes", got=len(data))
    try:
        return yaml.load(data.decode("utf-8"), Loader=_Loader)  # noqa: S506  (a SafeLoader)
    except UnicodeDecodeError as error:
        raise PipelineError(f"{path.name} must be UTF-8 text", got=str(error)) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        detail = " ".join(str(error).split()) or type(error).__name__
        raise PipelineError(f"{path.name} must be readable YAML", got=detail) from None


def _explain(error: dict[str, Any]) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        known = _known_keys(error["loc"][:-1])
        near = difflib.get_close_matches(str(error["loc"][-1]), known, n=1, cutoff=0.0)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"{where}: unknown key{hint}"
    if error["type"] == "missing":
        return f"{where}: this key is missing; every key must be given"
    message = error["msg"].removeprefix("Value error, ")
    value = repr(error["input"])
    short = value if len(value) <= 120 else value[:117] + "..."
    return f"{where or 'params'}: {message}; got {short}"


def _known_keys(loc: tuple[str | int, ...]) -> list[str]:
    """The keys of the section at ``loc``; a list's index and a mapping's own key are steps too."""
    found: Any = Params
    for part in loc:
        if isinstance(found, type) and issubclass(found, BaseModel):
            fields = found.model_fields.items()
            found = next((f.annotation for name, f in fields if part in (name, f.alias)), None)
        else:
            found = get_args(found)[-1]  # list[X] or dict[key, X]
    section: dict[str, Any] = getattr(found, "model_fields", {})
    return [field.alias or name for name, field in section.items()]
