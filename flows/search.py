"""The search by itself: several processes run its trials, and then DVC the stage."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from prefect import State, flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import wait
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner, ThreadPoolTaskRunner

from flows.runs import dvc, orphans, running
from flows.runs.dvc import StageFailedError
from flows.runs.notify import notify_of_failure
from flows.runs.outcome import StageRun, outcome_line
from flows.runs.project import check_ready
from flows.runs.server import Told, kept_alive, server_address
from flows.runs.tasks import mend_cache, repro_stage, repro_stages, show_search, warn
from flows.runs.titles import project_name
from pipelines.errors import PipelineError
from pipelines.params.whole import Params, load_params
from pipelines.project.code import refresh_code
from pipelines.project.graph import Graph, read_graph
from pipelines.runtime.process import DYING_SECONDS, FLOW_PID, die_with_parents, locked

Runner = Literal["threads", "processes", "dask"]
STAGE = "search"


@dataclass(frozen=True)
class SearchOutcome:
    """What became of the stages up to the search, and where its files are."""

    root: Path
    graph: Graph
    runs: list[StageRun]

    def path(self, name: str) -> Path:
        """The file or folder that dvc.yaml calls ``name``."""
        return self.root / self.graph.paths[name]


_told = Told[SearchOutcome]()


def run(project: Path, *, workers: int, runner: Runner, scheduler: str | None = None) -> SearchOutcome:
    """Run the flow in this process; what stopped it is raised as it was. Ctrl-C and SIGTERM end the process.

    Args:
        project: the project folder; where workers are on other machines, the same path there.
        workers: how many processes work on the study.
        runner: what starts them: threads of this process, processes of Prefect, or Dask.
        scheduler: the address of a Dask cluster; None for one of this machine, made for the flow.

    Raises:
        PipelineError: if Dask is asked for and not installed, or workers of a cluster could not share the study.
    """
    check_workers(load_params(project / "params.yaml"), runner, scheduler)
    orphans.mark_children()
    running.stop_at_once()
    fan = search.with_options(task_runner=task_runner(runner, workers, scheduler))
    with kept_alive() as address, server_for_children(address, needed=workers > 1 and runner != "threads"):
        return _told.outcome(lambda: fan(str(project.resolve()), workers, return_state=True))


def check_workers(params: Params, runner: Runner, scheduler: str | None) -> None:
    """Refuse a Dask cluster that would not be used, or whose workers could not share the study or tell of themselves.

    Raises:
        PipelineError: with what to do.
    """
    if scheduler is None:
        return
    rule = "workers of a Dask cluster need --runner dask, a PostgreSQL database and a Prefect server"
    if runner != "dask":
        raise PipelineError(rule, got=f"--runner {runner}", do="Add --runner dask, or take --scheduler out.")
    if params.search.storage.startswith("sqlite"):
        do = "Set search.storage to a postgresql:// address that all machines reach."
        raise PipelineError(rule, got=params.search.storage, do=do)
    if server_address() is None:
        do = "Start one that all machines reach, and set PREFECT_API_URL here and there."
        raise PipelineError(rule, got="no PREFECT_API_URL", do=do)


def task_runner(runner: Runner, workers: int, scheduler: str | None) -> TaskRunner[Any]:
    """What starts the workers' tasks, as many at a time as there are workers."""
    if runner == "threads":
        return ThreadPoolTaskRunner(max_workers=workers)
    if runner == "processes":
        return ProcessPoolTaskRunner(max_workers=workers)
    try:
        from prefect_dask import DaskTaskRunner
    except ImportError as error:
        raise PipelineError(
            "--runner dask needs prefect-dask",
            got=error,
            do="In a clone: make setup. Elsewhere: pip install 'WHEEL[dask]', the file that make wheel makes.",
        ) from None
    if scheduler is not None:
        return DaskTaskRunner(address=scheduler)
    # One task a process: a task waits for the process that it started, and two of them would be two workers in one.
    return DaskTaskRunner(cluster_kwargs={"n_workers": workers, "threads_per_worker": 1, "dashboard_address": None})


@flow(
    name="search",
    flow_run_name=project_name,
    validate_parameters=False,
    persist_result=False,
    on_failure=[notify_of_failure],
    on_crashed=[notify_of_failure],
)
def search(project: str = ".", workers: int = 1) -> State[SearchOutcome]:
    """Run base and prepare where they are stale, the workers, then the stage search; show the outcome."""
    root = Path(project).resolve()
    if orphans.marks_children():
        running.stop_at_once()  # again, as in the flow finetune
    params = check_ready(root)
    with locked(root, "run", wait_seconds=params.run.wait_seconds):
        orphans.end_orphans(root)
        dvc.repair_lock(root)
        running.begin(root)
        refresh_code(root)
        graph = read_graph(root)
        names = [stage.name for stage in graph.stages]
        mend_cache(root)
        runs = repro_stages(root, graph.stages[: names.index(STAGE)])
        running.at_stage(root, STAGE)
        if workers > 1 and dvc.is_stale(root, STAGE):
            fan_out(root, workers)
        runs.append(repro_stage(root, graph.stage(STAGE)))
        show_search(root, graph)
        running.finish(root)
    outcome, line = SearchOutcome(root, graph, runs), outcome_line(runs)
    _told.came_to(outcome)
    get_run_logger().info(line)
    return Completed(message=line, data=outcome)


def fan_out(root: Path, workers: int) -> None:
    """Run workers until the study has its number of trials. What they leave undone, the stage does."""
    with locked(root, "stage", wait_seconds=DYING_SECONDS):  # a `dvc repro` beside it would take it for its own
        futures = [work.submit(root, place) for place in range(workers)]
        wait(futures)
    for place, future in enumerate(futures):
        if not future.state.is_completed():
            warn(f"worker {place} ended before its time: {future.state.message}")


@task(name="worker", task_run_name="worker-{place}", cache_policy=NO_CACHE)
def work(root: Path, place: int) -> None:
    """Run one worker until the study has all its trials; end with the flow, where that is another process.

    Raises:
        StageFailedError: if it was killed, or could not go on.
    """
    if os.environ.get(FLOW_PID, str(os.getpid())) != str(os.getpid()):
        die_with_parents()  # neither a process of a pool nor one of Dask does by itself
    command = [sys.executable, "-m", "pipelines.search.worker", "--place", str(place)]
    code = subprocess.run(command, cwd=root, check=False).returncode
    if code != 0:
        raise StageFailedError(f"its process ended with exit code {code}; its own messages stand above")


@contextmanager
def server_for_children(address: str, *, needed: bool) -> Iterator[None]:
    """Where tasks run in other processes, these are to use the server of the flow, and not to start one each."""
    if not needed or server_address() is not None:
        yield
        return
    with temporary_settings({PREFECT_API_URL: address}):
        yield
