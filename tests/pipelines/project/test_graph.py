"""dvc.yaml as read by the flow."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.errors import PipelineError
from pipelines.project.graph import read_graph

TEXT = """
vars:
  - paths: {a: out/a, b: out/b.json}
stages:
  second:
    cmd: run second ${paths.a}
    deps: ["${paths.a}/part.txt", code]
    outs: [{"${paths.b}": {cache: false}}]
  first:
    cmd: run first
    outs: ["${paths.a}"]
  third:
    cmd: run third
    deps: ["${paths.b}"]
    metrics: [m.json]
"""


def test_paths_are_filled_in_and_stages_ordered_by_what_they_need(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").write_text(TEXT, encoding="utf-8")
    graph = read_graph(tmp_path)
    assert [stage.name for stage in graph.stages] == ["first", "second", "third"]
    assert graph.stage("second").cmd == "run second out/a"
    assert graph.stage("second").uncached == ("out/b.json",)
    assert graph.stage("third").outs == ("m.json",)
    assert graph.after("second") == ("second", "third")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stages: {a: {cmd: x, deps: [q], outs: [p]}, b: {cmd: x, deps: [p], outs: [q]}}", "circle"),
        ("stages: {a: {cmd: 'x ${nothing}'}}", "only names that its vars hold"),
        ("vars: []", "must hold stages"),
    ],
)
def test_a_broken_dvc_yaml_is_told(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "dvc.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(PipelineError, match=said):
        read_graph(tmp_path)
