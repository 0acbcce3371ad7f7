"""The main flow: prepare, search, train, evaluate, register, push; each stage as DVC decides."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import flow

from flows import dvc
from flows.tasks import StageRun, bring_up_to_date, push, show
from pipelines.graph import Graph, read_graph
from pipelines.params import load_params
from pipelines.process import locked
from pipelines.register import registered
from pipelines.tracking import check_store


@dataclass(frozen=True)
class FlowResult:
    """What became of each stage, and whether data and adapter were pushed to a remote."""

    root: Path
    graph: Graph
    runs: list[StageRun]
    pushed: bool

    def read(self, name: str) -> Any:
        """The JSON file that dvc.yaml calls ``name``."""
        return json.loads((self.root / self.graph.paths[name]).read_text(encoding="utf-8"))


@flow(name="finetune", validate_parameters=False)
def finetune(project: str = ".") -> FlowResult:
    """Bring every stage up to date in the order of dvc.yaml, show the outcome as artifacts, push data and adapter."""
    root = Path(project).resolve()
    dvc.check_project(root)
    params = load_params(root / "params.yaml")
    with locked(root, "run", wait_seconds=params.run.wait_seconds):
        check_store(params, root)
        graph = read_graph(root)
        runs = [bring_up_to_date(root, stage) for stage in graph.stages]
        if not registered(params, root, root / graph.paths["registration"]):
            runs[-1] = bring_up_to_date(root, graph.stage("register"), force=True)
        show(root, graph)
        return FlowResult(root, graph, runs, pushed=push(root))
