"""Options that differ by row go through every stage, however data sets have them."""

from __future__ import annotations

import math
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipelines.contracts.beside import read_near
from pipelines.contracts.evaluation import read_evaluation
from pipelines.contracts.predictions import read_predictions
from pipelines.contracts.prepared import Rejection, Row, read_rows
from pipelines.contracts.task import TaskSpec
from pipelines.errors import PipelineError
from pipelines.params.whole import Params, check_params
from pipelines.registry.package import model_input
from pipelines.serving.pyfunc import AdapterModel
from pipelines.sources.raw_row import RawRow
from pipelines.tasks.family import family_of, open_family
from pipelines.tasks.options import NO_ANSWER
from pipelines.tasks.reader import RowReader
from tests.pipelines.staged import run_stages, write_json_rows
from tests.searching import FEW, raw_params
from tests.tiny import tiny_tokenizer, write_tiny_base

CHANGES: dict[str, Any] = FEW | {
    "prepare.task": "choice",
    "prepare.source": "file:data/own/rows.jsonl",
    "prepare.format": "jsonl",
    "prepare.template": "Question: {question}\nAnswer:",
    "search.trials": 1,
    "search.space.learning_rate": {"low": 1e-2, "high": 1e-1, "log": True},
    "search.space.layers": ["all"],
    "search.enqueue": [{"layers": "all", "positions": "l4", "rank": 4, "learning_rate": 0.05}],
    "train.epochs": 25,
    "train.batch_size": 8,
}
KEYS: dict[str, Any] = {
    "split": None, "option_columns": ["options"], "options": None, "answer_column": "answer", "answer_as": "index",
    "score": "per_byte", "train_on": "answer",
}  # fmt: skip


def make_params(template: str | None = None, **changes: Any) -> Params:
    raw = raw_params(CHANGES | ({} if template is None else {"prepare.template": template}))
    for key in ("label_column", "labels", "measure"):
        del raw["prepare"][key]
    raw["prepare"] |= KEYS | changes
    return check_params(raw, "params.yaml")


def make_project(root: Path, params: Params) -> None:
    """Run every stage up to evaluate: the option that says bad is right, where the random base likes the other more."""
    write_tiny_base(root / "models" / "own" / "tiny")
    rows = []
    for number in range(40):
        options = ["positive", "negative"]
        options = options if number % 2 else options[::-1]
        rows.append({"question": f"a film, number {number}.", "options": options, "answer": number % 2})
    write_json_rows(root, rows)
    run_stages(root, params)


