"""What each stage would do now, and why: DVC's own status, told stage by stage."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from flows.runs import dvc
from pipelines.params.whole import load_params
from pipelines.project.graph import Graph, Stage, read_graph
from pipelines.registry.versions import registered

Action = Literal["runs", "restored or runs", "runs if its input changes", "skipped"]


@dataclass(frozen=True)
class Planned:
    """What a stage (or a file of the user's under DVC) would do, and each reason."""

    stage: str
    action: Action | Literal["needs dvc add"]
    why: tuple[str, ...]


def plan(root: Path) -> list[Planned]:
    """What ``reft run`` would do, in order; nothing is changed.

    Raises:
        PipelineError: if the folder is no project, or DVC cannot tell.
    """
    dvc.check_project(root)
    params = load_params(root / "params.yaml")
    graph = read_graph(root)
    dvc.stages_run(root)  # a dvc.lock that cannot be read is told of here in better words than DVC's
    status: dict[str, Any] = json.loads(dvc.read(root, ["status", "--json"]))
    planned: list[Planned] = []
    for stage in graph.stages:
        planned.append(_planned(root, graph, stage, status.get(stage.name, []), planned))
    last = planned[-1]
    if last.action == "skipped" and not registered(params, root, root / graph.paths["registration"]):
        planned[-1] = Planned(last.stage, "runs", ("its version is not in the registry",))
    return [*_own_files(status), *planned]


def _own_files(status: Mapping[str, Any]) -> list[Planned]:
    changed = sorted(name.removesuffix(".dvc") for name in status if name.endswith(".dvc"))
    return [Planned(name, "needs dvc add", ("it is not what DVC knows",)) for name in changed]


def _planned(root: Path, graph: Graph, stage: Stage, entries: Sequence[Any], before: Sequence[Planned]) -> Planned:
    working = [earlier.stage for earlier in before if earlier.action != "skipped"]
    if dvc.lock_entry(root, stage.name) is None:
        return Planned(stage.name, "runs", ("it has never run here",))
    own, outs = _reasons(entries, made_by={out: s.name for s in graph.stages for out in s.outs})
    feeding = [name for name in working if stage.name in graph.after(name)]
    if own:
        return Planned(stage.name, "runs", tuple(own + outs))
    if outs:
        return Planned(stage.name, "restored or runs", tuple(outs))
    if feeding:
        return Planned(stage.name, "runs if its input changes", (f"it comes after {', '.join(feeding)}",))
    return Planned(stage.name, "skipped", ("nothing changed",))


def _reasons(entries: Sequence[Any], made_by: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """The reasons to run that are the stage's own, and those that lie in its outputs; not inputs that a stage makes.

    DVC's entries are "changed command", or {"changed deps": {path: what, params file: {key: what}}}, or
    {"changed outs": {path: what}}.
    """
    own: list[str] = []
    outs: list[str] = []
    for entry in entries:
        if isinstance(entry, str):
            own.append(entry)
            continue
        outs += [f"{path} is {what}" for path, what in entry.get("changed outs", {}).items()]
        for path, what in entry.get("changed deps", {}).items():
            if isinstance(what, Mapping):
                own += [f"{key} in {path} is {how}" for key, how in what.items()]
            elif path not in made_by or what == "modified":
                own.append(f"{path} is {what}")
    return own, outs
