"""What brings a study to its number of trials: one process, or several on this and other machines.

``python -m pipelines.search.worker`` in a project folder is one more of them. It leaves no outputs: the stage search,
which works on the same study, finds its trials there and writes them down.
"""

from __future__ import annotations

import argparse
import gc
import logging
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any, NoReturn

import optuna
import torch
from optuna.trial import FrozenTrial, TrialState
from tqdm import tqdm

from pipelines.contracts.base import read_base
from pipelines.contracts.prepared import Split, read_rows
from pipelines.contracts.task import read_task
from pipelines.contracts.trials import TrialRecord
from pipelines.errors import PipelineError
from pipelines.model.workspace import open_workspace
from pipelines.params.computation import Computation
from pipelines.params.whole import Params, TrackingParams, load_params
from pipelines.project.code import check_code
from pipelines.project.graph import read_graph
from pipelines.project.keys import Inputs, study_key
from pipelines.project.settings import StudySettings
from pipelines.recipes.space import SpaceParams
from pipelines.runtime.process import begin_process
from pipelines.search.choice import Confirmed, Rule, candidates
from pipelines.search.fits_base import check_space
from pipelines.search.folds import OF_TRIALS
from pipelines.search.goal import goal
from pipelines.search.next_step import ProposalContext, Step, confirmations, next_confirmation, next_trial, other_seeds
from pipelines.search.pruning import within_limits
from pipelines.search.records import trial_records
from pipelines.search.sizes import check_limit, parameters_of
from pipelines.search.study import (
    BASE_VALUE,
    CONFIRM,
    COSTS,
    ERROR,
    INTERRUPTED,
    SharedStudy,
    counted,
    in_state,
    open_study,
    repeat_killed,
)
from pipelines.search.trial import FAILURES, TrialContext, base_value, run_name, run_trial
from pipelines.tasks.family import TaskFamily, open_family
from pipelines.tracking.live import live_run
from pipelines.wording import recipe_words

log = logging.getLogger(__name__)

SPLITS: tuple[Split, ...] = ("train", "validation")  # what a search reads; nobody asks it for test rows
POLL_SECONDS = 0.5  # between two looks at what other processes do


@dataclass(frozen=True)
class SearchContext:
    """What a process of a search works by, and where: the files of base and data; and its place among others.

    ``confidence`` is that of the intervals that the report of the search shows.
    """

    settings: StudySettings
    tracking: TrackingParams
    confidence: float
    root: Path
    base: Path
    prepared: Path
    place: int = 0


@dataclass(frozen=True)
class Found:
    """What the study came to: its space and trials, the candidates that were run again, and the rule to choose by.

    ``base_value`` is that of the frozen base on the validation rows, ``base_confirmed`` that on the rows of the runs
    that confirm; None where it could not be measured. ``named`` is how many recipes of ``search.enqueue`` are tried.
    """

    study: str
    key: str
    space: SpaceParams
    named: int
    records: list[TrialRecord]
    confirmations: list[Confirmed]
    rule: Rule
    base_value: float | None
    base_confirmed: float | None


def search_context(params: Params, *, root: Path, base: Path, prepared: Path, place: int = 0) -> SearchContext:
    """What params.yaml says of a search, and where its files are."""
    return SearchContext(
        StudySettings.of(params), params.tracking, params.evaluate.confidence, root, base, prepared, place
    )


def run_until_target(context: SearchContext) -> Found:
    """Run trials until the study has its number, then confirm the best; wait for those of other processes.

    Raises:
        PipelineError: for a space that the base does not fit, a storage that does not answer, or no trial to choose.
    """
    settings, record = context.settings, read_base(context.base)
    recipes, limit = settings.recipes, settings.search.limits.parameters
    check_space(recipes, record)
    task = open_family(read_task(context.prepared))
    check_limit(recipes, limit, record, task.outputs)
    key = study_key(settings, Inputs.of(context.base, context.prepared))

    def allowed(point: dict[str, object]) -> bool:
        return limit is None or parameters_of(recipes.recipe(point, trial=True), record, task.outputs) <= limit

    with ExitStack() as stack:
        worker = _Worker(context, task, key, stack)
        study = open_study(settings.search, context.root, name=f"search-{key}")
        proposal = ProposalContext(record.sha256, record.num_layers, allowed)
        step = partial(next_trial, settings=settings, context=proposal)
        worker.work(study, step, total=settings.search.trials, folds=[OF_TRIALS])
        rows = {split: len(read_rows(context.prepared, split)) for split in SPLITS}
        rule = Rule(settings.search, task.measure, rows["train"], rows["validation"], context.confidence)
        records, frozen = trial_records(study), _of_base(study, [OF_TRIALS])
        again = candidates(records, rule)
        if not again:
            return Found(study.name, key, recipes.space, len(recipes.first), records, [], rule, frozen, None)
        confirming = open_study(settings.search, context.root, name=f"{study.name}{CONFIRM}")
        seeds = other_seeds(settings)
        step, folds = partial(next_confirmation, settings=settings, candidates=again), range(1, len(seeds) + 1)
        worker.work(confirming, step, total=len(again) * len(seeds), folds=folds)
        runs = confirmations(confirming, settings, again)
        again_of_base = _of_base(confirming, folds)
        return Found(study.name, key, recipes.space, len(recipes.first), records, runs, rule, frozen, again_of_base)


