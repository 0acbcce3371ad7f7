"""A task of free answers goes through every stage, and its adapter answers where it is served."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipelines.contracts.evaluation import read_evaluation
from pipelines.contracts.predictions import read_predictions
from pipelines.contracts.prepared import Rejection, Row, read_rows
from pipelines.contracts.task import read_task
from pipelines.errors import PipelineError
from pipelines.files import read_json
from pipelines.model.scores import ask
from pipelines.params.whole import Params, check_params
from pipelines.registry.package import model_input
from pipelines.serving.pyfunc import AdapterModel
from pipelines.sources.raw_row import RawRow
from pipelines.stages import base, prepare
from pipelines.tasks.family import family_of, open_family
from pipelines.tasks.generation import NO_ANSWER, OTHER_ANSWER, TOO_LONG
from pipelines.tasks.reader import RowReader
from reft import ReftConfig, ReftModel
from reft.models.limits import BaseLimitError
from tests.pipelines.staged import run_stages, write_json_rows
from tests.searching import FEW, raw_params
from tests.tiny import tiny_llama, tiny_tokenizer, write_tiny_base

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
    for key in ("label_column", "labels", "measure"):
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
    rows = read_predictions(project / "predictions.parquet")
    assert evaluation.adapter.value == np.mean([row.adapter.value in row.references for row in rows])
    assert evaluation.base.value == np.mean([row.base.value in row.references for row in rows])
    assert evaluation.adapter.value > evaluation.base.value == 0.0  # a random base does not say the word
    assert read_json(project / "evaluation.json")["adapter"]["exact_match"] == evaluation.adapter.value


def test_the_served_model_says_what_the_evaluation_noted(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFT_HOME", str(project / "home"))
    served = AdapterModel()
    served.load_context(SimpleNamespace(artifacts={"adapter": project / "adapter", "base": project / "base.json"}))
    rows = read_predictions(project / "predictions.parquet")[:3]
    texts = [row.prompt.removeprefix("Review: ").removesuffix("\nSentiment:") for row in rows]
    assert served.predict(texts) == [{"text": row.adapter.value} for row in rows]
    assert set(served.predict([model_input(project / "adapter")[0]])[0]) == {"text"}  # as registering asks it


def test_an_empty_reference_or_one_with_a_token_of_the_model_is_rejected() -> None:
    keys = make_params().prepare
    rows = RowReader(keys, family_of(keys), tiny_tokenizer())
    for answer in ("  ", "a</s>b", None, ["a"]):
        assert isinstance(rows.read(RawRow("f", 1, {"text": "t", "answer": answer})), Rejection)


def test_a_prompt_that_leaves_no_room_for_the_longest_answer_is_rejected(project: Path, tmp_path: Path) -> None:
    """Else the base would run out of positions while it answers; the tiny one has 256, as many as max_tokens here."""
    write_tiny_base(tmp_path / "models" / "own" / "tiny")
    long = "word " * 45  # about 225 tokens of single letters
    write_json_rows(tmp_path, [{"text": f"{n} {long if n < 4 else ''}", "answer": "a"} for n in range(40)])
    raw = make_params().model_dump(by_alias=True)
    raw["prepare"] |= {"max_tokens": 256, "max_new_tokens": 60}
    record, card = tmp_path / "base.json", tmp_path / "card.json"
    params = check_params(raw, "params.yaml")
    base.run(params, root=tmp_path, out=record)
    prepare.run(params, root=tmp_path, base=record, out=tmp_path / "prepared", card=card)
    assert read_json(card)["rejected"] == {"prompt and completion have too many tokens": 4, "total": 4}


def test_an_answer_beyond_the_bases_positions_is_refused_before_the_first_token() -> None:
    model, tokenizer = tiny_llama(), tiny_tokenizer()
    spec = family_of(make_params(max_new_tokens=200).prepare).spec
    asked = ReftModel(model, ReftConfig((0,), "l1", 1), seed=0)
    with pytest.raises(BaseLimitError, match="up to 200 of an answer"):
        ask(asked, tokenizer, open_family(spec), [Row("f:1", "word " * 30, "")], batch_size=1)


def test_a_solution_is_trained_on_and_its_reference_is_compared() -> None:
    changes = {"solution_column": "worked", "reader": {"name": "number"}, "max_new_tokens": 40}
    keys = make_params(**changes).prepare
    rows = RowReader(keys, family_of(keys), tiny_tokenizer())
    raw = {"text": "t", "answer": "8.0", "worked": "3 + 5\n#### 8"}
    row = rows.read(RawRow("f", 1, raw))
    assert isinstance(row, Row)
    assert (row.completion, row.references) == (" 3 + 5\n#### 8</s>", ("8.0",))
    for changed, reason in (
        ({"worked": "#### 9"}, OTHER_ANSWER),
        ({"worked": "no number"}, NO_ANSWER),
        ({"answer": "3/4"}, NO_ANSWER),
        ({"worked": "1 + 1 " * 20 + "#### 8"}, TOO_LONG),
    ):
        found = rows.read(RawRow("f", 1, raw | changed))
        assert isinstance(found, Rejection)
        assert found.reason == reason


@pytest.mark.parametrize(
    ("reader", "worked"),
    [
        ({"name": "regex", "pattern": "#### (.*)"}, "3 + 5\n#### 8"),
        ({"name": "json", "field": "answer"}, '{"why": "3 + 5", "answer": 8}'),
    ],
)
def test_a_reference_that_is_the_answer_alone_is_looked_for_in_the_solution(
    reader: dict[str, str], worked: str
) -> None:
    """It stands there in the form that the reader knows, and so answers are compared with the solution's."""
    task = family_of(keys := make_params(solution_column="worked", reader=reader, max_new_tokens=60).prepare)
    rows = RowReader(keys, task, tiny_tokenizer())
    row = rows.read(RawRow("f", 1, {"text": "t", "answer": "8", "worked": worked}))
    assert isinstance(row, Row), row
    assert task.scores([row, row], [worked, worked.replace("8", "9")]).tolist() == [1.0, 0.0]
    for answer, said, reason in (("9", worked, OTHER_ANSWER), ("8", "it is 8", NO_ANSWER)):
        found = rows.read(RawRow("f", 1, {"text": "t", "answer": answer, "worked": said}))
        assert isinstance(found, Rejection)
        assert found.reason == reason


