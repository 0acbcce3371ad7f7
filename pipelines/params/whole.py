"""params.yaml as typed, strict models: one class a section, no default anywhere; ALONE may be left out.

Every stage reads the whole file through :func:`load_params` before it does anything else, so a mistake in the last
section is found before the first stage starts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from pipelines.errors import PipelineError
from pipelines.params.address import check_address
from pipelines.params.align import AlignParams
from pipelines.params.base import BaseParams
from pipelines.params.compare import CompareParams
from pipelines.params.computation import Computation, ConeParams, RunParams
from pipelines.params.evaluate import EvaluateParams
from pipelines.params.explain import explain
from pipelines.params.gate import GateParams
from pipelines.params.notify import NotifyParams
from pipelines.params.refresh import RefreshParams, check_growing
from pipelines.params.search import SearchParams
from pipelines.recipes.methods.reft import SEARCHED, TrainParams, form_problem
from pipelines.recipes.methods.table import PARTS, READS_DOMAIN, REFT, MethodParams, Part
from pipelines.recipes.recipe_space import RecipeSpace, recipe_space
from pipelines.sections import Name, Section, refuse
from pipelines.tasks.keys.mixture import MixtureParams, PrepareSection
from pipelines.tasks.keys.table import Families
from pipelines.yaml_file import read_yaml
from reft.edits.positions import parse_positions

LIKELY = {"classification", "choice"}  # tasks whose right answer has a probability
MAX_LINES = 20  # broken rules in one message
ALONE = {"align": "reft align", "compare": "reft compare-methods"}
"""Sections that one command reads and no stage does, with that command: they may be left out of params.yaml."""
# Parts that do not go with each other in every way.
FORM: tuple[Part, ...] = ("method", "init", "activation", "projection_bias", "rank")


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


class Params(Section):
    """The whole of params.yaml."""

    seed: Annotated[int, Field(ge=0, lt=2**31)]
    run: RunParams
    refresh: RefreshParams
    base: BaseParams
    prepare: PrepareSection
    method: MethodParams
    search: SearchParams
    train: TrainParams
    cone: ConeParams
    evaluate: EvaluateParams
    align_: Annotated[AlignParams | None, Field(alias="align")] = None
    compare_: Annotated[CompareParams | None, Field(alias="compare")] = None
    tracking: TrackingParams
    register_: Annotated[RegisterParams, Field(alias="register")]
    gate: GateParams
    notify: NotifyParams

    @property
    def align(self) -> AlignParams:
        """The section of `reft align`; raises PipelineError where it was left out."""
        if self.align_ is None:
            raise _missing("align")
        return self.align_

    @property
    def compare(self) -> CompareParams:
        """The section of `reft compare-methods`; raises PipelineError where it was left out."""
        if self.compare_ is None:
            raise _missing("compare")
        return self.compare_

    def recipe_space(self) -> RecipeSpace:
        """The recipes that the search chooses from; made once where a process begins, and handed on."""
        search = self.search
        return recipe_space(self.method, self.train, search.space, search.enqueue, trial_epochs=search.epochs)

    def computation(self) -> Computation:
        """How a process computes."""
        return Computation(self.run, self.cone)

    def require_decoder(self, command: str) -> None:
        """Raise PipelineError for an encoder, where a command knows decoders alone."""
        if self.base.kind != "decoder":
            raise PipelineError(f"{command} needs base.kind: decoder", got=self.base.kind, do="Take another base.")

    def one_task(self, command: str) -> Families:
        """The section ``prepare``; raises PipelineError for a mixture, where a command knows single tasks alone."""
        if isinstance(self.prepare, MixtureParams):
            raise PipelineError(
                f"{command} knows a project of one task", got="prepare.task: mixture", do="Edit params.yaml by hand."
            )
        return self.prepare

    def logged(self, recipe: Mapping[str, Any]) -> dict[str, Any]:
        """What is logged of a training: the parts of its recipe, and how it is carried out."""
        train = self.train
        how = {"gradient_checkpointing": train.gradient_checkpointing, "checkpoint_every": train.checkpoint_every}
        return {**how, **recipe}

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        problems = []
        if self.search.train_rows > self.prepare.train_rows:
            problems.append(
                f"search.train_rows must not be above prepare.train_rows; "
                f"got {self.search.train_rows} and {self.prepare.train_rows}"
            )
        problems += self._refresh_problems()
        problems += [*self._measure_problems(), *self._domain_problems(), *self._kind_problems()]
        recipes = self.recipe_space()
        sampling = [f"search: {problem}" for problem in self.search.sampler_problems(recipes.space)]
        if self.base.kind == "encoder":
            problems += self._behind_problems(recipes)
        refuse([*problems, *self._part_problems(recipes), *sampling])
        refuse(_form_problems(recipes))
        return self

    def _refresh_problems(self) -> list[str]:
        if self.refresh.scheduled:
            try:
                check_growing(self.prepare)
            except PipelineError as error:
                return [f"refresh.scheduled: {error}"]
        return []

    def _measure_problems(self) -> list[str]:
        """A search raises what the task's answers are measured by."""
        problems = []
        unlikely = sorted({section.task for section in self.prepare.sections().values()} - LIKELY)
        if self.search.judge == "loss" and unlikely:
            problems.append(
                "search.judge: loss needs answers that have a probability, as those of "
                f"{' and '.join(sorted(LIKELY))}; got task {', '.join(unlikely)}; use measure"
            )
        first, measure = self.search.objectives[0], self.prepare.measure_name()
        if first == measure:
            return problems
        return [
            *problems,
            f"search.objectives must begin with {measure}, the measure of task {self.prepare.task}; got {first}",
        ]

    def _kind_problems(self) -> list[str]:
        """A decoder answers in words and reads one text; an encoder has a head, and what trains one is ReFT."""
        prepare = self.prepare
        if self.base.kind == "decoder":
            return [problem for place, section in prepare.sections().items() for problem in _of_words(place, section)]
        if isinstance(prepare, MixtureParams):
            return ["prepare.task: mixture needs base.kind: decoder, since a head answers one task; got encoder"]
        given = {
            "prepare.chat": (prepare.chat, False),
            "prepare.domain_column": (prepare.domain_column, None),
            "method.name": (self.method.name, REFT),
            "gate.limits.perplexity": (self.gate.limits.perplexity, None),
        }
        problems = [
            f"{key} must be {plain} with base.kind: encoder; got {found}; correct it"
            for key, (found, plain) in given.items()
            if found != plain
        ]
        if not prepare.has_head():
            problems.append(
                "prepare.task must be one that a head can answer with base.kind: encoder, classification or "
                f"regression; got {prepare.task}; take one of them, or a decoder"
            )
        return problems

    def _behind_problems(self, recipes: RecipeSpace) -> list[str]:
        """An encoder writes nothing, so there is no token behind what it reads."""
        own = [override.positions for override in self.train.overrides]
        texts = [*recipes.values("positions"), *own] if recipes.has("positions") else own
        behind = [text for text in texts if text not in (None, SEARCHED) and parse_positions(text).generated]
        return [
            f"positions must leave out gN with base.kind: encoder, which writes no token; got {text}; take it out"
            for text in dict.fromkeys(behind)
        ]

    def _domain_problems(self) -> list[str]:
        """A method that reads each row's domain needs a column that it stands in."""
        if self.prepare.domain_column is not None:
            return []
        users = {"method.name": self.method.name}
        compared = self.compare_.methods if self.compare_ is not None else {}
        users |= {f"compare.methods.{name}": settings.method for name, settings in compared.items()}
        return [
            f"{place} is {method}, which reads a number of each row, its domain; prepare.domain_column must name the "
            "column of the data that holds it; got null; set it, or take another method"
            for place, method in users.items()
            if method in READS_DOMAIN
        ]

    def _part_problems(self, recipes: RecipeSpace) -> list[str]:
        """Each part of a recipe is fixed in train or method, or searched, and never both."""
        problems = []
        for part in PARTS:
            fixed = self.method.value(part) if "." in part else getattr(self.train, part)
            searched, place = part in recipes.space.root, f"method.{part}" if "." in part else f"train.{part}"
            if searched and fixed != SEARCHED:
                problems.append(
                    f"{place} must be {SEARCHED} while search.space has {part}; got {fixed!r}; "
                    f"write {SEARCHED}, or take it out of search.space"
                )
            elif fixed == SEARCHED and not searched and recipes.has(part):
                problems.append(
                    f"{place} is {SEARCHED}, so search.space must say what it is chosen from; got nothing; "
                    f"add search.space.{part}, or give {place} a value"
                )
        if ("epochs" in recipes.space.root) != (self.search.epochs is None):
            problems.append(
                "search.epochs must be null when search.space has epochs, and a number when not; "
                f"got {self.search.epochs}"
            )
        return problems


