"""What follows a first run: other params, a what-if, a server, a clone, a lost registry. Each builds on those above."""

from __future__ import annotations

import json
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.runs.project import REMOTE_FOLDER
from tests.damage.finished import finished
from tests.project import Project, environment
from tests.servers import answers, free_port, kill, prefect_server, wait_for

pytestmark = pytest.mark.long

STAGES = ("base", "prepare", "search", "train", "evaluate", "register")
EPOCHS, STEPS = 2, 8  # of the first run: 64 rows, sixteen at a time
TEXTS = ["The film is warm, the plot is bright.", "The film is dull, the plot is awful."]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A tiny project after its first run, whose state is in git; with a Prefect server that its runs use."""
    folder = tmp_path_factory.mktemp("after")
    shutil.copytree(finished(), folder, symlinks=True, dirs_exist_ok=True)
    project = Project(folder / "project", environment(folder / "home"))
    with prefect_server(project, folder / "server.log"):
        project.run("reft", "run")
        project.run("git", "add", "dvc.lock", "metrics")
        project.run("git", "commit", "--quiet", "--message", "A run")
        yield project


def read(project: Project, name: str) -> Any:
    return json.loads((project.root / name).read_text(encoding="utf-8"))


def uri(project: Project) -> str:
    return f"sqlite:///{project.root}/mlflow/mlflow.db"


def alias_of(project: Project) -> str:
    script = (
        "import mlflow, sys\n"
        "client = mlflow.MlflowClient(sys.argv[1])\n"
        "print('ALIASES', client.get_registered_model('reft-adapter').aliases)\n"
    )
    said = project.run("python", "-c", script, uri(project)).stdout
    return next(line for line in said.splitlines() if line.startswith("ALIASES"))


def test_a_what_if_runs_what_it_changes_and_moves_no_alias(project: Project) -> None:
    before, aliases = project.markers(), alias_of(project)
    assert read(project, "metrics/train.json")["steps"] == STEPS
    project.run("dvc", "exp", "run", "--set-param", "train.epochs=1")
    assert project.ran_since(before) == {"train", "evaluate", "register"}
    assert read(project, "metrics/train.json")["steps"] == STEPS // EPOCHS
    assert alias_of(project) == aliases
    project.run("git", "checkout", "--quiet", ".")
    project.run("dvc", "checkout")


def test_other_epochs_run_train_and_what_follows_only(project: Project) -> None:
    before = project.markers()
    project.params({"train.epochs": EPOCHS + 1})
    project.run("reft", "run")
    assert project.ran_since(before) == {"train", "evaluate", "register"}
    assert read(project, "metrics/train.json")["steps"] == STEPS // EPOCHS * (EPOCHS + 1)


def test_outputs_of_earlier_params_come_back_without_a_run(project: Project) -> None:
    before = project.markers()
    project.params({"train.epochs": EPOCHS})
    project.run("dvc", "repro")
    assert project.ran_since(before) <= {"register"}
    assert read(project, "metrics/train.json")["steps"] == STEPS


def test_the_registered_model_is_served(project: Project, tmp_path: Path) -> None:
    address = f"http://127.0.0.1:{(port := free_port())}"
    server = project.start(
        "mlflow", "models", "serve", "-m", "models:/reft-adapter/1", "--env-manager", "local",
        "-h", "127.0.0.1", "-p", str(port),
        log=tmp_path / "serve.log", MLFLOW_TRACKING_URI=uri(project),
    )  # fmt: skip
    request = urllib.request.Request(
        f"{address}/invocations",
        data=json.dumps({"inputs": TEXTS}).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        wait_for("answer", lambda: answers(f"{address}/ping"), seconds=600, every=0.5)
        with urllib.request.urlopen(request, timeout=600) as answer:
            predictions = json.load(answer)["predictions"]
    finally:
        kill(server)
    assert [prediction["label"] in ("positive", "negative") for prediction in predictions] == [True, True]


def test_a_clean_clone_with_another_machines_lock_ends_with_a_version(project: Project, tmp_path: Path) -> None:
    project.run("git", "add", "--all")
    project.run("git", "commit", "--quiet", "--message", "Another run", check=False)
    project.run("git", "clone", "--quiet", str(project.root), str(tmp_path / "clone"))
    clone = Project(tmp_path / "clone", project.env)
    assert (clone.root / "dvc.lock").is_file()
    assert not (clone.root / ".dvc" / "config.local").exists()
    clone.run("dvc", "remote", "add", "--local", "--default", "team", str(project.root / REMOTE_FOLDER))
    clone.run("reft", "setup")
    clone.run("dvc", "pull", "data/own/reviews.csv", "models/own/tiny")  # the rows and the model of the user's own
    clone.run("dvc", "repro")
    assert read(clone, "registration.json")["version"] == 1
    before = clone.markers()
    said = clone.run("reft", "run").stdout
    assert clone.ran_since(before) == set()
    assert said.count(" skipped ") == len(STAGES)


def test_a_lost_registry_is_filled_again(project: Project) -> None:
    before = project.markers()
    project.run("reft", "run")  # what is in the folder is registered
    shutil.rmtree(project.root / "mlflow")
    project.run("reft", "run")
    assert project.ran_since(before) >= {"register"}
    assert not project.ran_since(before) & {"base", "prepare", "search", "train", "evaluate"}
    assert read(project, "registration.json")["version"] == 1
