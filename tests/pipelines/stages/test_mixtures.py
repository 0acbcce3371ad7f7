"""Four small planted tasks of three families through all stages: one adapter, each task tested alone."""

from __future__ import annotations

import json
import shutil
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from huggingface_hub import ModelCard

from flows.runs.cards import data_card
from pipelines.contracts.base import read_base
from pipelines.contracts.card import read_card
from pipelines.contracts.evaluation import read_evaluation
from pipelines.contracts.facts import StageFiles
from pipelines.contracts.predictions import read_predictions
from pipelines.contracts.prepared import Row, read_rows
from pipelines.contracts.training import read_training
from pipelines.errors import PipelineError
from pipelines.params.whole import Params, check_params
from pipelines.registry.history import evaluation_metrics
from pipelines.registry.package import model_input
from pipelines.reports.evaluation import answer_words
from pipelines.server.refusals import RefusedError
from pipelines.server.schema import ClassifyRequest
from pipelines.server.service import Service
from pipelines.serving.answerer import open_answerer
from pipelines.serving.inputs import InputError
from pipelines.serving.predict import Asked, predict
from pipelines.serving.pyfunc import AdapterModel
from pipelines.stages import prepare, register
from pipelines.tracking.runs import open_store
from pipelines.tracking.store import store_uri
from tests.pipelines.reports.pages import Page
from tests.pipelines.staged import run_stages
from tests.searching import FEW, raw_params
from tests.tiny import write_tiny_base

pytestmark = pytest.mark.usefixtures("same_home")

CHANGES: dict[str, Any] = FEW | {
    "search.objectives": ["macro_average"],
    "search.trials": 1,
    "search.train_rows": 40,
    "search.space.learning_rate": {"low": 1e-2, "high": 1e-1, "log": True},
    "search.space.layers": ["all"],
    "search.enqueue": [{"layers": "all", "positions": "l4", "rank": 4, "learning_rate": 0.05}],
    "train.epochs": 8,
    "train.batch_size": 8,
    "evaluate.bootstrap": 200,
}
COMMON: dict[str, Any] = {
    "sha256": None, "validation_source": None, "test_source": None, "format": "jsonl", "columns": None,
    "quoting": False, "second_template": None, "chat": False, "group_column": None, "domain_column": None,
    "growing": None, "train_rows": 24, "validation_rows": 6, "test_rows": 12, "max_tokens": 60,
}  # fmt: skip
OPTIONS: dict[str, Any] = {
    "task": "choice", "split": None, "option_columns": ["options"], "options": None, "answer_column": "answer",
    "answer_as": "index", "score": "per_byte",
}  # fmt: skip
TASKS: dict[str, dict[str, Any]] = {
    "first": {**OPTIONS, "template": "Question: {question}\nAnswer:", "train_on": "answer"},
    "second": {**OPTIONS, "template": "Ask: {question}\nSay:", "train_on": "options", "train_rows": 8},
    "mood": {
        "task": "classification", "template": "Review: {text}\nSentiment:", "measure": "accuracy",
        "label_column": "label", "labels": {
            name: {"word": f" {name}", "min": None, "max": None, "values": [name]} for name in ("negative", "positive")
        },
    },
    "word": {
        "task": "generation", "template": "Word: {text}\nAgain:", "answer_column": "said", "solution_column": None,
        "max_new_tokens": 4, "reader": {"name": "exact"}, "measure": "exact_match",
    },
}  # fmt: skip
WEIGHTS = {"first": 1.0, "second": 1.0, "mood": 2.0, "word": 1.0}


def section(name: str) -> dict[str, Any]:
    return {"source": f"file:data/own/{name}.jsonl", **COMMON, **TASKS[name]}


def make_params(prepared: dict[str, Any] | None = None) -> Params:
    raw = raw_params(CHANGES)
    tasks = {name: section(name) for name in TASKS}
    raw["prepare"] = prepared or {"task": "mixture", "train_rows": 48, "weights": WEIGHTS, "tasks": tasks}
    if prepared:
        raw["search"] |= {"train_rows": 1, "objectives": ["accuracy"]}
    return check_params(raw, "params.yaml")


def write_rows(root: Path) -> None:
    """The option, label or word that says bad is always right, where the random base likes the other more."""
    folder = root / "data" / "own"
    folder.mkdir(parents=True)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in TASKS}
    for n in range(48):
        options = ["positive", "negative"] if n % 2 else ["negative", "positive"]
        for name in ("first", "second"):
            thing = f"{name} thing {n}"
            rows[name].append({"question": thing, "options": options, "answer": options.index("negative")})
        rows["mood"].append({"text": f"film {n}", "label": ("negative", "positive")[n % 2]})
        rows["word"].append({"text": f"sign {n}", "said": "bad"})
    for name, own in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))