def _of_base(shared: SharedStudy, folds: Sequence[int]) -> float | None:
    """The mean figure of the frozen base on the rows that these folds are asked; None where one was not measured."""
    found = [shared.study.user_attrs.get(_base_attribute(place)) for place in folds]
    return None if None in found else mean(found)


def _base_attribute(place: int) -> str:
    return BASE_VALUE if place == OF_TRIALS else f"{BASE_VALUE}:{place}"


class _Worker:
    """Begins trials while there are any to begin. Base and data are loaded for the first, and not for none."""

    def __init__(self, context: SearchContext, task: TaskFamily[Any], key: str, stack: ExitStack) -> None:
        self._context, self._task, self._key, self._stack = context, task, key, stack
        self._trial_context: TrialContext | None = None
        # A file of sqlite is this machine's, and the lock on the project keeps other containers out.
        self._alone = context.settings.search.storage.startswith("sqlite")

    def work(
        self, shared: SharedStudy, look: Callable[[SharedStudy], Step], *, total: int, folds: Sequence[int]
    ) -> None:
        """Run trials until the study has no more, and no other process has one; the base is asked the folds' rows."""
        measured = self._context.place > 0 or all(_base_attribute(place) in shared.study.user_attrs for place in folds)
        with shared.locked():
            if self._next_step(shared, look) is Step.DONE and measured:
                return
        if self._trial_context is None:
            self._trial_context = self._open_context(shared)
        self._measure_base(shared, folds)
        title = "confirm" if shared.name.endswith(CONFIRM) else "search"
        with tqdm(total=total, desc=title, unit="trial", disable=self._context.place > 0) as bar:
            while self._turn(shared, look, bar):
                _show(shared, bar)

    def _next_step(self, shared: SharedStudy, look: Callable[[SharedStudy], Step]) -> Step:
        repeat_killed(shared, alone=self._alone)
        return look(shared)

    def _turn(self, shared: SharedStudy, look: Callable[[SharedStudy], Step], bar: tqdm[NoReturn]) -> bool:
        """One look at the study, and the trial that it has for this process; False when there is none to come."""
        with ExitStack() as claim:
            claim.enter_context(shared.locked())
            step = self._next_step(shared, look)
            if step is Step.BEGIN:
                number = self._run(shared, claim.close)
                if _finish(shared, number, bar, self._task.measure.name) is TrialState.FAIL:
                    gc.collect()  # an out-of-memory error holds, by its traceback, what did not fit
        if step is Step.WAIT:
            time.sleep(POLL_SECONDS)
        return step is not Step.DONE

    def _run(self, shared: SharedStudy, begun: Callable[[], None]) -> int:
        """Run the trial at the head of the study's queue; return its number."""
        numbers: list[int] = []
        raised: list[BaseException] = []

        def objective(trial: optuna.Trial) -> list[float]:
            numbers.append(trial.number)
            assert self._trial_context is not None
            try:
                return run_trial(trial, shared, self._trial_context, begun)
            except KeyboardInterrupt:
                trial.set_user_attr(INTERRUPTED, True)
                raise
            except ValueError as error:
                raised.append(error)
                raise

        try:
            shared.study.optimize(objective, n_trials=1, catch=FAILURES)
        except ValueError as error:  # Optuna's, of a trial that another process has closed; or out of our own code
            if error in raised or not _was_given_up(shared, numbers[-1]):
                raise
            log.warning("trial %d was taken for dead by another machine, which repeats it", numbers[-1])
        return numbers[-1]

    def _open_context(self, shared: SharedStudy) -> TrialContext:
        context = self._context
        search = context.settings.search
        edited = context.settings.recipes.layer_choices(read_base(context.base).num_layers).edited
        workspace = open_workspace(
            _on_device(context), root=context.root, base=context.base, prepared=context.prepared,
            lowest=(layers[0] for layers in edited.values()),
        )  # fmt: skip
        train, validation = workspace.rows("train"), workspace.rows("validation")  # before anything is logged
        run = live_run(context.tracking, root=context.root, stage="search", input_hash=self._key, name=shared.name)
        with shared.locked():  # two processes that look for the run at once would make two
            live = self._stack.enter_context(run)
        live.log_params({"trials": search.trials, "train_rows": search.train_rows})
        said = {"project": context.root.resolve().name, "base": workspace.base_source, "task": workspace.task.task}
        for name, value in said.items():  # for people: a study's name says its inputs alone
            shared.study.set_user_attr(name, value)
        return TrialContext(context.settings, workspace, self._task, train, validation, live)

    def _measure_base(self, shared: SharedStudy, folds: Sequence[int]) -> None:
        """Keep in the study what its trials are to be better than; one process of a machine sees to that."""
        if self._context.place > 0:
            return
        assert self._trial_context is not None
        for place in folds:
            if _base_attribute(place) in shared.study.user_attrs:
                continue
            try:
                shared.study.set_user_attr(_base_attribute(place), base_value(self._trial_context, place))
            except FAILURES as error:  # as a trial may, which fails by itself and tells why
                log.warning("the frozen base could not be scored, so no trial is compared with it: %s", error)
                shared.study.set_user_attr(_base_attribute(place), None)