@pytest.fixture(scope="module", params=["answer", "options"])
def project(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which all stages have run, trained on the right option alone or against the others."""
    root = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFT_HOME", str(root / "home"))
        make_project(root, make_params(train_on=request.param))
    return root


def test_an_adapter_learns_which_option_is_right(project: Path) -> None:
    evaluation = read_evaluation(project / "evaluation.json")
    rows = read_predictions(project / "predictions.parquet")
    systems = ("adapter", "base")
    right = {}
    for system in systems:
        hits = [getattr(row, system).details["letter"] == row.label for row in rows]
        assert [getattr(row, system).score for row in rows] == hits
        right[system] = np.mean(hits)
    assert (evaluation.adapter.value, evaluation.base.value) == (right["adapter"], right["base"])
    assert evaluation.adapter.value == 1.0 > evaluation.base.value
    assert set(evaluation.adapter.summary) == {"accuracy_sum", "accuracy_per_token", "accuracy_per_byte"}
    assert evaluation.baselines["chance"] == 0.5


def test_what_the_figure_alone_does_not_show_stands_beside_it(project: Path) -> None:
    """The commonest letters and calibration by the predictions' own rows; the parts of a slicing have all rows."""
    rows = read_predictions(project / "predictions.parquet")
    found = read_evaluation(project / "evaluation.json").diagnostics
    assert found is not None
    assert found.forgetting is not None
    assert found.forgetting.passages == 24
    assert found.forgetting.change.low <= found.forgetting.change.value <= found.forgetting.change.high
    for system in ("adapter", "base"):
        details = [getattr(row, system).details for row in rows]
        letters = [each["letter"] for each in details]
        assert found.common[system].share == max(letters.count(letter) for letter in "AB") / len(rows)
        sure = np.mean([max(each["probabilities"]) for each in details])
        bins = found.calibration[system].bins
        assert sum(each.rows * each.confidence for each in bins) / len(rows) == pytest.approx(sure, abs=1e-5)
    for by in ("length", "label", "near a training row"):
        assert sum(each.rows for each in found.slices if each.by == by) in (len(rows), 0)
    near = {each.id for each in read_near(project / "prepared") if (each.split, each.other_split) == ("test", "train")}
    assert found.near_training == len(near)


def test_the_served_model_chooses_among_the_options_given(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFT_HOME", str(project / "home"))
    served = AdapterModel()
    served.load_context(SimpleNamespace(artifacts={"adapter": project / "adapter", "base": project / "base.json"}))
    asked = {"question": "a film, number 3.", "options": ["positive", "negative", "positive one"]}
    answers = served.predict([asked, {**asked, "options": asked["options"][:2]}])
    assert [answer["choice"] for answer in answers] == ["negative"] * 2
    assert [len(answer["probabilities"]) for answer in answers] == [3, 2]
    assert (answers[0]["letter"], answers[0]["index"]) == ("B", 1)
    assert served.predict(asked) == answers[:1]


def test_the_registered_model_answers_its_example(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As registering asks it; the example has options too, in a list or in columns of their own."""
    monkeypatch.setenv("REFT_HOME", str(project / "home"))
    served = AdapterModel()
    served.load_context(SimpleNamespace(artifacts={"adapter": project / "adapter", "base": project / "base.json"}))
    example, _ = model_input(project / "adapter")
    assert set(example) == {"question", "options"}
    (answer,) = served.predict([example])
    assert answer["choice"] in example["options"]
    columns = family_of(make_params(option_columns=["a", "b", "c"]).prepare).example()
    assert len(set(columns.values())) == len({"question", "a", "b", "c"} & set(columns)) == 4


def read(value: dict[str, Any], template: str = "{question}\nAnswer:", **changes: Any) -> Row | Rejection:
    keys = make_params(template, **changes).prepare
    return RowReader(keys, family_of(keys), tiny_tokenizer()).read(RawRow("f", 1, {"question": "why", **value}))


ARC = {"text": ["good", "bad", "fine"], "label": ["1", "2", "3"]}
PAIRS = [{"label": "A", "text": "good"}, {"label": "B", "text": "bad"}]
THREE = ["answerA", "answerB", "answerC"]
WHOLE = "it is good or bad: why\nAnswer1: good Answer2: bad\n\nAnswer format: answer1/answer2"
PATTERN = (
    r"(?s)^(?P<asked>.*?)\s+Answer1: (?P<answer1>.*?)\s+Answer2: (?P<answer2>.*?)"
    r"(?:\s+Answer3: (?P<answer3>.*?))?\s+Answer format"
)


@pytest.mark.parametrize(
    ("value", "columns", "answer_column", "answer_as"),
    [
        ({"choices": ARC, "answerKey": "2"}, ["choices"], "answerKey", "label"),
        ({"choices": PAIRS, "answerKey": "B"}, ["choices"], "answerKey", "label"),
        ({"sol1": "good", "sol2": "bad", "label": 1}, ["sol1", "sol2"], "label", "index"),
        ({"option1": "good", "option2": "bad", "answer": "2"}, ["option1", "option2"], "answer", "number"),
        ({"option1": "good", "option2": "bad", "answer": "option2"}, ["option1", "option2"], "answer", "label"),
        ({"answerA": "good", "answerB": "bad", "answerC": "", "label": "2\n"}, THREE, "label", "number"),
        ({"answerA": "good", "answerB": "bad", "answerC": math.nan, "label": "2"}, THREE, "label", "number"),
        ({"answerA": "good", "answerB": "bad", "label": "2"}, THREE, "label", "number"),
        ({"endings": ["good", "bad"], "label": "1"}, ["endings"], "label", "index"),
        ({"endings": '["good", "bad"]', "label": "1"}, ["endings"], "label", "index"),
        ({"endings": np.array(["good", "bad"]), "label": 1}, ["endings"], "label", "index"),
        ({"options": ["A)good", "B)bad"], "correct": "B"}, ["options"], "correct", "letter"),
        ({"options": ["good", "bad"], "correct": "(B)"}, ["options"], "correct", "letter"),
        ({"options": ["good", "bad"], "correct": "Bad"}, ["options"], "correct", "text"),
        ({"options": ["A. good", "B. bad"], "correct": "B. bad"}, ["options"], "correct", "text"),
        ({"options": ["good", "bad"], "correct": "b) bad"}, ["options"], "correct", "text"),
    ],
)
def test_options_and_answers_are_read_as_data_sets_have_them(
    value: dict[str, Any], columns: list[str], answer_column: str, answer_as: str
) -> None:
    """Each has good as its first option, and the second, bad, is right: as ARC, PIQA, WinoGrande and others."""
    row = read(value, option_columns=columns, answer_column=answer_column, answer_as=answer_as)
    assert isinstance(row, Row), row
    assert (row.choices[:2], row.completion, row.label) == ((" good", " bad"), " bad", "B")
    assert len(row.choice_tokens) == len(row.choices) == (3 if value.get("choices") is ARC else 2)


FRUIT = {"optionA": "apple", "optionB": "", "optionC": "cherry", "optionD": "date"}


@pytest.mark.parametrize(
    ("answer", "answer_as", "right"),
    [
        ("C", "letter", " cherry"),
        (3, "number", " cherry"),
        (2, "index", " cherry"),
        ("optionC", "label", " cherry"),
        ("cherry", "text", " cherry"),
        ("D", "letter", " date"),
        (0, "index", " apple"),
        ("B", "letter", None),
        (2, "number", None),
        (1, "index", None),
    ],
)
def test_an_answer_counts_the_columns_also_those_that_are_empty(
    answer: object, answer_as: str, right: str | None
) -> None:
    """The third column is C, 3 and 2 from 0, whatever stands in the second, which no answer can mean."""
    row = read({**FRUIT, "answer": answer}, option_columns=list(FRUIT), answer_as=answer_as)
    if right is None:
        assert isinstance(row, Rejection)
        assert "none of the row's options" in row.reason
    else:
        assert isinstance(row, Row)
        assert (row.completion, row.choices) == (right, (" apple", " cherry", " date"))


def test_a_pattern_that_would_take_for_ever_rejects_the_row_after_a_second() -> None:
    split = {"column": "question", "pattern": r"^(?P<one>(a|aa)+)(?P<two>b)?$"}
    started = time.monotonic()
    row = read({"question": "a" * 60 + "!", "answer": 0}, "Which?{one}", split=split, option_columns=["one", "two"])
    assert time.monotonic() - started < 20
    assert isinstance(row, Rejection)
    assert "more than a second" in row.reason


def test_an_answer_behind_the_letter_of_another_option_is_none_of_them() -> None:
    row = read({"options": ["A. good", "B. bad"], "correct": "A. bad"}, option_columns=["options"],
               answer_column="correct", answer_as="text")  # fmt: skip
    assert isinstance(row, Rejection)
    assert row.reason == NO_ANSWER


def test_options_that_are_the_same_for_every_row_stand_in_params() -> None:
    row = read({"answer": True}, option_columns=[], options=["bad", "good"])
    assert isinstance(row, Row)
    assert (row.choices, row.completion) == ((" bad", " good"), " good")


def test_question_and_options_in_one_text_are_split_by_a_pattern() -> None:
    """As LLM-Adapters' data sets have them; the fourth option and the third are not there."""
    split = {"column": "question", "pattern": PATTERN}
    columns = ["answer1", "answer2", "answer3"]
    row = read(
        {"question": WHOLE, "answer": "answer2"}, "{asked}\nAnswer:",
        split=split, option_columns=columns, answer_as="label",
    )  # fmt: skip
    assert isinstance(row, Row), row
    assert (row.prompt, row.choices) == ("it is good or bad: why\nAnswer:", (" good", " bad"))
    other = read({"question": "why", "answer": "answer2"}, "{asked}", split=split, option_columns=columns)
    assert isinstance(other, Rejection)
    assert "parts that split.pattern names" in other.reason


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"options": ["good"], "answer": 0}, "fewer than two options"),
        ({"options": ["good", "good"], "answer": 0}, "two options are the same"),
        ({"options": ["good", ""], "answer": 0}, "a text is empty"),
        ({"options": ["good", "bad</s>"], "answer": 0}, "special token"),
        ({"options": "good or bad", "answer": 0}, "no list of texts"),
        ({"options": ["good", None], "answer": 0}, "no list of texts"),
        ({"options": ["good"] + [f"bad {n}" for n in range(26)], "answer": 0}, "more options than letters"),
        ({"options": ["good", "bad"], "answer": 2}, "none of the row's options"),
        ({"options": ["good", "bad"], "answer": -1}, "none of the row's options"),
        ({"options": ["good", "bad"], "answer": 0.5}, "none of the row's options"),
        ({"options": ["good", "bad"], "answer": None}, "none of the row's options"),
        ({"answer": 0}, "a column is missing"),
    ],
)
def test_a_row_that_cannot_be_asked_is_rejected_with_the_reason(value: dict[str, Any], reason: str) -> None:
    row = read(value)
    assert isinstance(row, Rejection)
    assert reason in row.reason


