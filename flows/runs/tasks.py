"""The tasks of the flow: one that reproduces a stage with DVC, and those that show what came out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun

from flows.runs import dvc, orphans, running
from flows.runs.cards import data_card, page_link, run_summary, search_card, version_card
from flows.runs.drift import write_drift
from flows.runs.dvc import StageFailedError
from flows.runs.dvc_cache import drop_damaged
from flows.runs.outcome import GateOutcome, Outcome, StageRun
from flows.runs.refresh import News, come_late, keep, look, stands_for, take_in
from flows.runs.server import UNREACHABLE, say, wait_until_up
from pipelines.contracts.base import read_base
from pipelines.contracts.card import read_card
from pipelines.contracts.confirmed import read_confirmed
from pipelines.contracts.evaluation import Evaluation, read_evaluation
from pipelines.contracts.predictions import read_predictions
from pipelines.contracts.registration import read_registration
from pipelines.contracts.search import read_search
from pipelines.contracts.trials import TrialRecord, read_trials
from pipelines.contracts.verdict import Decision
from pipelines.errors import PipelineError
from pipelines.files import write_text
from pipelines.params.whole import Params
from pipelines.project.graph import Graph, Stage
from pipelines.registry.page import decision_page
from pipelines.reports.evaluation_markdown import evaluation_markdown
from pipelines.runtime.process import error_path, read_marker

# A retry helps where a network, a server or a killed process was in the way. Work in progress is kept between tries.
RETRIES = 2
RETRY_SECONDS: list[float] = [5, 30]


async def _worth_a_retry(_task: object, _run: TaskRun, state: State[Any]) -> bool:
    """Not for a user's mistake: it would be made again."""
    result = await state.aresult(raise_on_failure=False)
    return not isinstance(result, PipelineError)


@task(
    name="stage",
    task_run_name="{stage.name}",
    cache_policy=NO_CACHE,  # DVC decides whether
    retries=RETRIES,
    retry_delay_seconds=RETRY_SECONDS,
    retry_condition_fn=_worth_a_retry,
)
def repro_stage(root: Path, stage: Stage, *, force: bool = False, skip: bool = False) -> StageRun:
    """Run ``dvc repro --single-item STAGE``; what an earlier run left comes back when it fails.

    Args:
        root: the project folder.
        stage: of dvc.yaml.
        force: run it also if nothing changed.
        skip: DVC was asked already, and would do nothing.

    Raises:
        PipelineError: for a user's mistake that the stage found.
        StageFailedError: for anything else.
    """
    started = time.monotonic()
    if skip:
        return StageRun(stage.name, "skipped", 0.0)
    before = read_marker(root, stage.name), dvc.lock_entry(root, stage.name)
    kept = {path: (root / path).read_bytes() for path in stage.uncached if (root / path).is_file()}
    error_path(root, stage.name).unlink(missing_ok=True)
    code = dvc.call(root, ["repro", "--single-item", *(["--force"] if force else []), stage.name])
    if code != 0:
        _restore_outputs(root, stage, kept)
        message = error_path(root, stage.name)
        if message.is_file():
            raise PipelineError(f"stage {stage.name}: {message.read_text(encoding='utf-8').strip()}")
        raise StageFailedError(f"stage {stage.name} ended with exit code {code}; its own messages stand above")
    marker, entry = read_marker(root, stage.name), dvc.lock_entry(root, stage.name)
    outcome: Outcome = "ran" if marker != before[0] else "restored" if entry != before[1] else "skipped"
    return StageRun(stage.name, outcome, time.monotonic() - started)


@task(name="refresh", cache_policy=NO_CACHE, retries=RETRIES, retry_delay_seconds=RETRY_SECONDS,
      retry_condition_fn=_worth_a_retry)  # fmt: skip
def refresh_rows(root: Path, params: Params) -> News:
    """Take in new rows, and tell what there was.

    Raises:
        PipelineError: as :func:`flows.runs.refresh.look` and :func:`flows.runs.refresh.take_in`.
    """
    news = look(root, params)
    take_in(root, news)
    get_run_logger().info(news.words())
    return news


@task(name="late-rows", cache_policy=NO_CACHE)
def take_in_late(root: Path, params: Params, prepare: Stage, news: News) -> News:
    """Take in what stage prepare has read beside what was taken in before it; what a version is made of is under DVC.

    Raises:
        PipelineError: as :func:`refresh_rows`.
    """
    late = come_late(root, params, prepare)
    take_in(root, late)
    if late.is_any:
        get_run_logger().info(f"While the run worked: {late.words()}")
    return news.and_late(late)


def repro_stages(root: Path, stages: Sequence[Stage], *, keep_search: str | None = None) -> list[StageRun]:
    """Reproduce stages, in the order of dvc.yaml; DVC says once for all of them what it would skip.

    Args:
        root: the project folder.
        stages: of dvc.yaml.
        keep_search: the folder of prepared rows, where their change alone is to make no new search; None: it is.

    Raises:
        PipelineError: as :func:`repro_stage`.
        StageFailedError: as :func:`repro_stage`.
    """
    unchanged = dvc.unchanged(root)
    runs: list[StageRun] = []
    for stage in stages:
        running.at_stage(root, stage.name)
        # What was said of a stage holds while none before it did anything.
        skip = stage.name in unchanged and all(run.outcome == "skipped" for run in runs)
        if not skip and stage.name == "search" and keep_search is not None and stands_for(root, stage, keep_search):
            keep(root, stage)
            warn("refresh.search is last: the recipe of the search before is trained on the new rows")
        runs.append(repro_stage(root, stage, skip=skip))
    return runs


