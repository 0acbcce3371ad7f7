"""One adapter is one version, however often it is registered; aliases move by rule only."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities.model_registry import ModelVersion
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.validation import _validate_metric_name

from pipelines.contracts.facts import StageFiles
from pipelines.contracts.identities import Seen, read_seen
from pipelines.contracts.registration import Registration
from pipelines.contracts.training import read_training
from pipelines.errors import PipelineError
from pipelines.files import read_json, write_json
from pipelines.params.whole import Params
from pipelines.project.lineage import git_state
from pipelines.registry import package
from pipelines.registry.aliases import CHALLENGER, CHAMPION, alias_version
from pipelines.registry.download import fetch_version
from pipelines.registry.history import metric_label
from pipelines.registry.lock import registry_lock
from pipelines.registry.stored import holds, model_id
from pipelines.registry.versions import registered
from pipelines.runtime.process import BusyError
from pipelines.stages import register
from pipelines.tracking.live import live_run
from pipelines.tracking.runs import INPUT_HASH, PARENT, STAGE, Run, Store, check_store, child_tags, find_run, open_store
from reft import adapter_sha256
from tests.pipelines.finished import STUDY, TRAIN_KEY, finish_stages, make_params, write_figures


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base store for the module, which makes its tiny base once."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFT_HOME", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def own_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFT_HOME", str(home))  # also where a conftest gives each test its own
    for name in ("DVC_EXP_BASELINE_REV", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose name has signs that mean something in an address, which MLflow takes paths for."""
    return tmp_path_factory.mktemp("50%25 #1 & it's; ")


@pytest.fixture(scope="module")
def store(root: Path, home: Path) -> Store:
    return open_store(make_params().tracking, root)


def stage(root: Path, params: Params, *, seed: int = 0, better: bool = True) -> Registration:
    paths = finish_stages(root, seed=seed, better=better)
    return register.run(params, root=root, files=StageFiles(**paths), out=root / "registration.json")


def versions(store: Store, model: str) -> list[str]:
    return [str(version.version) for version in store.client.search_model_versions(f"name = '{model}'")]


def alias_of(store: Store, model: str, alias: str) -> int | None:
    found = alias_version(store.client, model, alias)
    return None if found is None else int(found.version)


def all_runs(store: Store) -> dict[str, str]:
    found = store.client.search_runs([store.experiment_id], max_results=1000)
    return {run.info.run_id: run.info.status for run in found}


def test_registering_twice_gives_the_same_runs_and_one_version(root: Path, store: Store) -> None:
    params = make_params("twice")
    first, runs = stage(root, params), all_runs(store)
    models = store.client.search_logged_models([store.experiment_id])
    again = stage(root, params)
    assert again == first
    assert (versions(store, "twice"), all_runs(store)) == (["1"], runs)
    assert len(store.client.search_logged_models([store.experiment_id])) == len(models)


def test_registration_json_names_the_version(root: Path, store: Store) -> None:
    made = stage(root, make_params("named"))
    assert read_json(root / "registration.json") == {
        "format": 1,
        "model": "named",
        "version": 1,
        "alias": "challenger",
        "run_id": made.run_id,
        "adapter_sha256": read_training(root / "stages-0" / "train.json").adapter_sha256,
        "tracking_uri": "sqlite:///mlflow/mlflow.db",
        "model_uri": "models:/named/1",
    }


