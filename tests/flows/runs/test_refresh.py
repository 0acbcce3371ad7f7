"""New rows are found and taken in: of a folder under DVC, and of a data set on a hub."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from flows.runs import dvc
from flows.runs.refresh import come_late, keep, look, stands_for, take_in
from pipelines.errors import PipelineError
from pipelines.intake.proposal import apply_changes
from pipelines.params.whole import Params, check_params, load_params
from pipelines.project.graph import read_graph
from tests.hub_server import repository, running_hub
from tests.project import ROOT, Project, make_tiny_project

pytestmark = pytest.mark.slow

FOLDER = "data/own/reviews"
GROWING = {"validation": 0.2, "test": 0.3}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A tiny project whose rows are a folder with one file, under DVC."""
    folder = tmp_path_factory.mktemp("refresh")
    keys = {"prepare.source": f"file:{FOLDER}", "prepare.growing": GROWING, "prepare.train_rows": 32}
    project = make_tiny_project(folder / "project", folder / "home", keys)
    (project.root / FOLDER).mkdir()
    shutil.move(project.root / "data/own/reviews.csv", project.root / FOLDER / "2026-01.csv")
    project.run("dvc", "add", FOLDER)
    return project


@pytest.fixture
def project(made: Project, tmp_path: Path) -> Project:
    return Project(shutil.copytree(made.root, tmp_path / "project", symlinks=True), made.env)


def params(project: Project) -> Params:
    return load_params(project.root / "params.yaml")


def test_a_file_that_came_is_put_under_dvc_and_then_there_is_nothing_new(project: Project) -> None:
    assert look(project.root, params(project)).words() == f"Nothing new in file:{FOLDER}"
    (project.root / FOLDER / "2026-02.csv").write_text("text,label\nOne more.,good\n", encoding="utf-8")
    (project.root / FOLDER / ".2026-03.csv").write_text("half", encoding="utf-8")
    with (project.root / FOLDER / "2026-01.csv").open("a", encoding="utf-8") as file:
        file.write("And one.,bad\n")
    news = look(project.root, params(project))
    assert (news.new, news.changed) == (("2026-02.csv",), ("2026-01.csv",))
    before = (project.root / f"{FOLDER}.dvc").read_text(encoding="utf-8")
    take_in(project.root, news)
    assert (project.root / f"{FOLDER}.dvc").read_text(encoding="utf-8") != before
    again = look(project.root, params(project))
    assert (again.is_any, again.untracked) == (False, None)


@pytest.mark.long
def test_rows_that_were_taken_in_and_are_gone_stop_the_run_and_come_back(project: Project) -> None:
    gone = project.root / FOLDER / "2026-01.csv"
    kept = gone.read_bytes()
    gone.rename(gone.with_name("2026-02.csv"))
    with pytest.raises(PipelineError, match=r"must not be lost.*2026-01.csv.*`dvc checkout data/own/reviews/2026-01"):
        look(project.root, params(project))
    project.run("dvc", "checkout", f"{FOLDER}/2026-01.csv")
    assert gone.read_bytes() == kept
    assert look(project.root, params(project)).new == ("2026-02.csv",)


@pytest.mark.long
def test_what_a_fresh_clone_lacks_is_fetched_and_is_nothing_new(project: Project) -> None:
    project.run("dvc", "push", f"{FOLDER}.dvc")
    shutil.rmtree(project.root / FOLDER)
    shutil.rmtree(project.root / ".dvc" / "cache")
    assert not look(project.root, params(project)).is_any
    assert (project.root / FOLDER / "2026-01.csv").is_file()


def test_the_newest_commit_of_a_data_set_is_written_into_params_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = repository("datasets", "org/rows", {"train.jsonl": b'{"text": "a", "label": "good"}\n'})
    keys = {"source": f"hub:org/rows@{'0' * 40}#train", "sha256": None, "format": "hub", "columns": None}
    text = apply_changes(ROOT / "params.yaml", {"prepare": {**keys, "growing": GROWING}})
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with running_hub(data) as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.address)
        news = look(tmp_path, load_params(path))
        assert news.commit == data.commit
        take_in(tmp_path, news)
        after = load_params(path)
        assert not look(tmp_path, after).is_any
    # But for spaces before comments, which move with the length of what stands before them.
    assert path.read_text(encoding="utf-8").split() == text.replace("0" * 40, data.commit).split()
    assert after.prepare.source == f"hub:org/rows@{data.commit}#train"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # nobody
    with pytest.raises(PipelineError, match=r"the hub must have the branch main of the data set org/rows"):
        look(tmp_path, after)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert look(tmp_path, after).words() == "Nobody looked for new rows: HF_HUB_OFFLINE is set"