def _restore_outputs(root: Path, stage: Stage, kept: dict[str, bytes]) -> None:
    """DVC removes a stage's outputs before it runs; after a failure the last good ones belong in the folder again."""
    if dvc.lock_entry(root, stage.name) is not None:
        dvc.call(root, ["checkout", stage.name])
    for path, data in kept.items():
        if not (root / path).exists():
            write_text(root / path, data.decode())


def mend_cache(root: Path) -> None:
    """Let DVC restore no output from a damaged file of its cache, which it would take for the one that it wrote."""
    for path in drop_damaged(root):
        warn(f"DVC's cache had {path} damaged: it is fetched or made again where it is wanted")


@task(name="pull", cache_policy=NO_CACHE)
def pull(root: Path) -> None:
    """Fetch from DVC's default remote what this folder lacks: own data, and outputs that other machines made.

    It is a saving and never a condition: what the remote lacks, a stage makes. A file of the user's that DVC does not
    know stays as it is. A folder that lacks nothing asks the remote for nothing.
    """
    wanted = dvc.recorded(root)
    if wanted and dvc.call(root, ["pull", "--allow-missing", *wanted]) != 0:
        warn("dvc pull did not fetch everything; the run goes on with what is here")


@task(name="push", cache_policy=NO_CACHE, retries=RETRIES, retry_delay_seconds=RETRY_SECONDS)
def push(root: Path) -> None:
    """Push data and adapter to DVC's default remote."""
    if dvc.call(root, ["push"]) != 0:
        raise StageFailedError("dvc push failed; its own messages stand above")


def warn(message: str) -> None:
    """Warn in the run's log, and on the terminal of ``reft run``, which keeps Prefect's own lines from it."""
    get_run_logger().warning(message)
    if orphans.marks_children():  # else a worker shows the log
        say(message)


@task(name="show", cache_policy=NO_CACHE)
def show(root: Path, graph: Graph, runs: Sequence[StageRun], *, store: str, gate: GateOutcome, seed: int) -> None:
    """Put summary, data card, search, evaluation, version and what the gate said on the run's page in Prefect."""
    files = {name: root / path for name, path in graph.paths.items()}
    evaluation = read_evaluation(files["evaluation"])
    registration = replace(read_registration(files["registration"]), alias=gate.alias)  # as it is now
    with showing():
        create_markdown_artifact(key="summary", markdown=run_summary(runs, evaluation, registration))
        create_markdown_artifact(key="data-card", markdown=data_card(read_card(files["card"])))
        _show_trials(files["search"], files["search_metrics"])
        create_markdown_artifact(key="evaluation", markdown=_evaluation(files, evaluation, seed))
        create_markdown_artifact(key="model-version", markdown=version_card(registration, store=store))
        if gate.decision is not None:
            create_markdown_artifact(key="gate", markdown=decision_page(gate.decision))


@task(name="show", cache_policy=NO_CACHE)
def show_decision(decision: Decision) -> None:
    """Put what the gate said there, after a promotion by itself."""
    with showing():
        create_markdown_artifact(key="gate", markdown=decision_page(decision))


@task(name="drift", cache_policy=NO_CACHE)
def show_drift(root: Path, params: Params, graph: Graph) -> None:
    """Write how the rows and the champion's score moved, and put it there."""
    page = write_drift(root, params, graph)
    with showing():
        create_markdown_artifact(key="drift", markdown=page)


@task(name="show", cache_policy=NO_CACHE)
def show_search(root: Path, graph: Graph) -> None:
    """Put data card, the search's outcome and its trials there, after a search by itself."""
    files = {name: root / path for name, path in graph.paths.items()}
    with showing():
        create_markdown_artifact(key="data-card", markdown=data_card(read_card(files["card"])))
        _show_trials(files["search"], files["search_metrics"])


@contextmanager
def showing() -> Iterator[None]:
    """What cannot be put on the run's page fails no run: the files are there, and tell the same."""
    wait_until_up()
    try:
        yield
    except UNREACHABLE as error:
        warn(f"Prefect's server did not take the run's page ({type(error).__name__}); the files say what came out")


def _evaluation(files: dict[str, Path], evaluation: Evaluation, seed: int) -> str:
    encoder = read_base(files["base"]).kind == "encoder"
    predictions = read_predictions(files["predictions"])
    found = evaluation_markdown(evaluation, predictions, seed=seed, encoder=encoder)
    return f"{found}\n\n{page_link(files['evaluation_page'])}"


def _show_trials(folder: Path, metrics: Path) -> None:
    trials = read_trials(folder / "trials.json")
    card = search_card(read_search(metrics), trials, page=folder / "report.html")
    create_markdown_artifact(key="search", markdown=card)
    create_table_artifact(key="trials", table=[_flat(trial) for trial in trials], description="Trials of the search")
    confirmed = [asdict(one) for one in read_confirmed(folder / "confirmed.json")]
    if confirmed:
        said = "The best recipes with other seeds and rows"
        create_table_artifact(key="confirmed", table=confirmed, description=said)


def _flat(trial: TrialRecord) -> dict[str, Any]:
    flat = {key: value for key, value in asdict(trial).items() if key not in ("params", "intermediate")}
    return flat | trial.params
