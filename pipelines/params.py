"""params.yaml as typed, strict models: one class a section, no default anywhere.

Every stage reads the whole file through :func:`load_params` before it does anything else, so a mistake in the last
section is found before the first stage starts.
"""

from __future__ import annotations

import math
import re
import string
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator, model_validator

from pipelines.compare_params import CompareParams
from pipelines.errors import PipelineError
from pipelines.explain import explain
from pipelines.methods import PARTS, AnyRecipe, MethodParams, Part, fixed_parts, is_part_of, make_recipe
from pipelines.recipe import SEARCHED, Layers, PositionsSpec, TrainParams, form_problem
from pipelines.search_params import SearchParams, check_address
from pipelines.sections import Count, Name, Section, Sha256, refuse
from pipelines.sources import HubSource, PypiSource, parse_source
from pipelines.yaml_file import read_yaml

MAX_LINES = 20  # broken rules in one message
# Parts that do not go with each other in every way.
FORM: tuple[Part, ...] = ("method", "init", "activation", "projection_bias")


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


class ConeParams(Section):
    """How much of what no intervention can change is kept. The budgets change no result: no stage depends on them."""

    enabled: bool
    memory_gib: Annotated[float, Field(ge=0)]
    disk_gib: Annotated[float, Field(ge=0)]


class EvaluateParams(Section):
    batch_size: Count
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    bootstrap: Annotated[int, Field(ge=100)]


class TeachParams(Section):
    """A LoReFT adapter that learns the task before an alignment is looked for in the edited model."""

    layers: Layers
    positions: PositionsSpec
    rank: Count
    learning_rate: Annotated[float, Field(gt=0)]
    rows: Count
    epochs: Count
    batch_size: Count


class AlignParams(Section):
    """Where a variable is looked for, and how: `reft align`. No stage reads it, so a change makes nothing stale."""

    data: str
    variable: Name
    model: Literal["base", "taught", "adapter"]
    teach: TeachParams | None
    questions: Annotated[int, Field(ge=24)]
    train_rows: Count
    validation_rows: Count
    test_rows: Count
    layers: Layers
    positions: Annotated[list[PositionsSpec], Field(min_length=1)]
    dimensions: Annotated[list[Count], Field(min_length=1)]
    method: Literal["das", "boundless"]
    epochs: Count
    batch_size: Count
    learning_rate: Annotated[float, Field(gt=0)]
    random_rotations: Count

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        problems = []
        for name, choices in (("positions", self.positions), ("dimensions", self.dimensions)):
            if len(set(choices)) < len(choices):
                problems.append(f"{name} are tried once each; got {choices}; take the second one out")
        if self.data != "price-range" and not self.data.startswith("file:"):
            problems.append(f"data is price-range or a file: source; got {self.data}; choose one")
        if self.data == "price-range" and self.variable not in ("lower", "upper"):
            problems.append(f"the variables of price-range are lower and upper; got {self.variable}; choose one")
        if (self.model == "taught") != (self.teach is not None):
            problems.append(f"model: taught and teach go together; got {self.model} and {self.teach}; give both")
        if self.teach is not None and self.data != "price-range":
            problems.append(f"the task that is taught is price-range; got {self.data}; set teach: null and model: base")
        if self.method == "boundless" and len(self.dimensions) > 1:
            problems.append(f"boundless learns the dimension; got {self.dimensions}; leave one, for the random control")
        refuse(problems)
        return self


