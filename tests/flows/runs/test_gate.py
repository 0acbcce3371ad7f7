"""The gate's files in a project."""

from __future__ import annotations

from pathlib import Path

from flows.runs.gate import decision_file
from pipelines.project.graph import read_graph

ROOT = Path(__file__).parents[3]


def test_a_dry_run_leaves_what_was_decided() -> None:
    graph = read_graph(ROOT)
    decided, tried = (decision_file(graph, dry=dry) for dry in (False, True))
    assert str(decided) == graph.paths["gate"]
    assert (tried.parent, tried.suffix) == (decided.parent, ".json")
    assert not {tried, tried.with_suffix(".md")} & {decided, decided.with_suffix(".md")}