def test_references_that_are_no_mathematics_stop_the_stage() -> None:
    task = family_of(make_params(reader={"name": "math"}).prepare)
    rows = [Row("f:1", "p", " c", references=(text,)) for text in ("$\\frac{1}{2}$", "3", "none of these")]
    task.check_split("train", rows)
    task.check_split("test", rows[:2])
    with pytest.raises(PipelineError, match=r"'none of these', and 1 of 3 in all"):
        task.check_split("test", rows)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"measure": "chrf", "reader": {"name": "number"}}, "compares texts"),
        ({"solution_column": "worked"}, "needs a reader that finds the answer"),
        ({"answer_column": "text"}, "must not be read by the template"),
        ({"reader": {"name": "regex", "pattern": "(a)(b)"}}, "must have one group"),
        ({"reader": {"name": "regex", "pattern": "(a"}}, "a regular expression of Python"),
        ({"reader": {"name": "regex"}}, "pattern"),
    ],
)
def test_keys_that_contradict_each_other_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(PipelineError, match=said):
        make_params(**changes)


def test_a_base_without_an_end_is_refused() -> None:
    tokenizer, keys = tiny_tokenizer(), make_params().prepare
    tokenizer.eos_token = None
    with pytest.raises(PipelineError, match="needs a base with a token that ends a text"):
        RowReader(keys, family_of(keys), tokenizer)


def test_a_search_raises_the_measure_of_the_task_alone() -> None:
    raw = raw_params({**FEW, "search.objectives": ["exact_match"]})
    with pytest.raises(PipelineError, match="must begin with accuracy, the measure of task classification; got exact"):
        check_params(raw, "params.yaml")