def _on_device(context: SearchContext) -> Computation:
    """The computation on a device for this process: where a machine has several, each has its turn."""
    computation = context.settings.computation
    if computation.run.device not in ("auto", "cuda") or torch.cuda.device_count() < 2:
        return computation
    device = f"cuda:{context.place % torch.cuda.device_count()}"
    return replace(computation, run=computation.run.model_copy(update={"device": device}))


def _was_given_up(shared: SharedStudy, number: int) -> bool:
    trial = shared.trials()[number]
    return trial.state is TrialState.FAIL and ERROR not in trial.user_attrs


def _finish(shared: SharedStudy, number: int, bar: tqdm[NoReturn], measure: str) -> TrialState:
    """Print how a trial ended, with its recipe; return the state that it ended in."""
    trial = shared.trials()[number]
    match trial.state:
        case TrialState.COMPLETE:
            ended = f"{measure} {_first(trial)}"
        case TrialState.FAIL:
            ended = str(trial.user_attrs.get(ERROR))
        case state:
            ended = state.name.lower()
    bar.write(f"{run_name(trial)}: {recipe_words(trial.params)}: {ended}", file=sys.stderr)
    return trial.state


def _show(shared: SharedStudy, bar: tqdm[NoReturn]) -> None:
    """Show how far all processes together have come: the trials that ended, the best so far and its recipe."""
    trials = shared.trials()
    bar.n = len(counted(trials))
    complete = in_state(trials, TrialState.COMPLETE)
    able = [trial for trial in complete if within_limits(trial)]
    if able and not shared.name.endswith(CONFIRM):  # whose runs are asked different rows
        best = min(able, key=lambda trial: (-goal(trial), trial.user_attrs[COSTS]["parameters"], trial.number))
        bar.set_postfix_str(f"best {_first(best):.3f} by {run_name(best)}: {recipe_words(best.params)}", refresh=False)
    bar.refresh()


def _first(trial: FrozenTrial) -> float:
    return float(trial.values[0])


def main(argv: list[str] | None = None) -> int:
    """Work on the study of the project in the current folder; the exit code is as a stage's."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.search.worker", description="One more process of a search."
    )
    parser.add_argument("--place", type=int, default=0, help="its place among the processes of this machine, from 0")
    place = parser.parse_args(argv).place
    begin_process()
    root = Path.cwd()
    try:
        params, paths = load_params(root / "params.yaml"), read_graph(root).paths
        check_code(root, "search")
        run_until_target(
            search_context(params, root=root, base=root / paths["base"], prepared=root / paths["prepared"], place=place)
        )
    except PipelineError as error:
        sys.stderr.write(f"error: search: {error}\n")
        return 2
    except KeyboardInterrupt:  # its trial is noted as interrupted
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
