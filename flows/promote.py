"""Promotion: the gate is asked of a challenger after the stages, by ``reft run``, or alone, by ``reft promote``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from rich.console import RenderableType

from flows.runs import orphans
from flows.runs.dvc import StageFailedError
from flows.runs.gate import champion_trouble, decision_file, settled
from flows.runs.lines import lines_to_copy
from flows.runs.notify import notify_of_failure, notify_of_move
from flows.runs.project import check_ready
from flows.runs.server import Told, kept_alive
from flows.runs.tasks import show_decision, warn
from flows.runs.titles import project_name
from pipelines.contracts.registration import read_registration
from pipelines.contracts.verdict import Decision, read_decision
from pipelines.errors import PipelineError
from pipelines.params.whole import Params
from pipelines.project.graph import Graph, read_graph
from pipelines.registry.page import headline
from pipelines.registry.promote import Request
from pipelines.runtime.process import locked

REFUSED = 2  # exit code of a process that told of a user's mistake


def decision_lines(decision: Decision) -> RenderableType:
    """What was decided and why, for a terminal."""
    reasons = [("because", reason) for reason in decision.verdict.reasons]
    return lines_to_copy(headline(decision), reasons)


_told = Told[Decision]()


def run(project: Path, wanted: Request) -> Decision:
    """Run the flow in this process; what stopped it is raised as it was."""
    check_ready(project.resolve())
    orphans.mark_children()
    with kept_alive():
        return _told.outcome(lambda: promote(str(project.resolve()), wanted, return_state=True))


@flow(
    name="promote",
    flow_run_name=project_name,
    validate_parameters=False,
    persist_result=False,
    on_failure=[notify_of_failure],
    on_crashed=[notify_of_failure],
)
def promote(project: str, wanted: Request) -> Decision:
    """Ask the gate, and do as it says."""
    root = Path(project).resolve()
    params = check_ready(root)
    with locked(root, "run", wait_seconds=params.run.wait_seconds):
        decision = ask_gate(root, read_graph(root), wanted)
        show_decision(decision)
    _told.came_to(decision)
    return decision


def after_stages(root: Path, params: Params, graph: Graph) -> None:
    """Ask the gate of the version that the stages registered, unless it has decided already."""
    if (trouble := champion_trouble(root, params)) is not None:
        warn(trouble)
    if not settled(root, params, graph):
        version = read_registration(root / graph.paths["registration"]).version
        ask_gate(root, graph, Request(version, only_ask=not params.gate.automatic))


@task(name="gate", cache_policy=NO_CACHE)
def ask_gate(root: Path, graph: Graph, wanted: Request) -> Decision:
    """Compare challenger and champion in a process of its own, which moves the alias; tell whoever is to be told.

    Raises:
        PipelineError: if it was refused; its own message stands on the terminal.
        StageFailedError: if it was killed, or could not go on.
    """
    paths, out = graph.paths, decision_file(graph, dry=wanted.dry)
    named = [word for name in ("base", "prepared") for word in (f"--{name}", paths[name])]
    command = [sys.executable, "-m", "pipelines.registry", "promote", *named, "--out", str(out), *wanted.words()]
    code = subprocess.run(command, cwd=root, check=False).returncode
    if code == REFUSED:
        raise PipelineError("the promotion was refused; its own message stands above")
    if code != 0:
        raise StageFailedError(f"the gate ended with exit code {code}; the champion is what it was")
    decision = read_decision(root / out)
    if decision.promoted:
        notify_of_move(root, "Promoted", headline(decision), model=decision.model, version=decision.version)
    return decision