def test_letters_are_asked_of_a_prompt_that_lists_what_they_stand_for() -> None:
    row = read({"options": ["good", "bad"], "answer": 1}, "{question}\n{lettered_options}\nAnswer:", score="letter")
    assert isinstance(row, Row)
    assert row.prompt == "why\nA. good\nB. bad\nAnswer:"
    assert (row.choices, row.completion) == ((" A", " B"), " B")
    spec = family_of(make_params("{question}\n{lettered_options}\nAnswer:", score="letter").prepare).spec
    found = open_family(spec).read(row, np.array([-2.0, -1.0]))
    assert (found.value, found.details["letter"], found.details["index"]) == ("bad", "B", 1)
    with pytest.raises(PipelineError, match=r"letter needs \{lettered_options\} in the template"):
        make_params(score="letter")


def test_one_question_with_other_options_is_another_row_of_one_group() -> None:
    one, other = (read({"options": ["good", word], "answer": 0}) for word in ("bad", "awful"))
    same = read({"options": ["bad", "good"], "answer": 1})
    assert isinstance(one, Row)
    assert isinstance(other, Row)
    assert isinstance(same, Row)
    assert one.key != other.key
    assert one.key == same.key
    assert one.unit == other.unit == "why"


def test_a_part_of_a_split_text_may_name_the_group() -> None:
    """Twins, as those of WinoGrande, begin alike; a part may lie in another."""
    split = {"column": "whole", "pattern": "(?P<question>(?P<beginning>.*?_).*)\\| (?P<one>.*) or (?P<two>.*)"}
    keys = {"split": split, "option_columns": ["one", "two"], "group_column": "beginning"}
    rows = [
        read({"whole": f"The pan was too _ so it {end} | hot or cold", "answer": 0}, **keys) for end in ("rose", "fell")
    ]
    assert [row.group for row in rows if isinstance(row, Row)] == ["the pan was too _"] * 2
    with_columns = make_params(**keys, format="tsv", columns=["whole", "answer"])
    assert with_columns.prepare.row_columns() == ("answer", "whole")