def test_a_pipeline_run_holds_a_search_with_its_trials_and_a_training(root: Path, store: Store) -> None:
    made = stage(root, make_params("nested"))
    client = store.client

    def children(parent: str) -> dict[str, str]:
        found = client.search_runs([store.experiment_id], filter_string=f"tags.`{PARENT}` = '{parent}'")
        return {run.info.run_name: run.info.run_id for run in found}

    below = children(made.run_id)
    recipe = "layers all, positions l1, rank 2, learning_rate 0.001"
    search, train = f"{root.name} search: 90.0 % of 3 trials", f"{root.name} train: {recipe}"
    assert set(below) == {search, train}
    trials = children(below[search])
    statuses = {name: client.get_run(run).info.status for name, run in trials.items()}
    assert statuses == {
        f"trial-0: 90.0 %, {recipe}": "FINISHED",
        f"trial-1: pruned, {recipe}": "KILLED",
        f"trial-2: fail, {recipe}": "FAILED",
    }
    best = trials[f"trial-0: 90.0 %, {recipe}"]
    assert [m.value for m in client.get_metric_history(best, "reported_value")] == [0.7, 0.9]
    assert [(m.step, m.value) for m in client.get_metric_history(below[train], "loss")] == [(1, 0.75), (2, 0.5)]
    assert client.get_run(made.run_id).data.metrics["difference.low"] == 0.1
    artifacts = {item.path for item in client.list_artifacts(made.run_id, "evaluation")}
    assert artifacts == {
        "evaluation/evaluation.json",
        "evaluation/predictions.parquet",
        "evaluation/confusion.csv",
        "evaluation/evaluation.html",
        "evaluation/model_card.md",
    }


def test_runs_say_what_they_are_of_and_take_the_time_that_the_work_took(root: Path, store: Store) -> None:
    made = stage(root, make_params("told"))
    pipeline = store.client.get_run(made.run_id)
    assert pipeline.info.run_name == f"{root.name}: 80.0 %, +30.0 points"
    assert "rank 2" in pipeline.data.tags["mlflow.note.content"]
    assert "10 test rows" in pipeline.data.tags["mlflow.note.content"]
    search = Run(store, pipeline.data.tags["reft.search_run"])
    train = Run(store, pipeline.data.tags["reft.train_run"])
    trial = find_run(store, child_tags(search, "trial-0"))
    assert trial is not None
    assert trial.seconds() == 1.5  # of trials.json, whenever they were registered
    assert Run(store, made.run_id).seconds() >= search.seconds() + train.seconds()
    ended = pipeline.info.end_time
    stage(root, make_params("told"))
    assert store.client.get_run(made.run_id).info.end_time == ended


def test_what_was_logged_live_is_completed_not_doubled(root: Path, store: Store) -> None:
    params = make_params("live")
    key = f"{TRAIN_KEY}-7"
    with live_run(params.tracking, root, "train", key, "train") as run:
        run.log_metrics({"loss": 0.75}, step=1)  # then the store went away
    made = stage(root, params, seed=7)
    (train,) = store.client.search_runs([store.experiment_id], filter_string=f"tags.`{INPUT_HASH}` = '{key}'")
    assert (train.info.status, train.data.tags[PARENT]) == ("FINISHED", made.run_id)
    assert train.data.tags[STAGE] == "train"
    history = store.client.get_metric_history(train.info.run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(1, 0.75), (2, 0.5)]


def test_a_version_tells_its_whole_chain(root: Path, store: Store) -> None:
    made = stage(root, make_params("chain"))
    tags = store.client.get_model_version("chain", str(made.version)).tags
    record = read_json(root / "stages-0" / "base.json")
    assert tags["reft.adapter_sha256"] == made.adapter_sha256
    assert (tags["base.sha256"], tags["base.source"]) == (record["sha256"], "file:models/own/tiny")
    assert (tags["optuna.study"], tags["optuna.trial"]) == (STUDY, "0")
    assert (tags["git.commit"], tags["git.dirty"], tags["dvc.lock_sha256"]) == ("unknown",) * 3
    assert (tags["evaluation.better"], tags["evaluation.difference.low"]) == ("true", "0.1")
    assert tags["package.torch"][0].isdigit()
    assert len(tags["data.sha256"]) == 64


def test_a_new_measurement_updates_the_figures_of_the_version(root: Path, store: Store) -> None:
    params = make_params("measured")
    paths = finish_stages(root)
    stage(root, params)
    write_figures(paths, better=True, accuracy=0.85)
    made = register.run(params, root=root, files=StageFiles(**paths), out=root / "registration.json")
    assert store.client.get_model_version("measured", "1").tags["evaluation.adapter.accuracy"] == "0.85"
    assert store.client.get_run(made.run_id).data.metrics["adapter.accuracy"] == 0.85