class TrackingParams(Section):
    uri: str
    artifacts: str
    experiment: Name

    @field_validator("uri")
    @classmethod
    def _known_store(cls, uri: str) -> str:
        if not re.match(r"^(sqlite:///|postgresql(\+\w+)?://|mysql(\+\w+)?://|https?://)", uri):
            raise ValueError("the tracking store is an sqlite:///, postgresql://, mysql:// or http(s):// address")
        check_address(uri)
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
    method: MethodParams
    search: SearchParams
    train: TrainParams
    cone: ConeParams
    evaluate: EvaluateParams
    align: AlignParams
    compare: CompareParams
    tracking: TrackingParams
    register_: Annotated[RegisterParams, Field(alias="register")]
    notify: NotifyParams

    def fixed(self) -> dict[str, Any]:
        """What is fixed of all methods' parts, and ReFT's ``overrides``."""
        return fixed_parts(self.train, self.method)

    def recipe(self, point: Mapping[str, Any], *, trial: bool = False) -> AnyRecipe:
        """The whole recipe of a point of the search space; a ``trial`` has the epochs of a trial."""
        values: dict[str, Any] = self.search.space.complete(point)
        if trial and self.search.epochs is not None:
            values["epochs"] = self.search.epochs
        return self.whole(values)

    def whole(self, values: Mapping[str, Any]) -> AnyRecipe:
        """The recipe of the trained method with these values, and those that are fixed for its other parts."""
        return make_recipe(self.method.name, {**self.fixed(), **values})

    def logged(self, recipe: Mapping[str, Any]) -> dict[str, Any]:
        """What is logged of a training: the parts of its recipe, and how it is carried out."""
        train = self.train
        how = {"gradient_checkpointing": train.gradient_checkpointing, "checkpoint_every": train.checkpoint_every}
        return {**how, **recipe}

    def has(self, part: str) -> bool:
        """Whether recipes of the method that is trained have the part."""
        return is_part_of(part, self.method.name)

    def values(self, part: Part) -> list[Any]:
        """Every value that a part of the trained method may have; of a range, its ends."""
        return [self.fixed()[part]] if part not in self.search.space.root else self.search.space.extremes(part)

    def decides(self) -> dict[str, Any]:
        """What of `train` and `method` decides a trained adapter, but for its epochs: what a search is keyed by."""
        fixed = self.fixed()
        own: dict[str, Any] = {part: fixed[part] for part in PARTS if part in fixed and self.has(part)}
        if self.has("layers"):
            own["overrides"] = [override.model_dump() for override in self.train.overrides]
        return {"trained": self.method.name, "gradient_checkpointing": self.train.gradient_checkpointing} | own

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        problems = []
        if self.search.train_rows > self.prepare.train_rows:
            problems.append(
                f"search.train_rows must not be above prepare.train_rows; "
                f"got {self.search.train_rows} and {self.prepare.train_rows}"
            )
        # What is other methods' was checked, and is left out: it decides nothing here.
        search = self.search.of_method(self.method.name)
        refuse([*problems, *self._part_problems(), *(f"search: {problem}" for problem in search.sampler_problems())])
        refuse(self._form_problems())
        return self.model_copy(update={"search": search})

    def _part_problems(self) -> list[str]:
        """Each part of a recipe is fixed in train or method, or searched, and never both."""
        problems = []
        for part in PARTS:
            fixed = self.method.value(part) if "." in part else getattr(self.train, part)
            searched, place = part in self.search.space.root, f"method.{part}" if "." in part else f"train.{part}"
            if searched and fixed != SEARCHED:
                problems.append(
                    f"{place} must be {SEARCHED} while search.space has {part}; got {fixed!r}; "
                    f"write {SEARCHED}, or take it out of search.space"
                )
            elif fixed == SEARCHED and not searched and self.has(part):
                problems.append(
                    f"{place} is {SEARCHED}, so search.space must say what it is chosen from; got nothing; "
                    f"add search.space.{part}, or give {place} a value"
                )
        if ("epochs" in self.search.space.root) != (self.search.epochs is None):
            problems.append(
                "search.epochs must be null when search.space has epochs, and a number when not; "
                f"got {self.search.epochs}"
            )
        return problems

    def _form_problems(self) -> list[str]:
        """No point of the space may be an adapter that cannot be."""
        if not self.has("init"):
            return []
        found = {
            form_problem({**self.train.fixed(), **self.search.space.complete(point)})
            for point in self.search.space.points(only=FORM)
        }
        return sorted(problem for problem in found if problem is not None)


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


def _source_problems(source: str) -> list[str]:
    try:
        parse_source(source)
    except PipelineError as error:
        return [str(error)]
    return []
