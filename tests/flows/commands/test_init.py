"""``reft init``: a project folder without code, and code.json that stands for the code there."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from flows.commands.init import make_project
from flows.commands.library import make_task_project
from pipelines.errors import PipelineError
from pipelines.project import code
from pipelines.project.graph import read_graph
from tests.project import ROOT, Project, environment

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


STAGE = ("stages", "search.py")


def test_a_change_of_one_stages_code_changes_its_key_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before, real = code.installed_code(), code.sha256_file
    monkeypatch.setattr(code, "sha256_file", lambda path: "0" * 64 if path.parts[-2:] == STAGE else real(path))
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
    with pytest.raises(PipelineError, match=r"other search \(cmd\)"):
        code.refresh_code(folder)


def test_a_package_without_its_files_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "SHIPPED", (folder / "site-packages",))
    with pytest.raises(PipelineError, match=r"must come with the installed package.*pip install --editable"):
        make_project(folder / "new")
    assert not (folder / "new").exists()


@pytest.mark.parametrize("name", ["full", "full/a-file"])
def test_a_folder_that_holds_something_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a-file").write_text("mine")
    with pytest.raises(PipelineError, match="empty"):
        make_project(tmp_path / name)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["a-file"]


@pytest.mark.slow
@pytest.mark.long
def test_inside_a_repository_it_makes_no_other(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    Project(tmp_path, environment(home)).run("git", "init", "--quiet")
    (tmp_path / "inner").mkdir()
    inner = Project(tmp_path / "inner", environment(home))
    inner.run("reft", "init", ".")  # the repository is above the folder that the command runs in
    assert not (tmp_path / "inner" / ".git").exists()
    assert (tmp_path / "inner" / ".dvc" / "config").is_file()
    done: subprocess.CompletedProcess[str] = inner.run("dvc", "stage", "list")
    assert [line.split()[0] for line in done.stdout.splitlines()] == STAGES


@pytest.mark.slow
def test_a_task_of_the_library_comes_with_its_keys_and_its_rows_under_dvc(tmp_path: Path) -> None:
    home, data = tmp_path / "home", tmp_path / "grade-school-math"
    home.mkdir()
    data.mkdir()
    for split in ("train", "test"):
        (data / f"{split}.jsonl").write_text(json.dumps({"question": "1 + 1?", "answer": "#### 2"}) + "\n")
    Project(tmp_path, environment(home)).run("reft", "init", "sums", "--task", "gsm8k", "--data", str(data))
    root = tmp_path / "sums"
    section = yaml.safe_load((root / "params.yaml").read_text())["prepare"]
    own = {split: f"data/own/gsm8k-{split}.jsonl" for split in ("train", "test")}
    assert (section["source"], section["validation_source"], section["test_source"]) == (
        f"file:{own['train']}", None, f"file:{own['test']}",
    )  # fmt: skip
    assert section["reader"] == {"name": "number"}
    for path in own.values():
        assert (root / path).is_file()
        assert (root / f"{path}.dvc").is_file()
    assert "domain_column: null            # a column of numbers" in (root / "params.yaml").read_text()  # comments stay


def test_a_task_that_is_not_there_makes_no_folder(tmp_path: Path) -> None:
    for name, data in (("gsm9k", str(tmp_path)), ("gsm8k", str(tmp_path)), ("gsm8k", "hub:openai/gsm8k@main")):
        with pytest.raises(PipelineError):
            make_task_project(tmp_path / "new", [name], data)
    assert list(tmp_path.iterdir()) == []


def test_several_tasks_need_a_folder_each(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "boolq").mkdir(parents=True)
    for folder in (data, data / "boolq"):
        (folder / "train.json").write_text("[]")
    wrong = [
        (["boolq", "boolq"], str(data), "each task is named once"),
        (["boolq", "piqa", "social-iqa"], str(data), "a folder for each of them"),  # the last two would share one
        (["boolq", "piqa"], "hub:google/boolq@" + "0" * 40, "a folder for each of them"),
    ]
    for names, where, said in wrong:
        with pytest.raises(PipelineError, match=said):
            make_task_project(tmp_path / "new", names, where)
    assert not (tmp_path / "new").exists()