def test_what_does_not_beat_the_base_gets_no_alias(root: Path, store: Store) -> None:
    assert stage(root, make_params("worse"), better=False).alias is None
    assert store.client.get_registered_model("worse").aliases == {}


def test_each_that_beats_the_base_challenges_and_none_becomes_champion(root: Path, store: Store) -> None:
    params = make_params("rivals")
    assert [stage(root, params, seed=seed).alias for seed in (0, 1, 2)] == [CHALLENGER] * 3
    assert store.client.get_registered_model("rivals").aliases == {CHALLENGER: 3}
    assert stage(root, params, seed=2, better=False).alias is None  # no longer better, so no challenger
    assert store.client.get_registered_model("rivals").aliases == {}


def test_a_champion_is_neither_replaced_nor_demoted_by_registering(root: Path, store: Store) -> None:
    params = make_params("reigns")
    stage(root, params, seed=0)
    store.client.set_registered_model_alias("reigns", CHAMPION, "1")
    assert stage(root, params, seed=1).alias == CHALLENGER
    assert stage(root, params, seed=0).alias == CHAMPION
    assert stage(root, params, seed=0, better=False).alias == CHAMPION
    assert (alias_of(store, "reigns", CHAMPION), alias_of(store, "reigns", CHALLENGER)) == (1, 2)


@pytest.mark.parametrize("name", ["DVC_EXP_BASELINE_REV", "DVC_EXP_NAME"])
def test_no_alias_moves_in_an_experiment(root: Path, store: Store, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "abc")
    model = f"try-{name.rpartition('_')[2].lower()}"
    assert stage(root, make_params(model)).alias is None
    assert store.client.get_registered_model(model).aliases == {}


def test_an_alias_of_a_deleted_version_counts_as_none(root: Path, store: Store) -> None:
    params = make_params("deleted")
    stage(root, params, seed=0)
    store.client.delete_model_version("deleted", "1")
    made = stage(root, params, seed=1)
    assert (made.version, made.alias) == (2, CHALLENGER)


def test_a_version_keeps_the_hashes_of_the_rows_that_it_was_made_with(root: Path, store: Store, tmp_path: Path) -> None:
    made = stage(root, make_params("hashes"))
    kept = read_seen(Path(store.client.download_artifacts(made.run_id, "data/seen.json", str(tmp_path))))
    text = hashlib.sha256(b"good film").hexdigest()[:16]
    assert kept == Seen(frozenset({text}), frozenset())