@pytest.fixture(scope="module")
def project(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mixture")
    write_tiny_base(root / "models" / "own" / "tiny")
    write_rows(root)
    run_stages(root, make_params())
    return root


def prepared(project: Path, params: Params, out: Path) -> Path:
    prepare.run(params, root=project, base=project / "base.json", out=out, card=out.with_name("card.json"))
    return out


def test_training_rows_are_drawn_by_weight_up_to_each_tasks_own(project: Path) -> None:
    """48 by 1 : 1 : 2 : 1 are 9.6 each and 19.2; `second` has 8, and the others share 40 by 1 : 2 : 1."""
    card = read_card(project / "card.json")
    assert {name: task.rows["train"] for name, task in card.tasks.items()} == {
        "first": 10, "second": 8, "mood": 20, "word": 10,
    }  # fmt: skip
    assert card.splits["train"].rows == 48
    assert card.splits["test"].rows == 4 * 12
    rows = read_rows(project / "prepared", "train")
    assert {name: sum(row.task == name for row in rows) for name in TASKS} == {
        name: task.rows["train"] for name, task in card.tasks.items()
    }
    assert "| second | 8 | 6 | 12 | 48 | 0 | 22 |" in data_card(card)
    assert card.unused == sum(task.unused for task in card.tasks.values()) == 4 * 48 - 48 - 4 * 18


def test_the_same_seed_draws_the_same_bytes(project: Path, tmp_path: Path) -> None:
    again = prepared(project, make_params(), tmp_path / "again")
    for file in sorted((project / "prepared").iterdir()):
        assert (again / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_tested_on_the_rows_that_it_has_alone(project: Path, tmp_path: Path, name: str) -> None:
    raw = section(name)
    params = make_params(raw) if name != "word" else None
    if params is None:
        values = make_params(section("mood")).model_dump(by_alias=True)
        values["prepare"], values["search"]["objectives"] = raw, ["exact_match"]
        params = check_params(values, "params.yaml")
    alone = prepared(project, params, tmp_path / "alone")
    for split in ("validation", "test"):
        mixed = [row.prompt for row in read_rows(project / "prepared", split) if row.task == name]  # type: ignore[arg-type]
        assert mixed == [row.prompt for row in read_rows(alone, split)]  # type: ignore[arg-type]


def test_figures_of_each_task_and_their_mean_are_those_of_the_predictions(project: Path) -> None:
    evaluation, said = read_evaluation(project / "evaluation.json"), read_predictions(project / "predictions.parquet")
    rows = read_rows(project / "prepared", "test")
    right: dict[str, list[bool]] = {name: [] for name in TASKS}
    for row, one in zip(rows, said, strict=True):
        assert one.task == row.task
        wanted = {"mood": row.label, "word": "bad"}.get(row.task, "negative")
        right[row.task].append(one.adapter.value == wanted)
        assert one.adapter.score == right[row.task][-1]
    assert {name: task.adapter.value for name, task in evaluation.tasks.items()} == {
        name: np.mean(hits) for name, hits in right.items()
    }
    assert evaluation.adapter.value == pytest.approx(np.mean([np.mean(hits) for hits in right.values()]))
    assert evaluation.adapter.low <= evaluation.adapter.value <= evaluation.adapter.high
    assert evaluation.adapter.value > evaluation.base.value  # what was planted is learned
    assert evaluation.tasks["word"].adapter.summary == evaluation.adapter.summary  # only it has texts to read
    assert evaluation_metrics(evaluation)["task.first.adapter.accuracy"] == np.mean(right["first"])


def test_the_stage_leaves_a_page_and_a_card_of_its_own_figures(project: Path) -> None:
    evaluation = read_evaluation(project / "evaluation.json")
    page = Page((project / "evaluation.html").read_text(encoding="utf-8"))
    assert answer_words(evaluation) in page.words
    assert {"By task", "Rows that differ"} <= set(page.texts_of("h2"))
    assert read_training(project / "train.json").study in page.words
    assert "dvc.lock" not in page.words  # stages to come still change it
    results = ModelCard.load(project / "model_card.md").data.eval_results
    assert results is not None
    found = {result.dataset_name: result.metric_value for result in results}
    wanted = {make_params().prepare.source: evaluation.adapter.value}
    wanted |= {name: task.adapter.value for name, task in evaluation.tasks.items()}
    assert found == pytest.approx(wanted, abs=1e-4)


def served(project: Path) -> AdapterModel:
    model = AdapterModel()
    model.load_context(SimpleNamespace(artifacts={"adapter": project / "adapter", "base": project / "base.json"}))
    return model


def asked_and_said(project: Path) -> tuple[list[dict[str, Any]], list[object]]:
    """The test rows as callers give them, and what the adapter answered in evaluation."""
    asked: list[dict[str, Any]] = []
    wanted: list[object] = []
    for row in read_predictions(project / "predictions.parquet"):
        text = row.prompt.split(": ", 1)[1].split("\n")[0]
        if row.task in ("first", "second"):
            asked.append({"task": row.task, "question": text, "options": [each.strip() for each in row.choices]})
        else:
            asked.append({"task": row.task, "text": text})
        wanted.append(row.adapter.value)
    return asked, wanted


def test_a_registered_mixture_is_loaded_back_and_answers_each_task(project: Path) -> None:
    import mlflow

    own, names = make_params(), {field.name for field in fields(StageFiles)}
    params = own.model_copy(
        update={"tracking": own.tracking.model_copy(update={"uri": "sqlite:///mlflow/mlflow.db"})}
    )  # which no stage before needed
    files = {"card": "card.json", "search_metrics": "search.json", "train_metrics": "train.json", "base": "base.json",
             "train_plots": "train", "evaluation": "evaluation.json", "predictions": "predictions.parquet",
             "evaluate_plots": "plots", "evaluation_page": "evaluation.html",
             "model_card": "model_card.md"}  # fmt: skip
    paths = StageFiles(**{name: project / files.get(name, name) for name in names})
    made = register.run(params, root=project, files=paths, out=project / "registration.json")
    mlflow.set_tracking_uri(store_uri(params.tracking, project))
    asked, wanted = asked_and_said(project)
    answers = mlflow.pyfunc.load_model(made.model_uri).predict(asked)
    assert [next(iter(answer.values())) for answer in answers] == wanted
    metrics = open_store(params.tracking, project).client.get_run(made.run_id).data.metrics
    evaluation = read_evaluation(project / "evaluation.json")
    assert {name: metrics[f"task.{name}.adapter.{task.measure}"] for name, task in evaluation.tasks.items()} == {
        name: task.adapter.value for name, task in evaluation.tasks.items()
    }


def test_a_served_row_says_its_task_and_is_answered_as_in_evaluation(project: Path) -> None:
    model = served(project)
    asked, wanted = asked_and_said(project)
    answers = model.predict(asked)
    assert [next(iter(answer.values())) for answer in answers] == wanted
    example, metadata = model_input(project / "adapter")
    assert model.predict([example])
    assert (
        metadata["input"] == "objects, or a frame, with task, one of first, second, mood, word, and that task's columns"
    )


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"text": "film 1"}, r"each input must be an object with 'task'; got input 0 with the columns 'text'"),
        (
            {"task": "moods", "text": "film 1"},
            r"must name one of the adapter's tasks; got .*moods.*first, second, mood",
        ),
        ({"task": "mood", "question": "film 1"}, r"a column is missing; got 'text'"),
    ],
)
def test_a_row_without_its_task_or_its_columns_is_refused(project: Path, row: dict[str, str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        served(project).predict([row])


def test_files_of_rows_have_the_columns_of_their_tasks(project: Path, tmp_path: Path) -> None:
    answerer = open_answerer(project / "adapter", read_base(project / "base.json"), root=project)
    moods = tmp_path / "moods.csv"
    moods.write_text("task,text\nmood,film 1\nmood,film 2\n")
    assert predict(Asked(str(moods), str(tmp_path / "out.csv")), answerer).rows == 2
    assert (tmp_path / "out.csv").read_text().startswith("line,label,probabilities.negative,")
    both = tmp_path / "both.jsonl"
    both.write_text('{"task": "mood", "text": "film 1"}\n{"task": "word", "text": "sign 1"}\n')
    assert predict(Asked(str(both), str(tmp_path / "out.jsonl")), answerer).rows == 2
    with pytest.raises(PipelineError, match=r"must all have the same columns.*Write a .jsonl file"):
        predict(Asked(str(both), str(tmp_path / "both.csv")), answerer)
    both.write_text('{"text": "film 1"}\n')
    with pytest.raises(
        PipelineError, match=r"name one of the adapter's tasks \(nothing in the column 'task'; the tasks"
    ):
        predict(Asked(str(both), str(tmp_path / "none.jsonl")), answerer)


def test_the_server_classifies_no_row_whose_task_writes_text(project: Path) -> None:
    served = SimpleNamespace(
        answerer=open_answerer(project / "adapter", read_base(project / "base.json"), root=project)
    )
    mood, word = {"task": "mood", "text": "film 1"}, {"task": "word", "text": "sign 1"}

    def rows(*inputs: dict[str, str]) -> list[Row]:
        return Service.rows(SimpleNamespace(), ClassifyRequest(model="tiny", inputs=list(inputs)), served)  # type: ignore[arg-type]

    assert [row.task for row in rows(mood)] == ["mood"]
    with pytest.raises(RefusedError, match="the task of input 1, word, is to write text; use /v1/completions"):
        rows(mood, word)


def test_a_part_that_cannot_be_read_is_named(project: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(project, root)
    (root / "data" / "own" / "word.jsonl").write_text(json.dumps({"text": "sign", "other": "bad"}) + "\n")
    with pytest.raises(
        PipelineError, match=r"task word: file:data/own/word.jsonl must hold rows with the columns text"
    ):
        prepared(root, make_params(), tmp_path / "out")