def test_one_question_in_two_domains_is_one_group() -> None:
    rows = [
        read({"options": ["good", "bad"], "answer": 0, "year": year}, "In {year}: {question}", domain_column="year")
        for year in (2001, 2002)
    ]
    assert [row.domain for row in rows if isinstance(row, Row)] == [2001, 2002]
    assert {row.unit for row in rows if isinstance(row, Row)} == {"why"}


def test_each_way_to_score_divides_by_its_own_length() -> None:
    """Sums, by tokens and by bytes: of -6 (2 tokens, 3 bytes), -7 (4 and 5) and -8 (3 and 12), worked out by hand."""
    row = Row("f:1", "p", " abc", label="C", choices=(" abc", " ébcd", " abcdefghijkl"), choice_tokens=(2, 4, 3))
    said = [np.array([-6.0, -7.0, -8.0])]
    chosen = {}
    for score in ("sum", "per_token", "per_byte"):
        task = open_family(TaskSpec("choice", "{q}", False, settings={**KEYS, "score": score}))
        chosen[score] = task.read(row, said[0]).details["letter"]
    assert chosen == {"sum": "A", "per_token": "B", "per_byte": "C"}  # -3, -1.75, -2.67 a token; -2, -1.4, -0.67 a byte
    assert task.summary([row], said) == {"accuracy_sum": 0.0, "accuracy_per_token": 0.0, "accuracy_per_byte": 1.0}
    assert task.scores([row], said).tolist() == [1.0]


def test_prepared_rows_are_read_back(project: Path) -> None:
    row = read_rows(project / "prepared", "train")[0]
    assert row.completion in row.choices
    assert all(isinstance(count, int) for count in row.choice_tokens)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"options": ["good", "bad"]}, "not of both"),
        ({"option_columns": []}, "not of both"),
        ({"option_columns": [], "options": ["good", "good"]}, "two different texts"),
        ({"answer_column": "options"}, "must not be read by template or option_columns"),
        ({"split": {"column": "text", "pattern": "(?P<question>"}}, "a regular expression"),
        ({"split": {"column": "text", "pattern": "(.*)"}}, "must have named groups"),
    ],
)
def test_keys_that_contradict_each_other_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(PipelineError, match=said):
        make_params(**changes)