def test_a_killed_register_goes_on_where_it_was(root: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    params = make_params("killed")
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "create_model_version", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            stage(root, params, seed=5)
    models = store.client.search_logged_models([store.experiment_id])
    assert stage(root, params, seed=5).version == 1
    assert len(store.client.search_logged_models([store.experiment_id])) == len(models)


def _interrupted(*args: object, **kwargs: object) -> None:
    raise KeyboardInterrupt


def test_an_unreachable_store_is_an_error_and_leaves_no_registration(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "registration.json"
    with pytest.raises(PipelineError, match="tracking store must answer"):
        register.run(make_params(uri="http://127.0.0.1:9"), root=root, files=StageFiles(**finish_stages(root)), out=out)
    assert not out.exists()


def test_an_adapter_that_was_not_measured_is_refused(root: Path, store: Store, tmp_path: Path) -> None:
    paths = finish_stages(root)
    other = tmp_path / "train.json"
    write_json(other, {**read_json(paths["train_metrics"]), "adapter_sha256": "0" * 64})
    with pytest.raises(PipelineError, match="adapter must be the one of"):
        register.run(
            make_params(), root=root, files=StageFiles(**{**paths, "train_metrics": other}), out=tmp_path / "out.json"
        )


def test_a_missing_file_is_named(root: Path, tmp_path: Path) -> None:
    paths = {**finish_stages(root), "card": tmp_path / "absent.json"}
    with pytest.raises(PipelineError, match=r"absent\.json.*dvc repro"):
        register.run(make_params(), root=root, files=StageFiles(**paths), out=tmp_path / "out.json")


def test_registered_looks_into_the_registry(root: Path, store: Store, tmp_path: Path) -> None:
    params, path = make_params("looked-up"), root / "registration.json"
    stage(root, params)
    assert registered(params, root, path)
    assert not registered(params, root, tmp_path / "absent.json")
    assert not registered(make_params("another"), root, path)
    foreign = tmp_path / "registration.json"
    foreign.write_text(json.dumps({**read_json(path), "adapter_sha256": "0" * 64}))
    assert not registered(params, root, foreign)
    store.client.delete_model_version("looked-up", "1")
    assert not registered(params, root, path)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "truncated adapter": lambda folder: os.truncate(folder / "adapter/adapter.safetensors", 100),
    "other prompt": lambda folder: _replace(folder / "adapter/adapter_config.json", "Review", "Preview"),
    "no files": shutil.rmtree,
    "broken base record": lambda folder: (folder / "base.json").write_text("{"),
}


def _replace(file: Path, old: str, new: str) -> None:
    file.write_text(file.read_text().replace(old, new))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_version_whose_files_are_damaged_is_not_registered_and_gets_them_again(
    root: Path, store: Store, damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = "damaged"
    params, made = make_params(name), stage(root, make_params(name), seed=6)
    version = store.client.get_model_version(name, "1")
    folder = Path(local_file_uri_to_path(store.client.get_model_version_download_uri(name, "1"))) / "artifacts"
    assert holds(store.client, model_id(version), made.adapter_sha256, version.tags["base.sha256"])
    assert (folder / "adapter" / "README.md").read_text() == "the model_card of seed 6"
    DAMAGES[damage](folder)
    assert not registered(params, root, root / "registration.json")
    if (folder / "adapter").is_dir() and damage != "broken base record":
        with pytest.raises(PipelineError, match="must be the one that was registered"):
            fetch_version(f"models:/{name}/1", tmp_path, params=params, root=root)
    assert "has not the files that were registered" in caplog.text
    assert stage(root, params, seed=6) == made
    assert adapter_sha256(folder / "adapter") == made.adapter_sha256
    assert registered(params, root, root / "registration.json")
    assert versions(store, name) == ["1"]


def test_a_registration_that_cannot_be_read_is_none(root: Path, store: Store) -> None:
    params = make_params("unreadable")
    stage(root, params)
    (root / "registration.json").write_text("{")
    assert not registered(params, root, root / "registration.json")


def test_whoever_waits_for_the_registry_too_long_is_told_who_has_it(
    root: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = make_params("busy", uri=store.uri)
    other = tmp_path / "other"
    with registry_lock(store, "busy", wait_seconds=1), ThreadPoolExecutor(1) as another_process:
        monkeypatch.setattr(register, "WAIT_SECONDS", 0.2)
        with pytest.raises(BusyError, match=rf"it is held by reft {os.getpid()} on "):
            another_process.submit(stage, other, params).result()
    assert not (other / "registration.json").exists()
    assert versions(store, "busy") == []
    assert stage(other, params).version == 1


def test_a_version_that_was_made_beside_another_one_is_taken_back(
    root: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    params, make = make_params("beside"), MlflowClient.create_model_version

    def make_two(client: MlflowClient, *args: Any, **kwargs: Any) -> ModelVersion:
        make(client, *args, **kwargs)  # by a release that knows no lock, in this moment
        return make(client, *args, **kwargs)

    monkeypatch.setattr(MlflowClient, "create_model_version", make_two)
    assert (stage(root, params).version, versions(store, "beside")) == (1, ["1"])


def test_an_alias_that_another_took_in_this_moment_is_not_told(
    root: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    params, place = make_params("taken"), MlflowClient.set_registered_model_alias
    stage(root, params, seed=0, better=False)

    def lose(client: MlflowClient, name: str, alias: str, version: str) -> None:
        place(client, name, alias, version)
        place(client, name, alias, "1")  # by hand, on MLflow's page

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", lose)
    assert (stage(root, params, seed=1).alias, alias_of(store, "taken", CHALLENGER)) == (None, 1)


@pytest.mark.long
def test_a_server_gets_the_same_and_may_go_away(tmp_path: Path, root: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{tmp_path}/server.db"]
    command += ["--artifacts-destination", str(tmp_path / "artifacts"), "--workers", "1"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # the server looks for uvicorn there
    params = make_params("served", uri=f"http://127.0.0.1:{port}")
    env = os.environ | {"PATH": path, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # nothing here is a job
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=env)
    try:
        _wait_for(params, root)
        made = stage(root, params)
        assert (made.version, made.alias) == (1, CHALLENGER)
        assert stage(root, params) == made
        assert registered(params, root, root / "registration.json")
        with live_run(params.tracking, root, "train", "key", "train") as run:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
            run.log_metric("loss", 1.0, step=1)
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _wait_for(params: Params, root: Path) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            return check_store(params.tracking, root)
        except PipelineError:
            assert time.monotonic() < deadline
            time.sleep(0.3)


def test_a_tree_is_dirty_by_what_no_run_writes(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *words], check=True, capture_output=True)

    assert git_state(tmp_path).commit is None
    git("init")
    (tmp_path / "metrics").mkdir()
    for name in ("code.py", "dvc.lock", "metrics/train.json"):
        (tmp_path / name).write_text("1")
    git("add", ".")
    git("commit", "-m", "first")
    (tmp_path / "dvc.lock").write_text("2")
    (tmp_path / "metrics" / "train.json").write_text("2")
    (tmp_path / "untracked").write_text("2")
    assert git_state(tmp_path).dirty is False
    (tmp_path / "code.py").write_text("2")
    assert git_state(tmp_path).dirty is True


@pytest.mark.parametrize("name", ["train_metrics", "evaluation"])
def test_figures_of_another_adapter_are_refused(root: Path, store: Store, name: str) -> None:
    paths = finish_stages(root, seed=5)
    figures = read_json(paths[name])
    write_json(paths[name], figures | {"adapter_sha256": "0" * 64})
    with pytest.raises(PipelineError, match=rf"the adapter must be the one of {paths[name].name}, 000"):
        register.run(make_params("foreign"), root=root, files=StageFiles(**paths), out=root / "registration.json")
    write_json(paths[name], figures)


@pytest.mark.parametrize(
    ("template", "columns", "said"),
    [
        ("Review: {text}", ["text"], "strings, objects, or a frame, with text"),
        ("{premise} / {claim} / {premise}", ["premise", "claim"], "objects, or a frame, with premise, claim"),
    ],
)
def test_the_example_is_an_input_as_the_model_takes_it(
    root: Path, tmp_path: Path, template: str, columns: list[str], said: str
) -> None:
    adapter = finish_stages(root)["adapter"]
    config = read_json(adapter / "adapter_config.json")
    config["prompt"]["template"] = template
    write_json(tmp_path / "adapter_config.json", config)
    (tmp_path / "adapter.safetensors").write_bytes((adapter / "adapter.safetensors").read_bytes())
    assert package.model_input(tmp_path) == (dict.fromkeys(columns, "An example text."), {"input": said})


LABELS = ["c", "c++", "c#", "c:2b:", "-1", "1", "хорошо", "👍", "a/b", "..", "x" * 200, "x" * 199 + "y", "👍" * 100]


def test_a_metric_has_a_name_that_mlflow_takes_for_each_label() -> None:
    names = [metric_label(label) for label in LABELS]
    assert len(set(names)) == len(LABELS)
    for name in names:
        _validate_metric_name(f"adapter.{name}.precision")
        assert len(f"adapter.{name}.precision") <= 250
    assert names[0] == "c"
    assert names[6] == "хорошо"