def test_a_folder_in_the_folder_of_rows_is_said(tmp_path: Path) -> None:
    raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    raw["prepare"] |= {"source": f"file:{FOLDER}", "sha256": None, "growing": GROWING}
    (tmp_path / FOLDER / "more").mkdir(parents=True)
    with pytest.raises(PipelineError, match=r"must hold files alone\. Got: reviews/more, a folder"):
        look(tmp_path, check_params(raw, "params.yaml"))


def test_rows_that_would_move_others_and_sources_that_never_grow_are_refused(tmp_path: Path) -> None:
    raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    with pytest.raises(PipelineError, match="new rows are taken in of a file: or hub: source"):
        look(tmp_path, check_params(raw, "params.yaml"))
    own = {"source": f"file:{FOLDER}", "sha256": None}
    raw = {**raw, "prepare": {**raw["prepare"], **own}}
    with pytest.raises(PipelineError, match=r"must leave the others in their splits.*prepare.growing: null"):
        look(tmp_path, check_params(raw, "params.yaml"))
    with pytest.raises(PipelineError, match=r"refresh.scheduled: .*prepare.growing: null"):
        check_params({**raw, "refresh": {**raw["refresh"], "scheduled": True}}, "params.yaml")


@pytest.mark.long
def test_a_stage_is_kept_for_other_rows_and_for_nothing_else(made: Project, tmp_path: Path) -> None:
    """With DVC itself, and a stage that takes no time: afterwards `dvc repro` has nothing to do either."""
    project = Project(tmp_path, made.env)
    files = {"prepared": "rows", "code": "one"}
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "dvc.yaml").write_text(
        "stages:\n  search:\n    cmd: cp code best\n    deps: [prepared, code]\n    outs: [best]\n", encoding="utf-8"
    )
    for command in ("git init --quiet", "dvc init --quiet", "dvc repro --quiet"):
        project.run(*command.split())
    (search,) = read_graph(tmp_path).stages
    assert not stands_for(tmp_path, search, "prepared")  # it is not stale at all
    (tmp_path / "prepared").write_text("more rows", encoding="utf-8")
    assert stands_for(tmp_path, search, "prepared")
    keep(tmp_path, search)
    assert dvc.unchanged(tmp_path) == {"search"}
    (tmp_path / "prepared").write_text("still more rows", encoding="utf-8")
    (tmp_path / "code").write_text("two", encoding="utf-8")
    assert not stands_for(tmp_path, search, "prepared")


@pytest.mark.long
def test_rows_that_come_while_a_run_works_are_taken_in_if_it_has_read_them(project: Project) -> None:
    """With DVC itself, and a stage prepare that takes no time."""
    root = project.root
    (root / "dvc.yaml").write_text(
        f"stages:\n  prepare:\n    cmd: ls {FOLDER} > rows\n    deps: [{FOLDER}]\n    outs: [rows]\n", encoding="utf-8"
    )
    (prepare,) = read_graph(root).stages
    project.run("dvc", "repro", "--quiet")
    before = look(root, params(project))
    (root / FOLDER / "2026-02.csv").write_text("text,label\nOne more.,good\n", encoding="utf-8")
    project.run("dvc", "repro", "--quiet", "--single-item", "prepare")  # as a run does it, after its look
    late = come_late(root, params(project), prepare)
    assert late.new == ("2026-02.csv",)
    assert before.and_late(late).words() == f"New rows in file:{FOLDER}: 1 file new (2026-02.csv)"
    take_in(root, late)
    assert dvc.unchanged(root) == {"prepare"}
    (root / FOLDER / "2026-03.csv").write_text("text,label\nAnd one.,bad\n", encoding="utf-8")
    assert not come_late(root, params(project), prepare).is_any  # it is the next run's
    assert look(root, params(project)).new == ("2026-03.csv",)
