"""What stops a command of ``reft``: each is one message, and no traceback."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil
import pytest
import yaml
from prefect.logging import disable_run_logger
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import cli
from flows.commands.data import inspect_file, take_in
from flows.runs import dvc, schedule
from flows.runs.cards import pages
from flows.runs.project import check_prefect
from flows.runs.tasks import warn
from flows.search import Runner, check_workers
from pipelines.errors import PipelineError
from pipelines.runtime.process import FLOW_PID, locked
from tests.project import Project, make_tiny_project
from tests.searching import make_params
from tests.tiny import write_tiny_base

NOBODY = "http://127.0.0.1:9/api"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_tiny_project(tmp_path / "project", tmp_path / "home")


def test_a_prefect_server_that_is_set_must_answer() -> None:
    with (
        temporary_settings({PREFECT_API_URL: NOBODY}),
        pytest.raises(PipelineError, match="must answer") as caught,
    ):
        check_prefect()
    assert "unset" in str(caught.value.do)


@pytest.mark.parametrize(
    ("runner", "storage", "api", "said"),
    [
        ("threads", "postgresql://host/db", NOBODY, "got: --runner threads"),
        ("dask", "sqlite:///.reft/optuna.db", NOBODY, "got: sqlite:///.reft/optuna.db"),
        ("dask", "postgresql://host/db", None, "got: no prefect_api_url"),
    ],
)
def test_workers_of_a_dask_cluster_must_be_able_to_share_a_study(
    runner: Runner, storage: str, api: str | None, said: str
) -> None:
    params = make_params({"search.storage": storage})
    with temporary_settings({PREFECT_API_URL: api}), pytest.raises(PipelineError, match="need --runner dask") as caught:
        check_workers(params, runner, "tcp://host:8786")
    assert said in str(caught.value).lower()
    check_workers(params, runner, None)


def test_run_says_so_before_anything_else(project: Project) -> None:
    done = project.run("reft", "run", check=False, PREFECT_API_URL=NOBODY)
    assert done.returncode == 2
    assert NOBODY in done.stderr
    assert "Traceback" not in done.stderr
    assert not project.markers()


def test_a_run_beside_another_is_refused_before_prefect_and_nobody_is_told_of_a_failure(project: Project) -> None:
    tell = [sys.executable, "-c", "open('told.json', 'w')"]
    project.params({"notify.command": tell})
    with locked(project.root, "run", wait_seconds=0):
        done = project.run("reft", "run", check=False, PREFECT_API_URL=NOBODY)  # which Prefect would complain of
    assert done.returncode == 2
    assert "only one run at a time" in done.stderr
    assert f"process {os.getpid()}" in done.stderr
    assert not (project.root / "told.json").exists()


def test_a_disk_that_fails_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr("sys.argv", ["reft", "init", str(tmp_path / "file" / "project")])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    said = capfd.readouterr().err
    assert caught.value.code == 1
    assert said.startswith("error: ")
    assert said.count("\n") == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_that_cannot_be_read_is_refused(project: Project, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.touch(mode=0)
    with pytest.raises(PipelineError, match="must be readable"):
        inspect_file(project.root, path, name=None, split="train")


def test_a_model_folder_takes_the_place_of_a_file(project: Project, tmp_path: Path) -> None:
    path = tmp_path / "thing"
    path.write_bytes(b"GGUF")
    take_in(project.root, inspect_file(project.root, path, name=None, split="train"), force=False)
    path.unlink()
    write_tiny_base(path)
    addition = inspect_file(project.root, path, name=None, split="train")
    take_in(project.root, addition, force=True)
    assert (project.root / addition.own / "config.json").is_file()


def test_a_deployment_without_schedules_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "prefect.yaml").write_text(yaml.safe_dump({"deployments": [{"name": "scheduled"}]}), encoding="utf-8")
    with pytest.raises(PipelineError, match="must have a schedule"):
        schedule._with_cron(tmp_path, "0 3 * * 1")


def test_dvc_in_the_way_is_named(project: Project, capfd: pytest.CaptureFixture[str]) -> None:
    path = project.root / ".dvc" / "tmp" / "rwlock"
    path.parent.mkdir(exist_ok=True)
    me = psutil.Process().pid
    path.write_text(f'{{"write": {{"{project.root}": {{"pid": {me}, "cmd": "dvc repro"}}}}, "read": {{}}}}', "utf-8")
    assert dvc.call(project.root, ["repro", "--single-item", "base"]) != 0
    assert f"(PID {me})" in capfd.readouterr().err


@pytest.mark.parametrize("former", ["", "schema: '2.0'\nstages:\n  base:\n    cmd: python\n"])
def test_half_a_dvc_lock_is_what_it_was_before(tmp_path: Path, former: str) -> None:
    lock = tmp_path / "dvc.lock"
    if former:
        lock.write_text(former, encoding="utf-8")
    dvc.repair_lock(tmp_path)
    for half in ("", "schema: '2.0'\nstages:\n  base:\n    cm"):
        lock.write_text(half, encoding="utf-8")
        dvc.repair_lock(tmp_path)
        assert (lock.read_text(encoding="utf-8") if lock.exists() else "") == former


def test_a_warning_is_seen_on_the_terminal_of_a_run_and_not_twice_in_a_workers_log(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for process, seen in ((os.getpid(), "warning: careful\n"), (1, "")):
        monkeypatch.setenv(FLOW_PID, str(process))
        with disable_run_logger():
            warn("careful")
        assert capfd.readouterr().err == seen


def test_the_pages_of_a_store() -> None:
    assert pages("sqlite:////a b/mlflow.db") == "mlflow ui --backend-store-uri 'sqlite:////a b/mlflow.db'"
    assert pages("http://127.0.0.1:5000") == "http://127.0.0.1:5000"
