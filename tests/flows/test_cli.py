"""The command line: what it says to a newcomer, and to somebody's mistake."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.commands import doctor
from flows.runs.project import check_ready
from pipelines.errors import PipelineError
from pipelines.project.code import project_graph
from pipelines.project.lineage import package_version
from pipelines.upkeep.checkup import Finding

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


def test_the_version_is_that_of_the_installed_package() -> None:
    done = CliRunner().invoke(app, ["--version"])
    assert (done.exit_code, done.output) == (0, f"reft-pipeline {package_version('reft-pipeline')}\n")


def test_no_run_begins_in_a_folder_with_the_graph_of_another_release(tmp_path: Path) -> None:
    """Before method.name was a param of the search, another method was followed by `nothing changed`."""
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    graph = project_graph()
    assert "      - method\n" in graph
    (tmp_path / "dvc.yaml").write_text(graph.replace("      - method\n", "", 1), encoding="utf-8")
    with pytest.raises(PipelineError, match=r"other search \(params\).*Run: reft upgrade"):
        check_ready(tmp_path)
    (tmp_path / "dvc.yaml").write_text(graph, encoding="utf-8")
    assert check_ready(tmp_path).method.name == "reft"


def test_no_run_begins_with_a_graph_that_was_cut_where_it_is_still_yaml(tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    graph = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    (tmp_path / "dvc.yaml").write_text(graph.partition("  evaluate:\n")[0], encoding="utf-8")
    with pytest.raises(PipelineError, match=r"every stage.*none called evaluate, register.*git checkout"):
        check_ready(tmp_path)
    (tmp_path / "dvc.yaml").write_text(graph, encoding="utf-8")
    assert check_ready(tmp_path).method.name == "reft"


def test_what_doctor_says_to_do_stands_on_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    do = f"Correct it, or: git -C {tmp_path} checkout HEAD dvc.yaml"
    monkeypatch.setattr(doctor, "examine", lambda _root: [Finding("git", "ok", "knows"), Finding("a", "fail", "b", do)])
    done = CliRunner().invoke(app, ["doctor"], env={"COLUMNS": "40"})
    assert done.exit_code == 1
    assert f"  a: {do}" in done.output.splitlines()
