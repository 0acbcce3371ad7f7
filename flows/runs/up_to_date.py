"""A run that has nothing to do: DVC says so, and then no Prefect server is started to show it on."""

from __future__ import annotations

from pathlib import Path

from flows.runs import dvc, orphans, running
from flows.runs.gate import champion_trouble, gate_outcome, settled
from flows.runs.outcome import FlowResult, StageRun
from flows.runs.refresh import look
from flows.runs.server import say
from pipelines.params.whole import Params
from pipelines.project.code import refresh_code
from pipelines.project.graph import read_graph
from pipelines.registry.versions import registered
from pipelines.runtime.process import locked
from pipelines.tracking.store import public_store


def run_without_work(root: Path, params: Params, *, refresh: bool = False) -> FlowResult | None:
    """What the flow would give where every stage is up to date and registered; it is pushed, as the flow does.

    The flow takes ten seconds more for the same, most of it the start of a temporary Prefect server. So this is for a
    run that no server of the user's would show.

    Returns:
        None if there are new rows and ``refresh`` asks for them, a stage has something to do, the gate is to be asked,
        the push failed, or a run that was killed is to be marked so in Prefect.

    Raises:
        BusyError: while another run works in the project, after ``run.wait_seconds``.
    """
    with locked(root, "run", wait_seconds=params.run.wait_seconds):
        orphans.end_orphans(root)
        dvc.repair_lock(root)
        refresh_code(root)
        graph = read_graph(root)
        names = [stage.name for stage in graph.stages]
        if running.was_killed(root):
            return None
        news = look(root, params) if refresh else None
        if news is not None and (news.is_any or news.untracked is not None):
            return None
        if not dvc.unchanged(root).issuperset(names):
            return None
        if not registered(params, root, root / graph.paths["registration"]):
            return None
        automatic = params.gate.automatic and params.gate.approval_hours is None  # there is no server to answer at
        if not settled(root, params, graph, automatic=automatic):
            return None
        if (trouble := champion_trouble(root, params)) is not None:
            say(trouble)
        gate = gate_outcome(root, params, graph)
        remote = dvc.has_remote(root)
        if remote and dvc.call(root, ["push"]) != 0:
            return None  # the flow tries it again, and tells whoever is to be told
    runs = [StageRun(name, "skipped", 0.0) for name in names]
    return FlowResult(root, graph, runs, public_store(params.tracking, root), pushed=remote, gate=gate, news=news)
