"""``reft init``: a project folder without code, and code.json that stands for the code there."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from flows.init import make_project
from pipelines import code
from pipelines.errors import PipelineError
from pipelines.graph import read_graph
from tests.project import ROOT, SMALL, TINY, Project, environment, review_rows
from tests.tiny import write_tiny_base

STAGES = ["base", "prepare", "search", "train", "evaluate", "register"]


# --- the graph of a folder without code --------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "dvc.yaml").write_text(code.project_graph(), encoding="utf-8")
    return tmp_path


def test_the_graph_is_the_shipped_one_with_code_json_for_the_code(folder: Path) -> None:
    ours, shipped = read_graph(folder), read_graph(ROOT)
    assert [stage.name for stage in ours.stages] == STAGES
    assert ours.paths == shipped.paths
    for here, there in zip(ours.stages, shipped.stages, strict=True):
        assert (here.cmd, here.outs, here.params, here.uncached) == (
            there.cmd,
            there.outs,
            there.params,
            there.uncached,
        )
        assert here.deps == tuple(dep for dep in there.deps if not dep.startswith(("pipelines/", "reft")))
        assert here.deps
    raw = yaml.safe_load((folder / "dvc.yaml").read_text(encoding="utf-8"))
    assert {name: stage["params"][-1] for name, stage in raw["stages"].items()} == {
        s: {"code.json": [s]} for s in STAGES
    }


def test_code_json_is_written_once_and_again_for_other_code(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert code.refresh_code(folder)
    written = json.loads((folder / "code.json").read_text(encoding="utf-8"))
    assert sorted(written) == sorted(STAGES)
    assert not code.refresh_code(folder)
    monkeypatch.setattr(code, "sha256_file", lambda path: "0" * 64 if path.name == "train.py" else "1" * 64)
    assert code.refresh_code(folder)


def test_a_change_of_one_stages_code_changes_its_key_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before, real = code.installed_code(), code.sha256_file
    monkeypatch.setattr(code, "sha256_file", lambda path: "0" * 64 if path.name == "search.py" else real(path))
    after = code.installed_code()
    assert {stage for stage in STAGES if before[stage] != after[stage]} == {"search"}


def test_a_stage_of_other_code_than_installed_is_refused(folder: Path) -> None:
    with pytest.raises(PipelineError, match="reft setup"):
        code.check_code(folder, "train")  # no code.json yet
    code.refresh_code(folder)
    code.check_code(folder, "train")
    recorded = json.loads((folder / "code.json").read_text(encoding="utf-8"))
    (folder / "code.json").write_text(json.dumps(recorded | {"train": "0" * 64}), encoding="utf-8")
    code.check_code(folder, "search")
    with pytest.raises(PipelineError, match="must name the installed code"):
        code.check_code(folder, "train")


def test_a_folder_with_the_code_needs_no_code_json() -> None:
    assert not code.refresh_code(ROOT)
    code.check_code(ROOT, "train")
    assert not (ROOT / "code.json").exists()


def test_a_package_with_other_stages_is_told(folder: Path) -> None:
    text = (folder / "dvc.yaml").read_text(encoding="utf-8")
    (folder / "dvc.yaml").write_text(
        text.replace("--metrics ${paths.search_metrics}", "--other ${paths.search_metrics}")
    )
    with pytest.raises(PipelineError, match="another search"):
        code.refresh_code(folder)


def test_a_package_without_its_files_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "PACKAGE", folder / "site-packages")
    with pytest.raises(PipelineError, match="pip install --editable"):
        make_project(folder / "new")
    assert not (folder / "new").exists()


@pytest.mark.parametrize("name", ["full", "full/a-file"])
def test_a_folder_that_holds_something_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a-file").write_text("mine")
    with pytest.raises(PipelineError, match="empty"):
        make_project(tmp_path / name)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["a-file"]


# --- a real one --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    (home / "gitconfig").write_text("[user]\n\tname = Test\n\temail = test@example.org\n", encoding="utf-8")
    return home


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Project:
    """A project by `reft init` and `reft data add`, made smaller."""
    parent = tmp_path_factory.mktemp("parent")
    Project(parent, environment(home)).run("reft", "init", "project")
    project = Project(parent / "project", environment(home))
    project.run("reft", "data", "add", str(write_tiny_base(parent / "tiny")), "--yes")
    project.run("reft", "data", "add", str(_rows(parent)), "--yes")
    small = SMALL | {key: TINY[key] for key in ("search.space.learning_rate", "search.enqueue", "run.threads")}
    project.params(small | {"prepare.max_tokens": 200})
    project.run("git", "add", "--all")
    project.run("git", "commit", "--quiet", "--message", "A project")
    return project


def _rows(folder: Path) -> Path:
    """Rows of the user's own: boolq when it is at hand, else a small CSV."""
    bench = os.environ.get("REFT_BENCH_DATA")
    if bench:
        rows = json.loads((Path(bench) / "boolq" / "train.json").read_text(encoding="utf-8"))
        (folder / "boolq.json").write_text(json.dumps(rows[:300]), encoding="utf-8")
        return folder / "boolq.json"
    with (folder / "rows.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *review_rows()])
    return folder / "rows.csv"


@pytest.mark.slow
def test_the_pipeline_runs_in_it(made: Project) -> None:
    said = made.run("reft", "run").stdout
    assert said.count(" ran ") == len(STAGES)
    assert "version 1" in said
    assert not (made.root / "pipelines").exists()
    before = made.markers()
    made.run("dvc", "repro")
    assert made.ran_since(before) == set()
    changed = made.run("git", "status", "--short").stdout
    assert {line[3:] for line in changed.splitlines()} == {"dvc.lock", "metrics/"}


@pytest.mark.slow
def test_other_code_is_stale_there_and_refused_until_code_json_is_fresh(made: Project) -> None:
    path = made.root / "code.json"
    written = path.read_text(encoding="utf-8")
    path.write_text(json.dumps(json.loads(written) | {"evaluate": "0" * 64}), encoding="utf-8")
    assert "evaluate" in made.run("dvc", "status").stdout
    done = made.run("dvc", "repro", "evaluate", check=False)
    assert done.returncode != 0
    assert "Run `reft setup`" in done.stderr
    made.run("reft", "setup")
    assert path.read_text(encoding="utf-8") == written
    made.run("dvc", "checkout", "evaluate")
    before = made.markers()
    made.run("dvc", "repro", "evaluate")
    assert made.ran_since(before) == set()


def _without_network(*command: str) -> list[str]:
    """A command in a network of its own that has the loopback alone, which Prefect's own server needs."""
    return ["unshare", "--net", "--map-root-user", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *command]


def _can_cut() -> bool:
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return False
    return subprocess.run(_without_network("true"), capture_output=True, check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not _can_cut(), reason="this machine lets nobody cut the network of a process")
def test_after_a_first_run_it_works_with_the_network_cut(made: Project) -> None:
    before = made.markers()
    made.params({"seed": 43})
    made.run(*_without_network(*made.command("reft", "run")))
    assert made.ran_since(before) == {"prepare", "search", "train", "evaluate", "register"}


@pytest.mark.slow
def test_inside_a_repository_it_makes_no_other(tmp_path: Path, home: Path) -> None:
    outer = Project(tmp_path, environment(home))
    outer.run("git", "init", "--quiet")
    outer.run("reft", "init", "inner")
    assert not (tmp_path / "inner" / ".git").exists()
    assert (tmp_path / "inner" / ".dvc" / "config").is_file()
    done: subprocess.CompletedProcess[str] = Project(tmp_path / "inner", outer.env).run("dvc", "stage", "list")
    assert [line.split()[0] for line in done.stdout.splitlines()] == STAGES