def _missing(name: str) -> PipelineError:
    return PipelineError(
        f"{ALONE[name]} needs section {name} of params.yaml",
        got="none",
        do=f"Run: reft upgrade --add {name}, which writes the shipped one, and look over its values.",
    )


def _of_words(place: str, section: Families) -> list[str]:
    """What a decoder, which answers in words and reads one text, cannot do with a task's keys."""
    problems = [
        f"{place}.{key} must not be null with base.kind: decoder, which answers by words; got null; give words"
        for key in section.wordless()
    ]
    if section.second_template is not None:
        problems.append(
            f"{place}.second_template must be null with base.kind: decoder, which reads one text; "
            f"got {section.second_template!r}; put its columns into template"
        )
    return problems


def _form_problems(recipes: RecipeSpace) -> list[str]:
    """No point of the space may be an adapter that cannot be."""
    if not recipes.has("init"):
        return []
    found = {form_problem({**recipes.fixed, **recipes.space.complete(point)}) for point in recipes.space.corners(FORM)}
    return sorted(problem for problem in found if problem is not None)


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
        errors = error.errors(include_url=False)
        shown = [line for e in errors[:MAX_LINES] for line in explain(dict(e), Params)]  # the nearest key takes a while
        lines, more = shown[:MAX_LINES], len(shown[MAX_LINES:]) + len(errors[MAX_LINES:])
        lines += [f"and {more} more"] if more else []
        raise PipelineError(
            f"{name} breaks {error.error_count()} rule(s), so nothing was run; correct each of them\n  "
            + "\n  ".join(lines)
        ) from None
