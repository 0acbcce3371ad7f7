"""Runs are found again and never doubled, and a stage outlives its tracking store."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from pipelines.errors import PipelineError
from pipelines.params.whole import Params, check_params
from pipelines.tracking.live import live_run
from pipelines.tracking.runs import (
    INPUT_HASH,
    PARENT,
    STAGE,
    Store,
    check_store,
    child_tags,
    ensure_run,
    find_run,
    open_store,
)
from pipelines.tracking.store import check_trials, public_uri, store_uri

PROJECT = Path(__file__).parents[3]
CLOSED_PORT = "http://127.0.0.1:9"  # the discard service: nobody listens there


def make_params(uri: str = "sqlite:///mlflow/mlflow.db") -> Params:
    raw = yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
    raw["tracking"]["uri"] = uri
    return check_params(raw, "params.yaml")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("project")


@pytest.fixture(scope="module")
def store(root: Path) -> Iterator[Store]:
    return open_store(make_params().tracking, root)


def status_of(store: Store, run_id: str) -> str:
    return str(store.client.get_run(run_id).info.status)


def runs_with(store: Store, key: str) -> list[str]:
    found = store.client.search_runs([store.experiment_id], filter_string=f"tags.`{INPUT_HASH}` = '{key}'")
    return [run.info.run_id for run in found]


@pytest.mark.parametrize("name", ['of two\'s "own"', "a:b :c", "back\\slash", "50%25 #1", "Übung 微调"])
def test_a_folder_of_any_name_holds_a_store(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / name
    root.mkdir()
    monkeypatch.chdir(root)  # as a stage works; MLflow's own experiment is to lie there
    store = open_store(make_params().tracking, root)
    run = ensure_run(store, "a run", {STAGE: "train"})
    (tmp_path / "note.txt").write_text("kept", encoding="utf-8")
    store.client.log_artifact(run.id, str(tmp_path / "note.txt"))
    assert Path(store.client.download_artifacts(run.id, "note.txt")).read_text(encoding="utf-8") == "kept"
    assert store.client.get_experiment("0").artifact_location == f"{(root / 'mlruns').as_uri()}/0"


def test_a_relative_sqlite_store_lies_under_the_project(root: Path, store: Store) -> None:
    assert store_uri(make_params().tracking, root) == f"sqlite:///{root.resolve()}/mlflow/mlflow.db"
    assert (root / "mlflow" / "mlflow.db").is_file()
    experiment = store.client.get_experiment(store.experiment_id)
    assert experiment.artifact_location == (root.resolve() / "mlflow" / "artifacts").as_uri()


@pytest.mark.parametrize(
    ("uri", "public"),
    [
        ("postgresql://me:secret@host:5432/db?password=secret", "postgresql://host:5432/db"),
        ("https://me:secret@host/path", "https://host/path"),
        ("sqlite:///mlflow/mlflow.db", "sqlite:///mlflow/mlflow.db"),
    ],
)
def test_an_address_is_shown_without_credentials(uri: str, public: str) -> None:
    assert public_uri(uri) == public


@pytest.mark.parametrize("uri", [CLOSED_PORT, "postgresql://me@127.0.0.1:9/db"])
def test_a_store_that_does_not_answer_is_an_error_within_seconds(uri: str, tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(PipelineError, match=r"tracking store must answer.*tracking\.uri") as caught:
        check_store(make_params(uri).tracking, tmp_path)
    assert time.monotonic() - started < 10
    assert "me@" not in str(caught.value)


def test_a_file_that_is_no_database_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "mlflow" / "mlflow.db").write_text("not a database, but long enough to look into it" * 20)
    with pytest.raises(PipelineError, match="tracking store must answer"):
        check_store(make_params().tracking, tmp_path)


def test_a_finished_stage_leaves_a_finished_run_with_what_it_logged(root: Path, store: Store) -> None:
    with live_run(make_params().tracking, root, "train", "key-finished", "train") as run:
        run.log_params({"rank": 4})
        run.log_metrics({"loss": 0.5, "learning_rate": 0.1}, step=3)
    (found,) = runs_with(store, "key-finished")
    data = store.client.get_run(found).data
    assert (status_of(store, found), data.params, data.tags[STAGE]) == ("FINISHED", {"rank": "4"}, "train")
    assert [(m.step, m.value) for m in store.client.get_metric_history(found, "loss")] == [(3, 0.5)]


@pytest.mark.parametrize(("error", "status"), [(RuntimeError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_a_stage_that_ends_badly_says_so_and_its_run_is_used_again(
    root: Path, store: Store, error: type[BaseException], status: str
) -> None:
    key = f"key-{status}"
    with pytest.raises(error), live_run(make_params().tracking, root, "train", key, "train"):
        raise error
    (found,) = runs_with(store, key)
    assert status_of(store, found) == status
    with live_run(make_params().tracking, root, "train", key, "train") as run:
        run.log_params({"rank": 4})
    assert (runs_with(store, key), status_of(store, found)) == ([found], "FINISHED")


def test_a_killed_stage_has_its_run_used_again(root: Path, store: Store) -> None:
    script = (
        "import sys, time; from pathlib import Path; sys.path.insert(0, sys.argv[2])\n"
        "from tests.pipelines.tracking.test_tracking import make_params; from pipelines.tracking.live import live_run\n"
        "with live_run(make_params().tracking, Path(sys.argv[1]), 'train', 'key-killed', 'train') as run:\n"
        "    run.log_metric('loss', 1.0, step=1); print('running', flush=True); time.sleep(60)\n"
    )
    command = [sys.executable, "-c", script, str(root), str(PROJECT)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=PROJECT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        os.kill(process.pid, signal.SIGKILL)
    (killed,) = runs_with(store, "key-killed")
    assert status_of(store, killed) == "RUNNING"
    with live_run(make_params().tracking, root, "train", "key-killed", "train") as run:
        run.log_metric("loss", 0.5, step=2)
    assert (runs_with(store, "key-killed"), status_of(store, killed)) == ([killed], "FINISHED")


def test_trials_are_nested_and_found_again(root: Path, store: Store) -> None:
    class PrunedError(Exception):
        pass

    for _ in range(2):
        with live_run(make_params().tracking, root, "search", "key-search", "search") as run:
            with run.child("trial-0") as trial:
                trial.log_metric("value", 0.9)
            with pytest.raises(PrunedError), run.child("trial-1", stopped_by=(PrunedError,)):
                raise PrunedError
    (parent,) = runs_with(store, "key-search")
    nested = store.client.search_runs([store.experiment_id], filter_string=f"tags.`{PARENT}` = '{parent}'")
    assert sorted((run.info.run_name, run.info.status) for run in nested) == [
        ("trial-0", "FINISHED"),
        ("trial-1", "KILLED"),
    ]


def test_without_a_store_the_stage_goes_on_and_says_so_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.WARNING),
        live_run(make_params(CLOSED_PORT).tracking, tmp_path, "search", "k", "s") as run,
    ):
        run.log_params({"rank": 4})
        with run.child("trial-0") as trial:
            trial.log_metric("value", 0.9)
    assert len([r for r in caplog.records if r.name == "pipelines.tracking.live"]) == 1


def test_a_store_that_goes_away_stops_the_logging_not_the_stage(
    root: Path, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    calls = []

    def broken(*args: object, **kwargs: object) -> None:
        calls.append(args)
        raise MlflowException("the server is gone")

    with caplog.at_level(logging.WARNING), live_run(make_params().tracking, root, "train", "key-gone", "train") as run:
        monkeypatch.setattr(MlflowClient, "log_batch", broken)
        for step in range(3):
            run.log_metric("loss", 1.0, step=step)
    assert len(calls) == 1
    assert len([r for r in caplog.records if "the server is gone" in r.message]) == 1


def test_a_mistake_of_the_stage_is_not_swallowed(root: Path, store: Store) -> None:
    with pytest.raises(ZeroDivisionError), live_run(make_params().tracking, root, "train", "key-mistake", "train"):
        1 / 0  # noqa: B018


def test_parameters_stay_as_first_logged(store: Store) -> None:
    run = ensure_run(store, "train", {INPUT_HASH: "key-params"})
    run.log_params({"rank": 4})
    run.log_params({"rank": 8, "layers": "all"})
    assert store.client.get_run(run.id).data.params == {"rank": "4", "layers": "all"}


def test_only_missing_points_are_added(store: Store) -> None:
    run = ensure_run(store, "train", {INPUT_HASH: "key-points"})
    curve = [("loss", step, 1.0 / (step + 1)) for step in range(1500)]  # more than MLflow takes at once
    run.log_curve(curve[:700])
    run.add_missing(curve)
    run.add_missing(curve)
    history = store.client.get_metric_history(run.id, "loss")
    assert sorted((m.step, m.value) for m in history) == [(step, value) for _, step, value in curve]


def test_a_data_set_has_our_digest_and_stands_once(store: Store) -> None:
    run = ensure_run(store, "train", {INPUT_HASH: "key-data"})
    for _ in range(2):
        run.log_dataset(name="prepared", sha256="ab" * 32, source="pypi:x", profile=json.dumps({"rows": 3}))
    (found,) = store.client.get_run(run.id).inputs.dataset_inputs
    assert found.dataset.digest == "ab" * 16


def test_a_run_is_found_by_all_its_tags(store: Store) -> None:
    parent = ensure_run(store, "search", {INPUT_HASH: "key-tags"})
    child = ensure_run(store, "trial-1", child_tags(parent, "trial-1"))
    assert find_run(store, child_tags(parent, "trial-1")) == child
    assert find_run(store, child_tags(parent, "trial-2")) is None


def test_a_deleted_experiment_is_an_error_that_says_how_to_restore_it(root: Path, store: Store) -> None:
    store.client.delete_experiment(store.experiment_id)
    try:
        with pytest.raises(PipelineError, match="mlflow experiments restore"):
            open_store(make_params().tracking, root)
    finally:
        store.client.restore_experiment(store.experiment_id)


STORAGE = "sqlite:///.reft/optuna.db"


def make_database(path: Path) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("create table trials (value text)")
        database.executemany("insert into trials values (?)", [("x" * 500,)] * 100)
        database.commit()
    return path.read_bytes()


@pytest.mark.parametrize("damage", ["cut", "zeroed inside", "garbage"])
def test_a_damaged_database_of_trials_is_set_aside(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / ".reft" / "optuna.db"
    sound = make_database(path)
    check_trials(STORAGE, tmp_path)
    assert path.read_bytes() == sound
    assert not caplog.text
    damaged = {
        "cut": sound[: len(sound) // 2],
        "zeroed inside": sound[:8192] + bytes(4096) + sound[12288:],
        "garbage": b"garbage" * 1000,
    }[damage]
    path.write_bytes(damaged)
    check_trials(STORAGE, tmp_path)
    left = {file.name: file.read_bytes() for file in path.parent.iterdir() if not file.name.endswith(".lock")}
    assert left == {"optuna.db.damaged": damaged}
    assert "optuna.db is damaged and is set aside" in caplog.text


def test_a_damaged_database_elsewhere_is_refused_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "elsewhere.db"
    path.write_bytes(b"garbage" * 1000)
    with pytest.raises(PipelineError, match=r"search\.storage must answer.*not a database"):
        check_trials(f"sqlite:///{path}", tmp_path / "project")
    assert path.read_bytes() == b"garbage" * 1000


def test_a_database_that_another_process_writes_to_is_not_damaged(tmp_path: Path) -> None:
    path = tmp_path / ".reft" / "optuna.db"
    sound = make_database(path)
    with contextlib.closing(sqlite3.connect(path)) as writer:
        writer.execute("begin immediate")
        writer.execute("delete from trials")
        check_trials(STORAGE, tmp_path)
    assert path.read_bytes() == sound
