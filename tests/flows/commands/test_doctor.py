"""What `reft doctor` finds, what a plan says, and that free space is looked at before work."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from flows.commands.doctor import _base, _repository, examine
from flows.commands.plan import Planned, plan
from flows.runs import dvc
from pipelines import files
from pipelines.bases.space import base_bytes, check_base_space
from pipelines.bases.store import obtain
from pipelines.errors import PipelineError
from pipelines.params.whole import load_params
from pipelines.project.code import project_graph
from pipelines.runtime.disk import PROJECT_BYTES, check_project_space
from pipelines.sources.addresses import parse_source
from pipelines.upkeep import checkup
from pipelines.upkeep.checkup import Finding, check_installation, check_places
from tests.project import ROOT, Project, make_tiny_project
from tests.tiny import write_tiny_base

Usage = namedtuple("Usage", "total used free")


def by_check(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings}


def full_disk(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _path: Usage(10**12, 10**12 - free, free))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("doctor")
    return make_tiny_project(folder / "project", folder / "home")


def test_a_sound_project_has_nothing_to_mend(project: Project) -> None:
    findings = by_check(examine(project.root))
    assert {"python", "packages", "disk: project", "memory", "threads", "device", "tracking store"} <= set(findings)
    assert not [f for f in findings.values() if f.level == "fail" and f.check != "packages"]
    assert findings["base"].level == "warn"  # no run yet
    assert findings["DVC remote"].found == "answers"


@pytest.mark.parametrize("text", ["stages: [", "stages: {base: null}", "stages: {}", "stages: {a: {cmd: x, deps: 3}}"])
def test_a_broken_dvc_yaml_is_a_finding(tmp_path: Path, text: str) -> None:
    (tmp_path / "dvc.yaml").write_text(text, encoding="utf-8")
    base, [finding] = _base(tmp_path)
    assert (base, finding.check, finding.level) == (None, "dvc.yaml", "fail")
    assert "git checkout HEAD dvc.yaml" in finding.do


def test_a_broken_dvc_yaml_is_not_the_end(project: Project, tmp_path: Path) -> None:
    shutil.copytree(project.root, tmp_path / "broken", symlinks=True)
    (tmp_path / "broken" / "dvc.yaml").write_text("stages: [", encoding="utf-8")
    findings = by_check(examine(tmp_path / "broken"))
    assert findings["dvc.yaml"].level == "fail"
    assert findings["params.yaml"].level == "ok"
    assert "memory" in findings


def test_a_finding_says_what_to_do(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    full_disk(monkeypatch, 1_000_000)
    text = (project.root / "params.yaml").read_text(encoding="utf-8")
    (project.root / "params.yaml").write_text(text.replace("threads: 1", "threads: 4096"), encoding="utf-8")
    try:
        findings = by_check(examine(project.root))
    finally:
        (project.root / "params.yaml").write_text(text, encoding="utf-8")
    assert findings["disk: project"].level == "fail"
    assert findings["threads"].level == "warn"
    assert all(finding.do for finding in findings.values() if finding.level != "ok")


@pytest.mark.long
def test_the_server_that_is_set_must_answer(project: Project) -> None:
    done = project.run("reft", "doctor", check=False, PREFECT_API_URL="http://127.0.0.1:9/api")
    assert done.returncode == 1
    assert "prefect server start" in " ".join(done.stdout.split())
    assert "Traceback" not in done.stderr


def test_broken_params_are_a_finding_and_not_the_end(project: Project, tmp_path: Path) -> None:
    shutil.copytree(project.root, tmp_path / "broken", symlinks=True)
    (tmp_path / "broken" / "params.yaml").write_text("seed: none\n", encoding="utf-8")
    findings = by_check(examine(tmp_path / "broken"))
    assert findings["params.yaml"].level == "fail"
    assert "memory" in findings


def test_half_a_note_of_a_killed_dvc_is_in_nobodys_way(project: Project) -> None:
    path = project.root / ".dvc" / "tmp" / "rwlock"
    path.write_text("", encoding="utf-8")
    assert [f.level for f in _repository(project.root) if f.check == "DVC"] == ["warn"]
    dvc.repair_lock(project.root)
    assert not path.exists()


def test_a_merge_conflict_in_dvc_lock_is_told_and_kept(project: Project) -> None:
    lock = project.root / "dvc.lock"
    dvc.repair_lock(project.root)
    lock.write_text("<<<<<<< HEAD\nschema: '2.0'\n=======\n>>>>>>> other\n", encoding="utf-8")
    kept = lock.read_bytes()
    try:
        dvc.repair_lock(project.root)
        assert lock.read_bytes() == kept
        with pytest.raises(PipelineError, match=r"dvc\.lock must be readable") as caught:
            plan(project.root)
        assert "git checkout HEAD dvc.lock" in str(caught.value)
        assert [f.level for f in _repository(project.root) if f.check == "dvc.lock"] == ["fail"]
    finally:
        lock.unlink()


def test_a_password_is_not_shown(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    params = load_params(project.root / "params.yaml")
    tracking = params.tracking.model_copy(update={"uri": "postgresql://me:secret@127.0.0.1:9/db"})
    monkeypatch.setattr(checkup, "check_store", lambda *_: None)  # it answers
    shown = by_check(check_places(params.model_copy(update={"tracking": tracking}), project.root))["tracking store"]
    assert (shown.level, shown.found) == ("ok", "postgresql://127.0.0.1:9/db")


def test_another_version_than_in_constraints_is_said(tmp_path: Path) -> None:
    (tmp_path / "constraints.txt").write_text("pytest==0.0.1\nno-such-package==1\n", encoding="utf-8")
    finding = by_check(check_installation(tmp_path))["versions"]
    assert finding.level == "warn"
    assert "pytest" in finding.found
    assert "no-such-package" not in finding.found


def test_before_its_first_run_every_stage_runs(project: Project) -> None:
    planned = plan(project.root)
    assert [one.stage for one in planned] == ["base", "prepare", "search", "train", "evaluate", "register"]
    assert {one.action for one in planned} == {"runs"}
    assert planned[0].why == ("it has never run here",)


def test_own_data_that_dvc_does_not_know_is_named(project: Project) -> None:
    data = project.root / "data" / "own" / "reviews.csv"
    kept = data.read_bytes()
    data.write_bytes(kept + b"One more.,good\n")
    try:
        assert Planned("data/own/reviews.csv", "needs dvc add", ("it is not what DVC knows",)) in plan(project.root)
    finally:
        data.write_bytes(kept)


def test_a_full_disk_is_told_before_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full_disk(monkeypatch, PROJECT_BYTES - 1)
    with pytest.raises(PipelineError, match="needs 500 MB of free disk space") as caught:
        check_project_space(tmp_path / "not" / "there" / "yet")
    assert str(tmp_path) in str(caught.value)
    assert "500 MB" in str(caught.value.got)


def test_a_base_that_does_not_fit_is_not_begun(
    tmp_path: Path, reft_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_base(tmp_path / "models" / "own" / "tiny")
    full_disk(monkeypatch, 1000)
    with pytest.raises(PipelineError, match="free disk space") as caught:
        obtain("file:models/own/tiny", None, "float32", root=tmp_path)
    assert "REFT_HOME" in str(caught.value)
    assert not list((reft_home / "bases").glob("*.tmp-*"))


def test_the_room_that_a_base_takes_is_known_from_its_source(tmp_path: Path, reft_home: Path) -> None:
    folder = tmp_path / "models" / "own" / "weights"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"0" * 1000)
    assert base_bytes(parse_source("file:models/own/weights"), None, root=tmp_path) == 2000
    params = load_params(ROOT / "params.yaml")
    source = parse_source(params.base.source)
    assert base_bytes(source, params.base.sha256, root=tmp_path) == 2_000_000_000
    fetched = reft_home / "downloads" / str(params.base.sha256) / source.filename  # type: ignore[union-attr]
    fetched.parent.mkdir(parents=True)
    fetched.write_bytes(b"0" * 1000)
    assert base_bytes(source, params.base.sha256, root=tmp_path) == 8000
    check_base_space(params.base.source, params.base.sha256, root=tmp_path)


def test_a_graph_of_another_release_is_found(tmp_path: Path) -> None:
    graph = project_graph().replace("      - method\n", "", 1)  # as before method.name was a param of the search
    (tmp_path / "dvc.yaml").write_text(graph, encoding="utf-8")
    (finding,) = _base(tmp_path)[1]
    assert (finding.check, finding.level, finding.do) == ("dvc.yaml", "fail", "Run: reft upgrade")
    assert "search (params)" in finding.found
