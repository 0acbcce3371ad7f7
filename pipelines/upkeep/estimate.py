"""What a search would do and cost, before it does: its space, its adapters' sizes, and the time of a measured step."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.contracts.base import BaseRecord, read_base
from pipelines.contracts.task import read_task
from pipelines.model.fitting import build_model, train_steps
from pipelines.model.scores import answers
from pipelines.model.workspace import Workspace, open_workspace
from pipelines.project.settings import StudySettings
from pipelines.recipes.domains import Conditional, Span, Steps
from pipelines.recipes.methods.table import AnyRecipe
from pipelines.search.fits_base import check_space
from pipelines.search.sizes import check_limit, extremes, paces, parameters_of
from pipelines.tasks.family import open_family

STEPS = 4  # that are taken; the first, which also sets things up, is left out
ROWS = 32  # that are scored
ENDS = ("smallest", "largest", "quickest", "slowest")  # recipes of the space


@dataclass(frozen=True)
class Extreme:
    """A recipe at an end of the space: its size, and where it was measured, the seconds of a step and of a trial."""

    recipe: AnyRecipe
    parameters: int
    step_seconds: float | None
    trial_seconds: float | None


@dataclass(frozen=True)
class Estimate:
    """What is known of a search.

    Attributes:
        space: each searched part, and what it is chosen from, in words.
        points: how many recipes there are; infinite where a part is a real number.
        trials: how many are to end, and, beside them, the runs that confirm the best.
        smallest: the recipe with fewest parameters; None before there is a base.
        largest: that with most.
        quickest: the recipe whose trial computes least, by :func:`pipelines.search.sizes.work_of`.
        slowest: that with most to compute.
        missing: what must be made before more can be said.
    """

    space: Mapping[str, str]
    points: float
    trials: int
    confirmations: int
    smallest: Extreme | None
    largest: Extreme | None
    quickest: Extreme | None
    slowest: Extreme | None
    missing: str | None

    @property
    def seconds(self) -> tuple[float, float] | None:
        """The time of all trials on one process, if each were the quickest measured, and if each were the slowest."""
        measured = (self.smallest, self.largest, self.quickest, self.slowest)
        trials = [each.trial_seconds for each in measured if each is not None and each.trial_seconds is not None]
        runs = self.trials + self.confirmations
        return (runs * min(trials), runs * max(trials)) if trials else None


def estimate(settings: StudySettings, *, root: Path, base: Path, prepared: Path) -> Estimate:
    """Measure a few steps of training; no study is made.

    Raises:
        PipelineError: for a space that the base cannot have, or limits that no recipe keeps.
    """
    recipes, search = settings.recipes, settings.search
    confirm, space = search.confirm, recipes.space
    trials = int(min(search.trials, space.size()))
    # The recipe that is tried first comes beside the best, if it is none of them.
    named = bool(recipes.first) or search.earlier > 0
    known: dict[str, Any] = {
        "space": {part: _words(space.root[part]) for part in space.parts()},
        "points": space.size(),
        "trials": trials,
        "confirmations": 0 if confirm is None else min(confirm.top + named, trials) * confirm.seeds,
    }
    if not base.is_file():
        return Estimate(
            **known, smallest=None, largest=None, quickest=None, slowest=None, missing="the base: dvc repro base"
        )
    record = read_base(base)
    check_space(recipes, record)
    # Before the data say how many outputs an encoder's head has, one: the others are hundreds of numbers.
    outputs = open_family(read_task(prepared)).outputs if prepared.is_dir() else 1
    check_limit(recipes, search.limits.parameters, record, outputs)
    ends = dict(zip(ENDS, (*extremes(recipes, record, outputs), *paces(recipes, record)), strict=True))
    if not prepared.is_dir():
        sized: dict[str, Any] = {name: _extreme(recipe, record, outputs) for name, recipe in ends.items()}
        return Estimate(**known, **sized, missing="the data: dvc repro prepare")
    workspace = open_workspace(settings.computation, root=root, base=base, prepared=prepared)
    # What a process begins with is little beside the slowest recipe's steps, so that is first.
    found: dict[str, Any] = {}
    for name, recipe in reversed(ends.items()):
        same = next((each for each in found.values() if each.recipe == recipe), None)
        found[name] = same or _measured(settings, workspace, recipe, record)
    return Estimate(**known, **found, missing=None)


def _extreme(recipe: AnyRecipe, record: BaseRecord, outputs: int) -> Extreme:
    return Extreme(recipe, parameters_of(recipe, record, outputs), None, None)


def _measured(settings: StudySettings, workspace: Workspace, recipe: AnyRecipe, record: BaseRecord) -> Extreme:
    """Take a few steps and score a few rows as a trial of the recipe does."""
    size = settings.score_batch
    rows, validation = workspace.encoded("train", settings.search.train_rows), workspace.rows("validation")
    model = build_model(workspace, recipe, seed=settings.seed)
    steps = list(
        train_steps(
            model, rows, recipe, settings.training, seed=settings.seed, pad_id=workspace.pad_id, max_steps=STEPS
        )
    )
    step_seconds = statistics.median(step.seconds for step in steps[1:] or steps)
    total = _steps(len(rows), recipe)
    started = time.perf_counter()
    answers(workspace, workspace.family, model, validation[:ROWS], batch_size=size, title="a few rows")
    scoring = (time.perf_counter() - started) / len(validation[:ROWS]) * len(validation)
    trial = total * step_seconds + min(settings.search.reports, total) * scoring
    return Extreme(recipe, parameters_of(recipe, record, workspace.family.outputs), step_seconds, trial)


def _steps(rows: int, recipe: AnyRecipe) -> int:
    return recipe.epochs * math.ceil(math.ceil(rows / recipe.batch_size) / recipe.accumulation)


def _words(domain: Any) -> str:
    match domain:
        case Conditional(among=among, when=when, otherwise=otherwise):
            conditions = " and ".join(f"{part} is {_words(values)}" for part, values in when.items())
            return f"{_words(among)} when {conditions}, otherwise {otherwise}"
        case Span(low=low, high=high, log=log):
            return f"{low} to {high}{', logarithmic' if log else ''}"
        case Steps(low=low, high=high, step=step):
            return f"{low} to {high} in steps of {step}"
        case choices:
            return " | ".join(map(str, choices))
