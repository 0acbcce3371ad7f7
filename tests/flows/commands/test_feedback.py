"""`reft feedback`: what it says, what it writes, and when it writes nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from pipelines.intake.proposal import apply_changes
from pipelines.runtime.process import BusyError, locked
from tests.project import ROOT

FOLDER = "data/own/reviews"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    keys = {"source": f"file:{FOLDER}", "sha256": None, "format": "csv", "columns": None, "quoting": True}
    text = apply_changes(ROOT / "params.yaml", {"prepare": {**keys, "growing": {"validation": 0.2, "test": 0.2}}})
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    for name in (".dvc", ".git", FOLDER):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "served.csv").write_text("id,text\n1,a good film\n2,a bad film\n3,so so\n")
    (tmp_path / "answers.csv").write_text("line,label\n2,positive\n3,positive\n4,negative\n")
    (tmp_path / "labels.csv").write_text("id,rating\n1,2\n2,-2\n9,1\n")
    return tmp_path


def feedback(project: Path, *words: str) -> str:
    files = ["labels.csv", "--served", "served.csv", "--answers", "answers.csv"]
    named = [word if word.startswith("--") else str(project / word) for word in files]
    done = CliRunner().invoke(app, ["feedback", *named, "--id", "id", "-p", str(project), *words])
    if done.exception is not None:
        raise done.exception
    return done.stdout


def test_it_says_what_was_joined_and_adds_a_file(project: Path) -> None:
    said = feedback(project, "--dry-run")
    assert said.startswith(
        "3 rows answered: 2 joined with a label, 1 unlabelled, 0 with labels that contradict each other, 0 repeated; "
        "1 label of other rows\n"
    )
    assert list((project / FOLDER).iterdir()) == []
    assert "has 2 rows. Next: reft run --refresh" in feedback(project)
    (path,) = (project / FOLDER).iterdir()
    assert path.read_text(encoding="utf-8") == "text,rating\na good film,2\na bad film,-2\n"


def test_while_a_run_works_nothing_is_written(project: Path) -> None:
    with locked(project, "run", wait_seconds=0), pytest.raises(BusyError):
        feedback(project)
    assert list((project / FOLDER).iterdir()) == []
