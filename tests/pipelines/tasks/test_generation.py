"""A task of free answers goes through every stage, and its adapter answers where it is served."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipelines.contracts.evaluation import read_evaluation
from pipelines.contracts.predictions import read_predictions
from pipelines.contracts.prepared import Rejection, read_rows
from pipelines.contracts.task import read_task
from pipelines.errors import PipelineError
from pipelines.files import read_json
from pipelines.params.whole import Params, check_params
from pipelines.registry.package import model_input
from pipelines.serving.pyfunc import AdapterModel
from pipelines.sources.raw_row import RawRow
from pipelines.tasks.family import family_of
from pipelines.tasks.reader import RowReader
from tests.pipelines.staged import run_stages, write_json_rows
from tests.searching import FEW, raw_params
from tests.tiny import tiny_tokenizer, write_tiny_base

CHANGES: dict[str, Any] = FEW | {
    "prepare.task": "generation",
    "prepare.source": "file:data/own/rows.jsonl",
    "prepare.format": "jsonl",
    "prepare.template": "Review: {text}\nSentiment:",
    "search.objectives": ["exact_match"],
    "search.trials": 1,
    "search.space.learning_rate": {"low": 1e-2, "high": 1e-1, "log": True},
    "search.space.layers": ["all"],
    "search.enqueue": [{"layers": "all", "positions": "l4", "rank": 4, "learning_rate": 0.05}],
    "train.epochs": 25,
    "train.batch_size": 8,
}

GENERATION: dict[str, Any] = {
    "answer_column": "answer",
    "solution_column": None,
    "max_new_tokens": 1,
    "reader": {"name": "exact"},
    "measure": "exact_match",
}


def make_params(**changes: Any) -> Params:
    raw = raw_params(CHANGES)
    for key in ("label_column", "labels"):
        del raw["prepare"][key]
    raw["prepare"] |= GENERATION | changes
    return check_params(raw, "params.yaml")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder in which every stage up to evaluate has run; each question has the same answer.

    It is one token of the tiny base, and no more are asked for: a random base does not learn so fast to stop.
    """
    root = tmp_path_factory.mktemp("project")
    write_tiny_base(root / "models" / "own" / "tiny")
    write_json_rows(root, [{"text": f"a good film, number {number}.", "answer": "positive"} for number in range(40)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFT_HOME", str(root / "home"))
        run_stages(root, make_params())
    return root


def test_rows_are_trained_on_the_reference_and_the_token_that_ends_it(project: Path) -> None:
    row = read_rows(project / "prepared", "train")[0]
    assert (row.completion, row.references, row.label) == (" positive</s>", ("positive",), "")
    assert read_task(project / "prepared").settings == {
        "max_new_tokens": 1, "reader": {"name": "exact"}, "measure": "exact_match", "conversation": False
    }  # fmt: skip


def test_search_and_evaluation_tell_of_exact_match(project: Path) -> None:
    assert read_json(project / "search.json")["measure"] == "exact_match"
    evaluation = read_evaluation(project / "evaluation.json")
    rows = read_predictions(project / "predictions.jsonl")
    assert evaluation.adapter.value == np.mean([row.adapter.value in row.references for row in rows])
    assert evaluation.base.value == np.mean([row.base.value in row.references for row in rows])
    assert evaluation.adapter.value > evaluation.base.value == 0.0  # a random base does not say the word
    assert read_json(project / "evaluation.json")["adapter"]["exact_match"] == evaluation.adapter.value


def test_the_served_model_says_what_the_evaluation_noted(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFT_HOME", str(project / "home"))
    served = AdapterModel()
    served.load_context(SimpleNamespace(artifacts={"adapter": project / "adapter", "base": project / "base.json"}))
    rows = read_predictions(project / "predictions.jsonl")[:3]
    texts = [row.prompt.removeprefix("Review: ").removesuffix("\nSentiment:") for row in rows]
    assert served.predict(texts) == [{"text": row.adapter.value} for row in rows]
    assert set(served.predict([model_input(project / "adapter")[0]])[0]) == {"text"}  # as registering asks it


def test_an_empty_reference_or_one_with_a_token_of_the_model_is_rejected() -> None:
    keys = make_params().prepare
    rows = RowReader(keys, family_of(keys), tiny_tokenizer())
    for answer in ("  ", "a</s>b", None, ["a"]):
        assert isinstance(rows.read(RawRow("f", 1, {"text": "t", "answer": answer})), Rejection)


def test_a_base_without_an_end_is_refused() -> None:
    tokenizer, keys = tiny_tokenizer(), make_params().prepare
    tokenizer.eos_token = None
    with pytest.raises(PipelineError, match="needs a base with a token that ends a text"):
        RowReader(keys, family_of(keys), tokenizer)


def test_a_search_raises_the_measure_of_the_task_alone() -> None:
    raw = raw_params({**FEW, "search.objectives": ["exact_match"]})
    with pytest.raises(PipelineError, match="must begin with accuracy, the measure of task classification; got exact"):
        check_params(raw, "params.yaml")
