"""Promotion: the gate is asked of a challenger after the stages, by ``reft run``, or alone, by ``reft promote``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from rich.console import RenderableType

from flows.runs import orphans
from flows.runs.approval import ask_person
from flows.runs.dvc import StageFailedError
from flows.runs.gate import champion_trouble, decision_file, settled
from flows.runs.lines import lines_to_copy
from flows.runs.notify import notify_of_failure, notify_of_move
from flows.runs.project import check_ready
from flows.runs.server import Told, kept_alive, server_address
from flows.runs.tasks import show_decision, warn
from flows.runs.titles import project_name
from pipelines.contracts.registration import read_registration
from pipelines.contracts.verdict import Decision, read_decision
from pipelines.errors import PipelineError
from pipelines.params.whole import Params
from pipelines.project.graph import Graph, read_graph
from pipelines.registry.page import headline
from pipelines.registry.promote import Request
from pipelines.registry.rollback import withhold
from pipelines.runtime.process import locked
from pipelines.tracking.runs import open_store

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
    hours = params.gate.approval_hours
    # Without a server of its own there is nowhere to answer: then the word is `reft promote`.
    automatic = params.gate.automatic and (hours is None or server_address() is not None)
    if settled(root, params, graph, automatic=automatic):
        return
    version = read_registration(root / graph.paths["registration"]).version
    decision = ask_gate(root, graph, Request(version, only_ask=not automatic or hours is not None))
    if automatic and hours is not None and decision.verdict.promote and _approved(root, params, decision, hours):
        ask_gate(root, graph, Request(version))  # again, since the champion may be another one by now


def _approved(root: Path, params: Params, decision: Decision, hours: float) -> bool:
    """Ask a person; a version that is refused stays out of use, and one that nobody looked at waits again next time."""
    answer = ask_person(root, decision, hours=hours)
    if answer.late:
        warn(f"nobody answered in {hours:g} h, so the champion is what it was; the next run asks again")
    elif not answer.approved:
        reason = answer.reason or "no reason was given"
        withhold(open_store(params.tracking, root), decision.model, decision.version, reason=reason)
        warn(f"version {decision.version} was refused ({reason}); `reft promote {decision.version} --reason` goes on")
    return answer.approved


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
