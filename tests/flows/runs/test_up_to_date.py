"""A run that has nothing to do: what it takes for one."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.runs.up_to_date import run_without_work
from pipelines.params.whole import load_params
from tests.project import make_tiny_project

pytestmark = pytest.mark.slow


def test_a_project_with_a_stage_to_run_is_not_up_to_date(tmp_path: Path) -> None:
    """One that has nothing to do is in tests/test_pipeline.py."""
    project = make_tiny_project(tmp_path / "project", tmp_path / "home")
    assert run_without_work(project.root, load_params(project.root / "params.yaml")) is None
