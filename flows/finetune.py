"""The main flow: new rows where they are asked for; prepare, search, train, evaluate, register, each as DVC decides;
then gate and push."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from prefect import State, flow, get_run_logger
from prefect.runtime import deployment
from prefect.states import Cancelled, Completed

from flows.promote import after_stages
from flows.runs import dvc, orphans, running
from flows.runs.gate import gate_outcome
from flows.runs.notify import notify_of_failure
from flows.runs.outcome import FlowResult, result_line
from flows.runs.project import check_ready
from flows.runs.server import Told, kept_alive
from flows.runs.tasks import (
    mend_cache,
    pull,
    push,
    refresh_rows,
    repro_stage,
    repro_stages,
    show,
    show_drift,
    take_in_late,
    warn,
)
from flows.runs.titles import outcome_title, project_name, rename_run
from pipelines.bases.space import check_base_space
from pipelines.bases.store import in_store
from pipelines.contracts.evaluation import read_evaluation
from pipelines.contracts.training import read_training
from pipelines.params.whole import Params, load_params
from pipelines.project.code import refresh_code
from pipelines.project.graph import read_graph
from pipelines.project.lineage import git_state
from pipelines.registry.versions import registered
from pipelines.runtime.disk import check_project_space
from pipelines.runtime.process import BusyError, locked
from pipelines.tracking.store import public_store

_told = Told[FlowResult]()


def run(project: Path, *, refresh: bool = False) -> FlowResult:
    """Run the flow in this process; what stopped it is raised as it was. Ctrl-C and SIGTERM end the process."""
    orphans.mark_children()
    running.stop_at_once()
    with kept_alive():
        return _told.outcome(lambda: finetune(str(project.resolve()), refresh, return_state=True))


@flow(
    name="finetune",
    flow_run_name=project_name,
    validate_parameters=False,
    persist_result=False,
    on_failure=[notify_of_failure],
    on_crashed=[notify_of_failure],
)
def finetune(project: str = ".", refresh: bool = False) -> State[FlowResult]:
    """Pull, reproduce every stage in the order of dvc.yaml, ask the gate, show the outcome as artifacts, push.

    Before that new rows are taken in, where ``refresh`` is set, or a schedule started the run and params.yaml says so.
    While another run works in the project, a run that a schedule started is cancelled, and any other is refused.
    """
    root = Path(project).resolve()
    if orphans.marks_children():
        running.stop_at_once()  # again: Prefect has put a handler of its own in place, after which it would go on
    params = check_ready(root)
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(root, "run", wait_seconds=params.run.wait_seconds))
        except BusyError as error:  # any later one is of another lock, and a failure
            if deployment.id is None:
                raise
            return Cancelled(message=str(error))
        orphans.end_orphans(root)
        dvc.repair_lock(root)
        running.begin(root)
        result = _run_whole(root, params, refresh=refresh or (deployment.id is not None and params.refresh.scheduled))
        running.finish(root)
    _told.came_to(result)
    rename_run(
        outcome_title(
            root.name, read_evaluation(result.path("evaluation")), read_training(result.path("train_metrics"))
        )
    )
    line = result_line(result)
    get_run_logger().info(line)
    return Completed(message=line, data=result)


def _run_whole(root: Path, params: Params, *, refresh: bool) -> FlowResult:
    refresh_code(root)
    news = refresh_rows(root, params) if refresh else None  # before pull, which would take new files for strange ones
    params = load_params(root / "params.yaml")  # where a newer commit is written now
    if git_state(root).dirty:
        warn("files in git have changes that are not committed; the version will be tagged git.dirty")
    graph = read_graph(root)
    check_project_space(root)
    if not in_store(params, root / graph.paths["base"]):
        check_base_space(params.base.source, params.base.sha256, root=root)
    mend_cache(root)
    remote = dvc.has_remote(root)
    if remote:
        pull(root)
    kept = graph.paths["prepared"] if refresh and params.refresh.search == "last" else None
    runs = repro_stages(root, graph.stages, keep_search=kept)
    if news is not None and any((run.stage, run.outcome != "skipped") == ("prepare", True) for run in runs):
        news = take_in_late(root, params, graph.stage("prepare"), news)
    if not registered(params, root, root / graph.paths["registration"]):
        runs[-1] = repro_stage(root, graph.stage("register"), force=True)
    after_stages(root, params, graph)
    store, gate = public_store(params.tracking, root), gate_outcome(root, params, graph)
    show(root, graph, runs, store=store, gate=gate, seed=params.seed)
    if remote:
        push(root)
    if params.prepare.growing is not None and any(run.outcome != "skipped" for run in runs):
        show_drift(root, params, graph)
    return FlowResult(root, graph, runs, store, pushed=remote, gate=gate, news=news)
