"""One trial: a recipe trained on rows of the search and scored on others. It never sees a test row."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import optuna

from pipelines.contracts.prepared import Row
from pipelines.errors import PipelineError
from pipelines.model.fitting import build_model, train_steps
from pipelines.model.frozen import HeadTraining, head_alone
from pipelines.model.scores import AnyModel, answers
from pipelines.model.workspace import Workspace
from pipelines.params.search import SearchParams
from pipelines.project.settings import StudySettings
from pipelines.recipes.methods.reft import Recipe
from pipelines.runtime.memory import memory_errors, peak_memory
from pipelines.runtime.process import this_process
from pipelines.search.folds import OF_TRIALS, Fold, fold
from pipelines.search.goal import LOSSES, loss
from pipelines.search.proposals import suggest
from pipelines.search.pruning import SCORES
from pipelines.search.study import CANDIDATE, COSTS, CURVE, ERROR, OWNER, SEED, SharedStudy
from pipelines.tasks.family import Answer, TaskFamily
from pipelines.tracking.live import LiveRun
from reft import NonFiniteLossError, ReftConfig, ReftModel
from reft.adapters.any_method import MethodModel
from reft.cone.keeper import filling_seconds
from reft.models.limits import BaseLimitError

log = logging.getLogger(__name__)

# What a trial may end with and the search goes on: a recipe that cannot be trained, on this base, on these rows or in
# this memory. Anything else is a bug, or a machine's fault, and ends the search.
FAILURES = (PipelineError, NonFiniteLossError, BaseLimitError)
STATE = "reft.state"  # tag of its run in MLflow


@dataclass(frozen=True)
class TrialContext:
    """What every trial of a process works with: settings, base, task and rows, and the run that it logs to."""

    settings: StudySettings
    workspace: Workspace
    task: TaskFamily[Any]
    train: list[Row]
    validation: list[Row]
    live: LiveRun

    def fold(self, place: int) -> Fold:
        """The rows of a trial, or of a run that confirms one; see :func:`pipelines.search.folds.fold`."""
        return fold(self.train, self.validation, place=place, count=self.settings.search.train_rows)


@dataclass
class Costs:
    """What a trial has cost so far; ``started`` on the monotonic clock, ``peak`` says the memory at its height.

    ``filling`` says how long the base's constants were computed in this process, ``filled`` what it said at the start.
    The first trials compute what the later ones find, so that time is no cost of theirs: it is told apart.
    """

    started: float
    peak: Callable[[], float]
    filling: Callable[[], float]
    filled: float
    parameters: int = 0
    tokens: int = 0
    curve: dict[int, float] = field(default_factory=dict)
    losses: dict[int, float] = field(default_factory=dict)
    ended: float | None = None
    filled_at_end: float | None = None

    def end(self) -> None:
        """Stop the clocks."""
        self.ended, self.filled_at_end = time.monotonic(), self.filling()

    def figures(self) -> dict[str, float]:
        """Each cost, as it is now, or when the trial ended."""
        fill = (self.filled_at_end or self.filling()) - self.filled
        return {
            "parameters": self.parameters,
            "seconds": round((self.ended or time.monotonic()) - self.started - fill, 3),
            "fill_seconds": round(fill, 3),
            "tokens": self.tokens,
            "memory_mb": self.peak(),
        }


def run_trial(
    trial: optuna.Trial, shared: SharedStudy, context: TrialContext, begun: Callable[[], None]
) -> list[float]:
    """Train the trial's recipe; the values are those of search.objectives after the last step.

    Args:
        trial: enqueued with a point of the space and with its seed.
        shared: its study.
        context: what to work with.
        begun: called as soon as the study says whose trial it is; it lets the study's lock go.
    """
    settings = context.settings
    point, seed = suggest(trial, settings.recipes.space), trial.user_attrs[SEED]
    trial.set_user_attr(OWNER, this_process())
    shared.beat(trial.number)
    begun()
    filling = partial(filling_seconds, context.workspace.base)
    with (
        context.live.child(run_name(trial), stopped_by=(optuna.TrialPruned,)) as run,
        peak_memory(context.workspace.base.device) as peak,
        _noted(trial, settings.search, Costs(time.monotonic(), peak, filling, filling()), run) as costs,
    ):
        run.log_params({**point, SEED: seed})
        with memory_errors():
            _train(trial, context, run, costs)
        costs.end()
        found = {context.task.measure.name: costs.curve[settings.search.reports], **costs.figures()}
        return [found[objective] for objective in settings.search.objectives]


def run_name(trial: optuna.Trial) -> str:
    """The name of the trial's run in MLflow."""
    attributes = trial.user_attrs
    if CANDIDATE in attributes:
        return confirmation_name(attributes[CANDIDATE], attributes[SEED])
    return f"trial-{trial.number}"


def confirmation_name(candidate: int, seed: int) -> str:
    """The name in MLflow of the run that repeats a trial with another seed."""
    return f"trial-{candidate}-seed-{seed}"


