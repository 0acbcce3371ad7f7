"""The command line: what it says to a newcomer, and to somebody's mistake."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app

ROOT = Path(__file__).parent.parent.parent


def reft(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments], cwd=cwd, text=True, capture_output=True, check=False
    )


def test_help_names_every_command() -> None:
    said = CliRunner().invoke(app, ["--help"]).output
    for name in ("run", "search", "setup", "schedule", "doctor", "clean"):
        assert name in said


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([], "must hold params.yaml"),
        (["params.yaml"], "must hold dvc.yaml"),
        (["params.yaml", "dvc.yaml"], "must hold .dvc"),
    ],
)
def test_a_folder_that_is_no_project_is_refused(tmp_path: Path, files: list[str], said: str) -> None:
    for file in files:
        (tmp_path / file).write_bytes((ROOT / file).read_bytes())
    done = reft("setup", "--project", str(tmp_path), cwd=ROOT)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
