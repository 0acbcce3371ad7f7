"""`reft serve`: what it refuses before anything is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from pipelines.errors import PipelineError
from tests.pipelines.finished import PROJECT


def run(root: Path, *words: str) -> str:
    result = CliRunner().invoke(app, ["serve", "--project", str(root), *words])
    assert isinstance(result.exception, PipelineError), result.output
    return str(result.exception)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    text = (PROJECT / "params.yaml").read_text(encoding="utf-8")
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    return tmp_path


def test_a_server_that_others_reach_needs_a_token(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REFT_SERVE_TOKEN", raising=False)
    assert "got: --host 0.0.0.0, and no REFT_SERVE_TOKEN" in run(root, "--host", "0.0.0.0").replace("Got", "got")


@pytest.mark.parametrize("alias", ["base", "3"])
def test_an_alias_has_no_name_that_means_something_else(root: Path, alias: str) -> None:
    assert "another name than base and than a version's number" in run(root, "--alias", alias)