def _train(trial: optuna.Trial, context: TrialContext, run: LiveRun, costs: Costs) -> None:
    settings, seed = context.settings, trial.user_attrs[SEED]
    reports = settings.search.reports
    confirms = CANDIDATE in trial.user_attrs
    measure = context.task.measure.name
    metric = f"held_out_{measure}" if confirms else f"validation_{measure}"
    rows = context.fold(seed - settings.seed if confirms else OF_TRIALS)
    encoded = context.workspace.training_rows(rows.train)
    recipe = settings.recipes.recipe(suggest(trial, settings.recipes.space), trial=True)
    model = build_model(context.workspace, recipe, seed=seed)
    costs.parameters = model.num_trainable()
    for step in train_steps(model, encoded, recipe, settings.training, seed=seed, pad_id=context.workspace.pad_id):
        costs.tokens += step.tokens
        run.log_metrics({"loss": step.loss}, step=step.step)
        report = step.step * reports // step.total_steps
        if report > max(costs.curve, default=0):
            _report(trial, context, model, rows.asked, costs, report=report)
            losses = {"validation_loss": costs.losses[report]} if report in costs.losses and not confirms else {}
            run.log_metrics({metric: costs.curve[report], **losses}, step=step.step)
            if report < reports and _hopeless(trial, settings.search, costs):
                raise optuna.TrialPruned


def _report(
    trial: optuna.Trial, context: TrialContext, model: AnyModel, asked: Sequence[Row], costs: Costs, *, report: int
) -> None:
    """Score the rows that the run is asked, and tell the study."""
    task, said = context.task, _answers(context, model, asked, title=run_name(trial))
    costs.curve[report] = task.measure.add_up(task.scores(asked, said))
    trial.set_user_attr(COSTS, costs.figures())  # what counts of a trial whose process is killed after this
    search = context.settings.search
    if search.pruner.name == "wilcoxon":
        scores = task.fine_scores(asked, said)
        trial.set_user_attr(f"{SCORES}:{report}", [round(float(score), 4) for score in scores])
    if search.judge == "loss":
        costs.losses[report] = loss(task.fine_scores(asked, said))
        trial.set_user_attr(LOSSES, {str(place): value for place, value in costs.losses.items()})
        trial.report(-costs.losses[report], step=report)
    elif len(search.objectives) == 1:
        trial.report(costs.curve[report], step=report)
    if search.judge == "loss" or len(search.objectives) > 1:
        trial.set_user_attr(CURVE, {str(place): value for place, value in costs.curve.items()})


def base_value(context: TrialContext, place: int) -> float:
    """The figure of the frozen base on the rows that a fold is asked: what a recipe is to be better than.

    It is asked by the passes that the trials are asked by: the cone's, and those over whole rows of methods that have
    none, differ by tenths of a nat in half precision.
    """
    with memory_errors():
        model, task, asked = _unedited(context, place), context.task, context.fold(place).asked
        with model.disabled():
            return task.measure.add_up(task.scores(asked, _answers(context, model, asked, title="frozen base")))


def _unedited(context: TrialContext, place: int) -> MethodModel:
    """A new model of the trials' method; of an encoder its head alone, trained on the fold's rows as trials are."""
    base, settings = context.workspace.base, context.settings
    if context.workspace.kind == "encoder":
        recipes, rows = settings.recipes, context.fold(place)
        recipe = recipes.recipe(recipes.first[0], trial=True) if recipes.first else recipes.corners(())[0]
        assert isinstance(recipe, Recipe)
        how = HeadTraining(rows.train, rows.asked, recipe, settings.seed, settings.score_batch)
        return head_alone(context.workspace, how)
    if settings.recipes.method == "reft":
        # Edits at the lowest layer and the last token: so of the base is kept what most recipes of a search need.
        return ReftModel(base, ReftConfig(layers=(0,), positions="l1", rank=1), seed=settings.seed)
    return build_model(context.workspace, settings.recipes.corners(())[0], seed=settings.seed)


def _answers(context: TrialContext, model: AnyModel, asked: Sequence[Row], *, title: str) -> list[Answer]:
    size = context.settings.score_batch
    return answers(context.workspace, context.task, model, asked, batch_size=size, title=title)


def _hopeless(trial: optuna.Trial, search: SearchParams, costs: Costs) -> bool:
    """Whether to stop: it is worse than others were, or over a limit already. A confirmation runs to its end."""
    if CANDIDATE in trial.user_attrs:
        return False
    if any(costs.figures()[cost] > bound for cost, bound in search.limits.bounds().items()):
        return True
    return len(search.objectives) == 1 and bool(trial.should_prune())


@contextmanager
def _noted(trial: optuna.Trial, search: SearchParams, costs: Costs, run: LiveRun) -> Iterator[Costs]:
    """Keep what a trial cost, by how much it is over each limit, and, when it fails, its error; also in its run."""
    tags: dict[str, object] = {}
    try:
        yield costs
        tags = {STATE: "complete"}
    except optuna.TrialPruned:
        tags = {STATE: "pruned"}
        raise
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        tags = {STATE: "fail", "reft.error": said}
        trial.set_user_attr(ERROR, said)
        log.info("trial %d failed", trial.number, exc_info=True)
        raise
    finally:
        figures = costs.figures()
        trial.set_user_attr(COSTS, figures)
        for cost, bound in search.limits.bounds().items():
            trial.set_constraint(cost, figures[cost] / bound - 1)  # above 0 is over the limit
        run.log_metrics(figures)
        if tags:
            run.set_tags(tags)
