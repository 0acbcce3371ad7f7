"""`reft clean` removes what nothing refers to, that alone, and only when told to."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from pipelines.runtime.process import locked
from tests.project import Project, make_tiny_project

pytestmark = pytest.mark.long  # of two whole runs, whatever is asked of them


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project after a run, another seed's run, and an adopted commit."""
    folder = tmp_path_factory.mktemp("clean")
    project = make_tiny_project(folder / "project", folder / "home", {"search.trials": 1})
    project.run("dvc", "repro", "train")  # its study is in no registered version
    project.params({"seed": 7})
    project.run("dvc", "repro")
    project.run("git", "add", "--all")
    project.run("git", "commit", "--quiet", "--message", "Another seed")
    return project


@pytest.fixture(autouse=True)
def home(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The project's own store of bases, also for what runs in this process."""
    monkeypatch.setenv("REFT_HOME", project.env["REFT_HOME"])


def clean(project: Project, *words: str) -> str:
    """What ``reft clean`` prints, run in this process: a new one takes seconds to import what it needs."""
    done = CliRunner().invoke(app, ["clean", "--project", str(project.root), *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def content(project: Project) -> set[str]:
    """Every file of the project and of its stores."""
    folders = (project.root / ".reft", project.root / ".dvc" / "cache", Path(project.env["REFT_HOME"]))
    return {str(path) for folder in folders for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"}


def checkpoints(project: Project) -> set[str]:
    return {path.name for path in (project.root / ".reft" / "train").iterdir()}


def studies(project: Project) -> set[str]:
    script = (
        "import optuna\n"
        "print('STUDIES', *optuna.get_all_study_names(optuna.storages.RDBStorage('sqlite:///.reft/optuna.db')))\n"
    )
    said = project.run("python", "-c", script).stdout
    return set(next(line for line in said.splitlines() if line.startswith("STUDIES")).split()[1:])


def test_it_shows_and_removes_nothing_by_itself(project: Project) -> None:
    before = content(project)
    said = project.run("reft", "clean").stdout
    assert "Nothing was removed" in said
    assert "checkpoints" in said
    assert "study" in said
    assert content(project) == before


def test_it_waits_for_no_run_and_disturbs_none(project: Project) -> None:
    before = content(project)
    with locked(project.root, "run", wait_seconds=0):
        done = project.run("reft", "clean", "--yes", check=False)
    assert done.returncode == 2
    assert "only one run at a time" in done.stderr
    assert content(project) - before == set()


def test_it_removes_what_belongs_to_other_inputs(project: Project) -> None:
    assert len(studies(project)) == len(checkpoints(project)) == 2
    markers = project.markers()
    assert "Freed" in clean(project, "--yes")
    assert len(studies(project)) == len(checkpoints(project)) == 1
    project.run("dvc", "repro")
    assert project.ran_since(markers) == set()
    before = content(project)
    clean(project, "--yes")
    assert content(project) == before


def test_what_was_committed_still_comes_back(project: Project) -> None:
    markers = project.markers()
    for name in ("models/adapter", "search", "data/prepared"):
        shutil.rmtree(project.root / name)
    project.run("dvc", "checkout")
    project.run("dvc", "repro")
    assert project.ran_since(markers) == set()


def test_a_cache_that_others_may_use_stays(project: Project, tmp_path: Path) -> None:
    theirs = tmp_path / "files" / "md5" / "aa" / ("b" * 30)
    theirs.parent.mkdir(parents=True)
    theirs.write_text("of another project", encoding="utf-8")
    config = project.root / ".dvc" / "config.local"
    kept = config.read_text(encoding="utf-8")
    config.write_text(f"{kept}[cache]\n    dir = {tmp_path}\n", encoding="utf-8")
    try:
        assert "other projects may use it" in project.run("reft", "clean", "--yes").stdout
    finally:
        config.write_text(kept, encoding="utf-8")
    assert theirs.is_file()


def test_bases_go_only_when_asked_for_and_never_one_that_is_used(project: Project) -> None:
    bases = Path(project.env["REFT_HOME"]) / "bases"
    used = {path.name for path in bases.iterdir() if path.is_dir() and len(path.name) == 64}
    other = bases / ("0" * 64)
    other.mkdir()
    (other / "model.safetensors").write_bytes(b"0" * 1000)
    clean(project, "--yes")
    assert other.is_dir()
    assert "0" * 64 in "".join(project.run("reft", "clean", "--bases", COLUMNS="400").stdout.split())
    clean(project, "--bases", "--yes")
    assert not other.exists()
    assert {path.name for path in bases.iterdir() if path.is_dir() and len(path.name) == 64} == used
