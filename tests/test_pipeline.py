"""The whole pipeline on the real model and real data, in its four uses. Each test builds on those above it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from flows.runs.titles import outcome_title
from pipelines.bases.load import load_base
from pipelines.contracts.base import read_base
from pipelines.contracts.evaluation import read_evaluation
from pipelines.contracts.predictions import read_predictions
from pipelines.contracts.training import read_training
from tests.project import SMALL, Project, make_project
from tests.scheduled import IDLE, Scheduled
from tests.servers import kill, prefect_server

pytestmark = pytest.mark.slow

STAGES = {"base", "prepare", "search", "train", "evaluate", "register"}
TEXTS = ["A warm, funny, engaging film.", "A dull, lifeless mess."]
PREDICT = """
import json, mlflow, sys
model = mlflow.pyfunc.load_model(sys.argv[1])
print("PREDICTED", json.dumps(list(model.predict(sys.argv[2:]))))
"""


# The real model takes its time, so it gets few rows.
FEW: dict[str, Any] = SMALL | {
    "prepare.train_rows": 32,
    "prepare.validation_rows": 16,
    "prepare.test_rows": 24,
    "search.train_rows": 16,
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Iterator[tuple[Project, str]]:
    """A project after its first ``reft run``, and what that printed; with a Prefect server that its runs use."""
    folder = tmp_path_factory.mktemp("first")
    project = make_project(folder / "project", home, FEW)
    with prefect_server(project, folder / "server.log"):
        done = project.run("reft", "run")
        yield project, done.stdout


@pytest.fixture
def project(first: tuple[Project, str]) -> Project:
    return first[0]


def read(project: Project, name: str) -> Any:
    return json.loads((project.root / name).read_text(encoding="utf-8"))


def uri(project: Project) -> str:
    return f"sqlite:///{project.root}/mlflow/mlflow.db"


def test_a_first_run_runs_every_stage_and_says_what_came_out(first: tuple[Project, str]) -> None:
    project, said = first
    assert set(project.markers()) == STAGES
    assert said.count(" ran ") == len(STAGES)
    for words in (
        "base accuracy",
        "adapter accuracy",
        "paired difference",
        "trainable parameters",
        "where it came from",
        "reft-adapter version 1",
    ):
        assert words in said


def test_the_base_is_made_from_its_wheel_and_speaks_english(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFT_HOME", project.env["REFT_HOME"])
    record = read_base(project.root / "models/base.json")
    assert (record.hidden_size, record.num_layers, record.parameters) == (576, 30, 134_515_008)
    loaded = load_base(record)
    ids = loaded.tokenizer("Review: A wonderful film.\nSentiment:", return_tensors="pt")
    with torch.inference_mode():
        best = loaded.model(**ids).logits[0, -1].argmax()
    assert loaded.tokenizer.decode(best).strip().lower() in ("positive", "a", "great", "excellent", "good")
    assert isinstance(loaded.model, LlamaForCausalLM)


def test_each_stage_left_what_it_should(project: Project) -> None:
    card, search, train = (read(project, f"metrics/{name}.json") for name in ("data", "search", "train"))
    assert {name: split["rows"] for name, split in card["splits"].items()} == {
        "train": 32,
        "validation": 16,
        "test": 24,
    }
    assert (search["complete"] + search["pruned"], search["failed"]) == (2, 0)
    assert train["trainable_parameters"] == 10 * train["recipe"]["rank"] * (2 * 576 + 1)
    assert train["steps"] == 4
    assert len(read_predictions(project.root / "reports/predictions.parquet")) == 24
    for picture in ("plots/train/loss.png", "plots/evaluate/confusion.png", "search/history.png"):
        assert (project.root / picture).read_bytes().startswith(b"\x89PNG")


def test_no_text_is_in_two_splits(project: Project) -> None:
    texts = [
        json.loads(line)["prompt"]
        for split in ("train", "validation", "test")
        for line in (project.root / f"data/prepared/{split}.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert len(texts) == len(set(texts)) == 72


def test_the_data_and_the_adapter_were_pushed(project: Project) -> None:
    assert "in sync" in project.run("dvc", "status", "--cloud").stdout


def test_after_a_flow_dvc_has_nothing_to_do(project: Project) -> None:
    before = project.markers()
    project.run("dvc", "repro")
    assert project.ran_since(before) == set()


def test_a_second_run_skips_every_stage_and_is_shown_where_a_server_is_set(project: Project) -> None:
    before = project.markers()
    assert project.run("reft", "run").stdout.count(" skipped ") == len(STAGES)
    assert project.ran_since(before) == set()
    script = (
        "from prefect.client.orchestration import get_client\n"
        "with get_client(sync_client=True) as client:\n"
        "    print('ARTIFACTS', sorted(a.key for a in client.read_latest_artifacts()))\n"
        "    print('RUNS', [run.name for run in client.read_flow_runs()])\n"
    )
    found = project.run("python", "-c", script).stdout
    figures = read_evaluation(project.root / "metrics" / "evaluation.json")
    gate = ["gate"] if figures.better else []  # nothing else challenges
    artifacts = ["data-card", "evaluation", *gate, "model-version", "search", "summary", "trials"]
    assert f"ARTIFACTS {artifacts}" in found
    title = outcome_title(project.root.name, figures, read_training(project.root / "metrics" / "train.json"))
    assert f"RUNS {[title, title]}" in found  # of the first run and of the second


@pytest.mark.long
def test_no_server_is_started_for_a_run_that_has_nothing_to_do(project: Project) -> None:
    before = project.markers()
    alone = Project(project.root, {name: value for name, value in project.env.items() if name != "PREFECT_API_URL"})
    assert alone.run("reft", "run").stdout.count(" skipped ") == len(STAGES)
    assert project.ran_since(before) == set()


def test_a_run_on_the_minute_is_taken_by_a_worker(project: Project, tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    said = project.run("reft", "schedule", "--cron", "* * * * *").stdout
    worker = project.start("prefect", "worker", "start", "--pool", "reft", log=log)
    scheduled = Scheduled(project, project.env["PREFECT_API_URL"], said, log, worker)
    try:
        run = scheduled.wait_for_run("Completed", IDLE, seconds=240, due=True)
    finally:
        kill(worker)
    assert set(scheduled.artifacts(run)) == scheduled.expected()


def test_metrics_and_plots_of_dvc_work(project: Project) -> None:
    commit(project)
    assert "accuracy" in project.run("dvc", "metrics", "show").stdout
    project.run("dvc", "metrics", "diff")
    shown = project.run("dvc", "plots", "show", "--out", ".reft/plots").stdout
    assert shown.strip().endswith("index.html")


def commit(project: Project) -> None:
    """Keep the state of a run in git, as its summary says, if that is not done yet."""
    project.run("git", "add", "dvc.lock", "metrics")
    project.run("git", "commit", "--quiet", "--message", "A run", check=False)


def test_the_registered_model_predicts_in_another_process_whatever_params_say(project: Project) -> None:
    kept = (project.root / "params.yaml").read_text(encoding="utf-8")
    project.params({"base.source": "file:models/own/another", "base.sha256": None})
    said = project.run(
        "python", "-c", PREDICT, "models:/reft-adapter/1", *TEXTS,
        MLFLOW_TRACKING_URI=uri(project), MLFLOW_ALLOW_PICKLE_DESERIALIZATION="false",
    ).stdout  # fmt: skip
    (project.root / "params.yaml").write_text(kept, encoding="utf-8")
    predicted = next(line for line in said.splitlines() if line.startswith("PREDICTED"))
    answers = json.loads(predicted.removeprefix("PREDICTED"))
    assert [answer["label"] in ("positive", "negative") for answer in answers] == [True, True]
    assert [sum(answer["probabilities"].values()) for answer in answers] == pytest.approx([1.0, 1.0])


def test_the_registered_model_is_small_and_holds_no_pickle(project: Project) -> None:
    folders = [path.parent for path in (project.root / "mlflow").rglob("MLmodel")]
    assert folders
    for folder in folders:
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert not [path for path in files if path.suffix in {".pkl", ".pickle", ".bin", ".pt", ".pth"}]
        assert sum(path.stat().st_size for path in files) < 2_000_000
