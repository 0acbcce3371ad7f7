"""What is guessed of a data file, from its rows alone. File names say nothing here, so that they cannot help."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.errors import PipelineError
from pipelines.intake import layout as layout_module
from pipelines.intake.columns import guess, split_sizes
from pipelines.intake.labels import Usable
from pipelines.intake.layout import Layout, find_layout, sample_rows
from pipelines.intake.proposal import Example, Proposal, apply_changes, propose
from pipelines.params.whole import Params, check_params, load_params
from pipelines.tasks.keys.template import template_fields

ROOT = Path(__file__).parents[3]
PARAMS = ROOT / "params.yaml"
SOURCE = "file:data/own/rows"
ANSWERS = {
    "boolq": ["true", "false"],
    "arc": ["answer1", "answer2", "answer3", "answer4"],
    "piqa": ["solution1", "solution2"],
    "winogrande": ["option1", "option2"],
    "mathqa": ["A", "B", "C", "D", "E"],
}


def shipped() -> Params:
    """The params of the repository, with row limits of the tests' own."""
    raw = load_params(PARAMS).model_dump(by_alias=True)
    raw["prepare"] |= {"train_rows": 1000, "validation_rows": 200, "test_rows": 500}
    return check_params(raw, "params.yaml")


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "rows"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def delimited(rows: list[tuple[Any, ...]], **dialect: Any) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n", **dialect).writerows(rows)
    return out.getvalue()


def llm_adapters(answers: list[str], count: int = 60) -> str:
    """Rows laid out as the LLM-Adapters data sets are: the output says the answer in other words."""
    rows = [
        {
            "instruction": f"Question {n}, and many a word of it: {n * 7}?\n\nAnswer format: {'/'.join(answers)}",
            "input": "",
            "output": f"the correct answer is {answers[n % len(answers)]}",
            "answer": answers[n % len(answers)],
        }
        for n in range(count)
    ]
    return json.dumps(rows)


def look(folder: Path, content: str | bytes) -> Proposal:
    return propose(write(folder, content), SOURCE, "train", shipped())


@pytest.mark.parametrize("answers", ANSWERS.values(), ids=ANSWERS)
def test_llm_adapters_rows_are_known_by_their_layout(tmp_path: Path, answers: list[str]) -> None:
    section = look(tmp_path, llm_adapters(answers)).changes["prepare"]
    assert section["format"] == "json"
    assert section["template"] == "{instruction}\n"
    assert section["label_column"] == "answer"
    assert [label["values"] for label in section["labels"].values()] == [[answer] for answer in sorted(answers)]
    assert [label["word"] for label in section["labels"].values()] == sorted(answers)


TEXTS = [f"It was film number {n}, and a {'good' if n % 2 else 'poor'} one." for n in range(40)]
OBJECTS = [{"text": text, "mark": n % 2} for n, text in enumerate(TEXTS)]


@pytest.mark.parametrize(
    ("content", "layout"),
    [
        (delimited([("text", "mark"), *((t, n % 2) for n, t in enumerate(TEXTS))]), Layout("csv", None, True)),
        (delimited([(t, n % 2) for n, t in enumerate(TEXTS)]), Layout("csv", ("text", "label"), True)),
        (
            delimited([(t, n % 2) for n, t in enumerate(TEXTS)], delimiter="\t", quoting=csv.QUOTE_NONE),
            Layout("tsv", ("text", "label"), False),
        ),
        (
            "text\tmark\n" + "".join(f'"{t} he said\t{n % 2}\n' for n, t in enumerate(TEXTS)),
            Layout("tsv", None, False),
        ),
        (
            delimited(
                [("text", "mark"), *((f'"{t}" he said', n % 2) for n, t in enumerate(TEXTS))], delimiter="\t"
            ),
            Layout("tsv", None, True),
        ),
        (
            "Quality\t#1 ID\t#1 String\n" + "".join(f"{n % 2}\t{n}\t{t}\n" for n, t in enumerate(TEXTS)),
            Layout("tsv", None, False),
        ),
        (
            delimited([("text", "text", "mark"), *((t, t, n % 2) for n, t in enumerate(TEXTS))]),
            Layout("csv", ("text", "text_2", "mark"), True, titled=True),
        ),
        (
            "text\tmark\t\n" + "".join(f"{t}\t{n % 2}\t\n" for n, t in enumerate(TEXTS)),
            Layout("tsv", None, False),
        ),
        ("".join(json.dumps(row) + "\n" for row in OBJECTS), Layout("jsonl", None, True)),
        ("\ufeff" + json.dumps(OBJECTS), Layout("json", None, True)),
    ],
    ids=["csv", "untitled csv", "untitled tsv", "stray quotes", "quoted tsv", "odd titles", "a title twice",
         "a last delimiter", "jsonl", "json"],
)  # fmt: skip
def test_the_layout_is_found_from_the_content(tmp_path: Path, content: str, layout: Layout) -> None:
    proposal = look(tmp_path, content)
    assert proposal.layout == layout
    assert len(proposal.rows) == len(TEXTS)
    assert not [row for row in proposal.rows if row.problem]
    assert len(proposal.changes["prepare"]["labels"]) == 2


def test_parquet_is_found_by_its_first_bytes(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.table({"text": TEXTS, "mark": [bool(n % 2) for n in range(40)]})
    parquet.write_table(table, tmp_path / "rows")
    layout = find_layout(tmp_path / "rows")
    assert layout.format == "parquet"
    found = guess(sample_rows(tmp_path / "rows", layout))
    assert [label["values"] for label in found.labels.values()] == [[False], [True]]
    assert list(found.labels) == ["false", "true"]


QUESTIONS_ASKED = [f"How much are {n} and {n * n} apples?" for n in range(60)]


def free(column: str, answers: Sequence[object], **more: Sequence[object]) -> str:
    """Rows of a question, an answer and more columns."""
    rows = zip(QUESTIONS_ASKED, answers, *more.values(), strict=True)
    return "\n".join(json.dumps(dict(zip(("question", column, *more), row, strict=True))) for row in rows)


SUMS = [f"{n + n * n}.0" for n in range(60)]
SOLUTIONS = [f"{n} + {n * n} is the sum.\n#### {n + n * n:,}" for n in range(60)]
SENTENCES = [f"That is a matter of taste, and number {n} is as good as any other." for n in range(60)]


@pytest.mark.parametrize(
    ("column", "answers", "reader", "measure"),
    [
        ("answer", SUMS, {"name": "number"}, "exact_match"),
        ("response", SOLUTIONS, {"name": "number"}, "exact_match"),
        ("solution", [f"So $\\boxed{{\\frac{{{n}}}{{7}}}}$." for n in range(60)], {"name": "math"}, "exact_match"),
        ("target", [f"Name {n}" for n in range(60)], {"name": "exact"}, "exact_match"),
        ("summary", SENTENCES, {"name": "exact"}, "chrf"),
    ],
)
def test_free_answers_are_proposed_with_a_reader_and_a_measure(
    tmp_path: Path, column: str, answers: list[str], reader: dict[str, str], measure: str
) -> None:
    proposal = look(tmp_path, free(column, answers))
    section = proposal.changes["prepare"]
    assert (section["task"], section["answer_column"], section["reader"]) == ("generation", column, reader)
    assert section["template"] == f"Question: {{question}}\n{column.capitalize()}:"
    assert section["measure"] == proposal.changes["search"]["objectives"][0] == measure
    assert proposal.example == Example(f"Question: {QUESTIONS_ASKED[0]}\n{column.capitalize()}:", (), f" {answers[0]}")
    assert (proposal.usable.rows, proposal.doubts) == (60, ())
    apply_changes(PARAMS, proposal.changes)


@pytest.mark.parametrize("style", ["{},5", "{}\u202f200", "{}'200", "- {}", "{}½"])
def test_numbers_that_reader_number_takes_for_others_are_doubted(tmp_path: Path, style: str) -> None:
    proposal = look(tmp_path, free("answer", [style.format(n) for n in range(60)]))
    assert proposal.changes["prepare"]["reader"] == {"name": "exact"}
    assert "numbers in a way to write that reader number takes for other ones" in " ".join(proposal.doubts)


def test_answers_inside_a_column_of_objects_are_free_answers_and_in_doubt(tmp_path: Path) -> None:
    """As instruction data has them, beside a mark that is no label; a test file is read by the same path."""
    rows = [
        {"instruction": q, "instances": [{"input": "", "output": s}] * (1 + (n == 0)), "is_classification": n % 2 == 0}
        for n, (q, s) in enumerate(zip(QUESTIONS_ASKED, SENTENCES, strict=True))
    ]
    proposal = look(tmp_path, json.dumps(rows))
    section = proposal.changes["prepare"]
    assert (section["task"], section["template"], section["answer_column"]) == (
        "generation", "{instruction}\n", "instances.0.output",
    )  # fmt: skip
    assert proposal.example == Example(f"{QUESTIONS_ASKED[0]}\n", (), SENTENCES[0])
    assert proposal.doubts == (
        "the answer is inside instances, as instances.0.output; 1 rows have more there, which are not read",
    )
    path = tmp_path / "params.yaml"
    path.write_text(apply_changes(PARAMS, proposal.changes), encoding="utf-8")
    test = propose(write(tmp_path, json.dumps(rows[:30])), "file:data/own/test", "test", load_params(path))
    assert test.usable == Usable(30, {})


def test_a_worked_solution_that_ends_in_the_answer_is_trained_on_and_never_asked(tmp_path: Path) -> None:
    section = look(tmp_path, free("answer", SUMS, output=SOLUTIONS)).changes["prepare"]
    assert (section["answer_column"], section["solution_column"]) == ("answer", "output")
    assert section["template"] == "Question: {question}\nAnswer:"
    other = look(tmp_path, free("answer", SUMS, output=SENTENCES)).changes["prepare"]  # it ends in another number
    assert other["solution_column"] is None


def test_a_column_that_is_named_like_a_label_is_one_beside_a_free_text(tmp_path: Path) -> None:
    rows = free("response", SENTENCES, label=["good", "bad", "good"] * 20)
    assert look(tmp_path, rows).changes["prepare"]["label_column"] == "label"


@pytest.mark.parametrize("names", [("messages", "role", "content"), ("conversations", "from", "value")])
def test_conversations_are_proposed_and_one_of_their_answers_is_shown(
    tmp_path: Path, names: tuple[str, str, str]
) -> None:
    column, role, content = names
    roles = {"user": "human", "assistant": "gpt"} if role == "from" else {"user": "user", "assistant": "assistant"}
    said = [("user", "hi, I am"), ("assistant", "hello"), ("user", "and"), ("assistant", "well")]
    rows = [{column: [{role: roles[who], content: f"{what} {n}"} for who, what in said]} for n in range(40)]
    broken = {column: [{role: roles["user"], content: "nobody answers"}]}
    proposal = look(tmp_path, "\n".join(map(json.dumps, [*rows, broken])))
    section = proposal.changes["prepare"]
    assert (section["task"], section["template"], section["chat"]) == ("generation", f"{{{column}}}", True)
    assert (section["answer_column"], section["measure"]) == (None, "chrf")
    assert proposal.usable == Usable(80, {"because a conversation has no answer to a user": 1})
    assert proposal.example == Example("user: hi, I am 0\nassistant:", (), " hello 0")
    beside = look(tmp_path, "\n".join(json.dumps({**row, "system": "Be short."}) for row in rows)).doubts
    assert (proposal.doubts, beside) == ((), ("system is a column beside the turns, and is not read",))
    apply_changes(PARAMS, proposal.changes)


@pytest.mark.parametrize(
    ("turn", "said"),
    [
        ({"role": "user", "content": ""}, "a turn is empty"),
        ({"role": "tool", "content": "3"}, "a turn calls a tool"),
        ({"role": "critic", "content": "3"}, "a turn is of a role that is not known"),
    ],
)
def test_why_no_conversation_can_be_learned_is_said(tmp_path: Path, turn: dict[str, str], said: str) -> None:
    rows = [
        {
            "messages": [turn, {"role": "user", "content": t}, {"role": "assistant", "content": "so"}],
            "kind": "ab"[n % 2],
        }
        for n, t in enumerate(TEXTS)
    ]
    with pytest.raises(PipelineError, match=f"that can be asked and answered.*40 rows because {said}"):
        look(tmp_path, json.dumps(rows))


def test_a_test_file_of_free_answers_is_read_as_the_training_file_is(tmp_path: Path) -> None:
    raw = shipped().model_dump(by_alias=True)
    train = look(tmp_path, free("answer", SUMS))
    raw["prepare"] = {
        key: value for key, value in raw["prepare"].items() if key not in ("labels", "label_column", "measure")
    }
    for section, values in train.changes.items():
        raw[section] |= values
    raw["prepare"]["validation_source"] = None
    params = check_params(raw, "params.yaml")
    path = write(tmp_path, free("answer", ["none", *SUMS[1:]]))
    found = propose(path, "file:data/own/test", "test", params)
    assert found.usable == Usable(59, {"have no answer that can be read": 1})
    assert found.changes["prepare"]["test_source"] == "file:data/own/test"
    with pytest.raises(PipelineError, match="must have rows with question and an answer in answer"):
        propose(write(tmp_path, free("result", SUMS)), "file:data/own/test", "test", params)


HALVES = [n % 26 / 5 for n in range(60)]


@pytest.mark.parametrize(
    ("column", "beside", "doubt"),
    [
        ("score", {"reference": SENTENCES}, "reference may hold free answers"),
        ("reference_score", {}, "reference_score may hold computed numbers"),
        ("target", {}, "target may hold computed numbers"),
        ("answer", {"rating": HALVES}, "answer may hold free answers"),
    ],
)
def test_a_column_of_scores_is_no_free_number(
    tmp_path: Path, column: str, beside: dict[str, Sequence[object]], doubt: str
) -> None:
    """By its title, or by fractions, which few computed numbers have; and a person is asked."""
    numbers = SUMS if column == "answer" else HALVES
    proposal = look(tmp_path, free(column, numbers, **beside))
    section = proposal.changes["prepare"]
    scores = "rating" if column == "answer" else column
    assert (section["task"], section["number_column"], section["high"]) == ("regression", scores, 5.0)
    assert doubt in " ".join(proposal.doubts)
    apply_changes(PARAMS, proposal.changes)


def test_conversations_that_were_scored_are_conversations(tmp_path: Path) -> None:
    turns = [
        [{"role": "user", "content": q}, {"role": "assistant", "content": s}]
        for q, s in zip(TEXTS, SENTENCES, strict=False)
    ]
    rows = [{"messages": said, "score": score} for said, score in zip(turns, HALVES, strict=False)]
    assert look(tmp_path, "\n".join(map(json.dumps, rows))).changes["prepare"]["template"] == "{messages}"


@pytest.mark.parametrize("solved", [True, False])
def test_rows_that_contradict_each_other_are_not_usable(tmp_path: Path, solved: bool) -> None:
    """Where an answer is right or wrong; a text may have several worked solutions, or summaries."""
    twice = [*SUMS[:59], "7"]
    rows = [json.loads(line) for line in free("answer", twice, output=[*SOLUTIONS[:59], "#### 7"]).split("\n")]
    rows[59]["question"] = rows[0]["question"]
    if not solved:
        rows = [{"question": row["question"], "answer": row["answer"]} for row in rows]
    usable = look(tmp_path, json.dumps(rows)).usable
    assert usable == (Usable(60, {}) if solved else Usable(58, {"have a text with another answer": 2}))


def test_questions_that_contradict_each_other_are_not_usable(tmp_path: Path) -> None:
    rows = [{"question": t, "choices": ["one", "two", f"{n}"], "answer": n % 2} for n, t in enumerate(TEXTS)]
    again = [rows[0], {**rows[1], "answer": 0}]
    usable = look(tmp_path, json.dumps([*rows, *again])).usable
    lost = {"have a question that stands in an earlier row": 1, "have a question with another answer": 2}
    assert usable == Usable(len(TEXTS) - 1, lost)


@pytest.mark.parametrize("scores", [[n / 7 for n in range(90)], [7 * (n % 25) for n in range(90)]])
def test_a_score_or_a_computed_number_is_no_label_of_a_file_without_titles(tmp_path: Path, scores: list[float]) -> None:
    rows = [(score, f"{TEXTS[0]} {n}") for n, score in enumerate(scores)]
    with pytest.raises(PipelineError, match=r"which a score or a computed number is not.*--no-params.*min and max"):
        look(tmp_path, delimited(rows))


@pytest.mark.parametrize(
    ("scores", "bounds", "words"),
    [
        ([n % 26 / 5 for n in range(90)], (0.0, 5.0), [" zero", " one", " two", " three", " four", " five"]),
        ([4 * (n % 25) for n in range(90)], (0.0, 100.0), [" zero", " twenty", " 40", " 60", " 80", " 100"]),
        ([n % 250 / 250 for n in range(250)], (0.0, 1.0), [" zero", " 0.2", " 0.4", " 0.6", " 0.8", " one"]),
        ([n % 48 / 25 - 0.96 for n in range(90)], (-1.0, 1.0), [" minus one", " zero", " one"]),
        ([1 + n % 40 / 10 for n in range(90)], (1.0, 5.0), [" one", " two", " three", " four", " five"]),
    ],
)
def test_a_score_is_proposed_between_its_bounds_with_words_for_a_decoder(
    tmp_path: Path, scores: list[float], bounds: tuple[float, float], words: list[str] | None
) -> None:
    rows = [("id", "stars", "comment"), *((n, score, f"{TEXTS[0]} {n}") for n, score in enumerate(scores))]
    proposal = look(tmp_path, delimited(rows))
    section = proposal.changes["prepare"]
    assert (section["task"], section["number_column"]) == ("regression", "stars")
    assert section["template"] == "Comment: {comment}\nStars:"
    assert (section["low"], section["high"]) == bounds
    spelled = list(section["words"])
    assert [word.rstrip("\n") for word in spelled] == words
    assert (min(section["words"].values()), max(section["words"].values())) == bounds
    assert proposal.changes["search"]["objectives"][0] == section["measure"] == "pearson"
    assert proposal.example == Example(f"Comment: {TEXTS[0]} 0\nStars:", tuple(spelled), spelled[0])
    assert (proposal.usable.rows, proposal.doubts) == (len(scores), ())
    apply_changes(PARAMS, proposal.changes)


@pytest.mark.parametrize(
    ("scores", "bounds"),
    [
        ([n % 25 / 50 for n in range(90)], (0.0, 0.5)),
        ([7 * (n % 25) for n in range(90)], (0.0, 200.0)),
        ([n % 41 / 10 for n in range(90)], (0.0, 4.0)),
        ([n % 117 - 37 for n in range(240)], (-100.0, 100.0)),
        ([2000 + n % 23 for n in range(90)], (2000.0, 2030.0)),
    ],
)
def test_scores_that_fill_no_usual_range_are_a_doubt(
    tmp_path: Path, scores: list[float], bounds: tuple[float, float]
) -> None:
    rows = [("stars", "comment"), *((score, f"{TEXTS[0]} {n}") for n, score in enumerate(scores))]
    proposal = look(tmp_path, delimited(rows))
    section = proposal.changes["prepare"]
    assert (section["low"], section["high"]) == bounds
    assert "which fills no usual range of scores" in " ".join(proposal.doubts)
    apply_changes(PARAMS, proposal.changes)


def test_of_an_encoder_a_score_needs_no_words_and_two_texts_are_a_pair(tmp_path: Path) -> None:
    rows = [("score", "one", "other"), *((n % 26 / 5, f"{TEXTS[0]} {n}", f"{n} is {TEXTS[1]}") for n in range(90))]
    raw = of_encoder().model_dump(by_alias=True)
    proposal = propose(write(tmp_path, delimited(rows)), SOURCE, "train", check_params(raw, "params.yaml"))
    section = proposal.changes["prepare"]
    assert (section["template"], section["second_template"], section["words"]) == ("{one}", "{other}", None)
    assert proposal.example == Example(f"{TEXTS[0]} 0\n0 is {TEXTS[1]}", (), "0")
    raw["prepare"] = {
        key: value for key, value in raw["prepare"].items() if key not in ("labels", "label_column", "measure")
    }
    raw["prepare"] |= section
    raw["search"] |= proposal.changes["search"]
    found = propose(write(tmp_path, delimited([*rows, (7.5, "a b c", "d e f")])), "file:data/own/t", "test",
                    check_params(raw, "params.yaml"))  # fmt: skip
    assert found.usable == Usable(90, {"have no number from 0 to 5": 1})


def of_encoder(**prepare: Any) -> Params:
    raw = shipped().model_dump(by_alias=True)
    raw["base"]["kind"] = "encoder"
    raw["prepare"] |= prepare
    for label in raw["prepare"]["labels"].values():
        label["word"] = None
    return check_params(raw, "params.yaml")


def test_of_an_encoder_labels_have_no_words_and_two_texts_are_a_pair(tmp_path: Path) -> None:
    rows = [("label", "one", "other"), *((n % 2, f"{TEXTS[0]} {n}", f"{n} is {TEXTS[1]}") for n in range(90))]
    params = of_encoder()
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(params.model_dump(by_alias=True)), encoding="utf-8")
    proposal = propose(write(tmp_path, delimited(rows)), SOURCE, "train", params)
    section = proposal.changes["prepare"]
    assert (section["template"], section["second_template"]) == ("{one}", "{other}")
    assert {name: label["word"] for name, label in section["labels"].items()} == {"0": None, "1": None}
    assert proposal.example == Example(f"{TEXTS[0]} 0\n0 is {TEXTS[1]}", ("0", "1"), "0")
    path.write_text(apply_changes(path, proposal.changes), encoding="utf-8")
    found = propose(write(tmp_path, delimited([*rows, (1, "a b", "")])), "file:data/own/t", "test", load_params(path))
    assert found.usable == Usable(90, {"have no text": 1})  # of which the second is one too
    assert found.example == proposal.example


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            [{"goal": t, "sol1": f"do {n}", "sol2": f"no {n}", "label": n % 2} for n, t in enumerate(TEXTS)],
            "options of",
        ),
        ([{"question": t, "answer": s} for t, s in zip(TEXTS, SENTENCES, strict=False)], "free answers"),
    ],
)
def test_what_no_head_answers_is_not_proposed_for_an_encoder(
    tmp_path: Path, rows: list[dict[str, object]], said: str
) -> None:
    with pytest.raises(PipelineError, match=f"an encoder answers by a head.*rows with {said}"):
        propose(write(tmp_path, json.dumps(rows)), SOURCE, "train", of_encoder())


def test_nothing_of_how_an_earlier_file_was_asked_stays(tmp_path: Path) -> None:
    """The chat template that conversations need, and an encoder's second text where the base is a decoder now."""
    turns = [[{"role": "user", "content": t}, {"role": "assistant", "content": f"so {t}"}] for t in TEXTS]
    chat = look(tmp_path, json.dumps([{"messages": said} for said in turns]))
    path = tmp_path / "params.yaml"
    path.write_text(apply_changes(PARAMS, chat.changes), encoding="utf-8")
    labelled = write(tmp_path, llm_adapters(["true", "false"]))
    proposal = propose(labelled, SOURCE, "train", load_params(path))
    assert yaml.safe_load(apply_changes(path, proposal.changes))["prepare"]["chat"] is False
    pair = of_encoder(columns=None, template="{one}", second_template="{other}", label_column="label")
    assert propose(labelled, SOURCE, "train", pair).changes["prepare"]["second_template"] is None
    raw = shipped().model_dump(by_alias=True)
    raw["prepare"]["chat"] = True  # a choice of the user's
    assert "chat" not in propose(labelled, SOURCE, "train", check_params(raw, "params.yaml")).changes["prepare"]


def test_rows_with_options_of_their_own_are_questions(tmp_path: Path) -> None:
    """HellaSwag's endings, which continue the text, and ARC's object of texts and letters."""
    endings = [[f"{t} And {end} {n}." for end in ("then", "so")] for n, t in enumerate(TEXTS)]
    rows = [{"ctx": t, "endings": e, "label": n % 2} for n, (t, e) in enumerate(zip(TEXTS, endings, strict=True))]
    proposal = look(tmp_path, "\n".join(map(json.dumps, rows)))
    section = proposal.changes["prepare"]
    assert (section["task"], section["template"], section["option_columns"]) == ("choice", "{ctx}", ["endings"])
    assert (section["answer_column"], section["answer_as"]) == ("label", "index")
    assert proposal.example == Example(TEXTS[0], tuple(f" {e}" for e in endings[0]), f" {endings[0][0]}")
    rows = [
        {"question": t, "choices": {"text": e, "label": ["A", "B"]}, "answerKey": "AB"[n % 2]}
        for n, (t, e) in enumerate(zip(TEXTS, endings, strict=True))
    ]
    section = look(tmp_path, "\n".join(map(json.dumps, rows))).changes["prepare"]
    assert section["template"] == "Question: {question}\nAnswer:"
    assert (section["option_columns"], section["answer_column"], section["answer_as"]) == (
        ["choices"], "answerKey", "label",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("names", "right", "answer_as"),
    [
        (("sol1", "sol2"), (0, 1), "index"),
        (("option1", "option2"), ("1", "2"), "number"),
        (("answerA", "answerB"), ("A", "B"), "letter"),
        (("option1", "option2"), ("option1", "option2"), "label"),
    ],
)
def test_columns_that_hold_an_option_each_are_found(
    tmp_path: Path, names: tuple[str, str], right: tuple[object, object], answer_as: str
) -> None:
    """As PIQA, WinoGrande and SocialIQA have them; where answers count from 0 no row has a 2, and from 1 none a 0."""
    rows = [
        {"goal": t, names[0]: f"do it {n} times", names[1]: f"leave it for {n} days", "answer": right[n % 2]}
        for n, t in enumerate(TEXTS)
    ]
    section = look(tmp_path, "\n".join(map(json.dumps, rows))).changes["prepare"]
    assert (section["option_columns"], section["answer_as"]) == (list(names), answer_as)


ENDINGS = [[f"do it {n} times", f"leave it for {n} days"] for n in range(len(TEXTS))]


def test_options_as_json_in_a_cell_are_options(tmp_path: Path) -> None:
    rows = [(t, json.dumps(e), "AB"[n % 2]) for n, (t, e) in enumerate(zip(TEXTS, ENDINGS, strict=True))]
    proposal = look(tmp_path, delimited([("question", "options", "answer"), *rows]))
    section = proposal.changes["prepare"]
    assert (section["task"], section["option_columns"], section["answer_as"]) == ("choice", ["options"], "letter")
    assert (proposal.usable, proposal.doubts) == (Usable(len(TEXTS), {}), ())


def test_lists_of_options_without_an_answer_or_not_as_json_are_a_doubt(tmp_path: Path) -> None:
    """As a frame writes its lists into a csv file; nothing reads that."""
    rows = [(t, str(e), "AB"[n % 2]) for n, (t, e) in enumerate(zip(TEXTS, ENDINGS, strict=True))]
    doubts = look(tmp_path, delimited([("question", "options", "answer"), *rows])).doubts
    assert doubts == ("options holds lists or objects that are not JSON, and is read as text",)
    lists = [{"question": t, "options": e, "answer": s} for t, e, s in zip(TEXTS, ENDINGS, SENTENCES, strict=False)]
    proposal = look(tmp_path, json.dumps(lists))
    untitled = look(
        tmp_path, delimited([(t, json.dumps(e), "AB"[len(t) % 2]) for t, e in zip(TEXTS, ENDINGS, strict=True)])
    )
    assert re.search(r"may hold options \(task: choice\)", " ".join(untitled.doubts))
    assert proposal.changes["prepare"]["task"] == "generation"
    assert proposal.doubts == (
        "options may hold options (task: choice), and no column was found that says which is right",
    )


@pytest.mark.parametrize("marked", [True, False])
def test_an_answer_that_repeats_its_options_letter_is_a_choice(tmp_path: Path, marked: bool) -> None:
    rows = []
    for n, (text, own) in enumerate(zip(TEXTS, ENDINGS, strict=True)):
        said = [f"{letter}. {option}" for letter, option in zip("AB", own, strict=True)]
        rows.append({"question": text, "options": said if marked else own, "answer": said[n % 2]})
    proposal = look(tmp_path, json.dumps(rows))
    section = proposal.changes["prepare"]
    assert (section["task"], section["answer_column"], section["answer_as"]) == ("choice", "answer", "text")
    assert proposal.usable == Usable(len(TEXTS), {})
    assert proposal.example.right == f" {ENDINGS[0][0]}"


@pytest.mark.parametrize(
    ("order", "doubts"),
    [(1, ()), (-1, ("answer may be the text of an option or its index: they are other options in 40 rows",))],
)
def test_an_answer_that_is_a_text_and_a_place_of_other_options_is_a_doubt(
    tmp_path: Path, order: int, doubts: tuple[str, ...]
) -> None:
    """Of options that are small numbers; in their own order the text 2 is at the place 2."""
    rows = [
        {"question": t, "options": [*["0", "1", "2", "3"][::order], f"{n + 9}"], "answer": n % 4}
        for n, t in enumerate(TEXTS)
    ]
    assert look(tmp_path, json.dumps(rows)).doubts == doubts


def test_another_column_that_names_other_options_is_a_doubt(tmp_path: Path) -> None:
    rows = [
        {"question": t, "options": e, "answer": "AB"[n % 2], "prediction": "AB"[n % 3 == 0]}
        for n, (t, e) in enumerate(zip(TEXTS, ENDINGS, strict=True))
    ]
    assert look(tmp_path, json.dumps(rows)).doubts == (
        "prediction may be the answer as well as answer: they name other options in 20 rows",
    )


def test_two_sentences_that_are_compared_are_no_options(tmp_path: Path) -> None:
    rows = [{"sentence1": t, "sentence2": f"Not {t}", "label": n % 2} for n, t in enumerate(TEXTS)]
    assert look(tmp_path, "\n".join(map(json.dumps, rows))).changes["prepare"]["task"] == "classification"


def test_options_marked_in_a_text_are_split_from_their_question(tmp_path: Path) -> None:
    """The layout of LLM-Adapters, of which some rows have fewer options, and letters as MathQA has them."""
    rows = [
        {
            "instruction": f"Please choose: {t}\n\nAnswer1: one {n} Answer2: two {n}"
            + (f" Answer3: three {n}" if n % 3 else "") + "\n\nAnswer format: answer1/answer2/answer3",
            "answer": f"answer{n % 2 + 1}",
        }
        for n, t in enumerate(TEXTS)
    ]  # fmt: skip
    proposal = look(tmp_path, json.dumps(rows))
    assert proposal.example == Example(f"Question: {TEXTS[0]}\nAnswer:", (" one 0", " two 0"), " one 0")
    assert proposal.changes["prepare"]["option_columns"] == ["answer1", "answer2", "answer3"]
    assert proposal.usable == Usable(len(TEXTS), {})
    rows = [{"q": f"{t} The options: A ) {n} , B ) 1{n} , C ) 2{n}", "a": "ABC"[n % 3]} for n, t in enumerate(TEXTS)]
    proposal = look(tmp_path, json.dumps(rows))
    assert proposal.example == Example(f"Question: {TEXTS[0]}\nAnswer:", (" 0", " 10", " 20"), " 0")
    assert proposal.changes["prepare"]["answer_as"] == "letter"


def test_a_task_takes_the_keys_of_another_out_of_params_and_back(tmp_path: Path) -> None:
    rows = [{"ctx": t, "endings": [f"a {n}", f"b {n}"], "label": n % 2} for n, t in enumerate(TEXTS)]
    text = apply_changes(PARAMS, look(tmp_path, "\n".join(map(json.dumps, rows))).changes)
    assert "labels" not in yaml.safe_load(text)["prepare"]
    assert re.search(r"answer_as: index\n.*\n.*train_on: answer\n  group_column: null +#", text)  # in their place
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    again = propose(write(tmp_path, llm_adapters(["true", "false"])), SOURCE, "train", load_params(path))
    section = yaml.safe_load(apply_changes(path, again.changes))["prepare"]
    assert section["task"] == "classification"
    assert not {"split", "option_columns", "score"} & section.keys()


def test_a_table_of_many_columns_of_text_is_read_in_seconds(tmp_path: Path) -> None:
    columns = 300
    rows = [["label", *(f"c{n}" for n in range(columns))]]
    rows += [[str(row % 2), *(f"word {n} {row}" for n in range(columns))] for row in range(60)]
    (tmp_path / "wide.csv").write_text("".join(",".join(row) + "\n" for row in rows))
    began = time.process_time()
    assert len(guess(sample_rows(tmp_path / "wide.csv", find_layout(tmp_path / "wide.csv"))).text_columns) == columns
    assert time.process_time() - began < 6  # 20 when each two columns are compared in all rows, anew


def test_rows_that_share_no_columns_are_refused_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout_module, "MOST_COLUMNS", 20)
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({f"id{row}": "a text", "label": "x"}) + "\n" for row in range(30)))
    with pytest.raises(PipelineError, match=r"20 at most.*31 columns in 30 rows.*--no-params"):
        sample_rows(path, find_layout(path))


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_of_long_rows_fewer_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(layout_module, "SAMPLE_BYTES", 10_000)
    texts = [f"{row} " + "word " * 200 for row in range(50)]  # a thousand characters each
    path = tmp_path / f"rows.{kind}"
    path.write_text(
        "text,label\n" + "".join(f"{text},x\n" for text in texts)
        if kind == "csv"
        else "".join(json.dumps({"text": text, "label": "x"}) + "\n" for text in texts)
    )
    rows = sample_rows(path, find_layout(path))
    assert len(rows) == 9  # each counts its texts and 64 bytes for each cell
    assert layout_module.is_sample(rows)
    assert not layout_module.is_sample(rows[:8])


def test_a_column_that_gives_the_label_away_is_not_put_into_the_prompt(tmp_path: Path) -> None:
    tones = ["good" if n % 2 else "bad" for n in range(len(TEXTS))]
    told = [(t, f"because of its tone, number {n}: {tones[n]}", tones[n]) for n, t in enumerate(TEXTS)]
    assert (
        look(tmp_path, delimited([("text", "reason", "label"), *told])).changes["prepare"]["template"]
        == "Text: {text}\nLabel:"
    )


WORKED = [f"Take {n} and add {n}.\nThat is {2 * n}. ANSWER:{'ab'[n % 2].upper()}" for n in range(len(TEXTS))]


@pytest.mark.parametrize(
    "column",
    [WORKED, [f"- number0 number{n}" for n in range(len(TEXTS))], [f" {text.upper()} " for text in TEXTS]],
    ids=["a worked answer", "an equation", "the text again"],
)
def test_no_answer_and_no_second_copy_is_put_into_the_prompt(tmp_path: Path, column: list[str]) -> None:
    rows = [(text, other, "AB"[n % 2]) for n, (text, other) in enumerate(zip(TEXTS, column, strict=True))]
    section = look(tmp_path, delimited([("question", "more", "correct"), *rows])).changes["prepare"]
    assert section["template"] == "Question: {question}\nCorrect:"


def test_an_ending_that_all_rows_share_is_no_answer(tmp_path: Path) -> None:
    rows = [(f"{text} true/false", ("true", "false")[n % 3 == 0]) for n, text in enumerate(TEXTS)]
    section = look(tmp_path, delimited([("question", "answer"), *rows])).changes["prepare"]
    assert section["template"] == "Question: {question}\nAnswer:"


def test_row_limits_follow_a_small_file(tmp_path: Path) -> None:
    changes = look(tmp_path, llm_adapters(["true", "false"], 100)).changes
    limits = [changes["prepare"][f"{split}_rows"] for split in ("train", "validation", "test")]
    assert limits == [55, 11, 27]
    assert changes["search"] == {"train_rows": 55}


@pytest.mark.parametrize(("usable", "wanted"), [(5, {"train": 9, "test": 9}), (10_000, {"train": 9, "test": 9})])
def test_sizes_never_pass_what_there_is(usable: int, wanted: dict[str, int]) -> None:
    sizes = split_sizes(usable, wanted)
    assert sum(sizes.values()) <= usable
    assert all(2 <= size <= wanted[split] for split, size in sizes.items())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "must hold rows"),
        ("one line\nanother line of it\n", "must be json, jsonl, csv"),
        (b"text,label\n" + b"\xff,1\n" * 9, "UTF-8"),
        (b"PK\x03\x04", "a zip archive"),
        (delimited([("text", "note"), *((t, t[::-1]) for t in TEXTS)]), "one column must be a label"),
        (delimited([("a", "label"), *((n, n % 2) for n in range(40))]), "one column must be text"),
        (llm_adapters(["true", "false"], 3), "at least 6 rows"),
        ("[{}, 2]", "one column must be a label"),
        ("".join(f"{json.dumps(row)},\n" for row in OBJECTS), "Take the comma away from the end of each line"),
        (json.dumps({"rows": OBJECTS}, indent=1), "one object a line, or one JSON array"),
        ("".join(f"{json.dumps([row['text'], row['mark']])}\n" for row in OBJECTS), "a JSON list a line"),
        (delimited([("text", "label"), *((t, n % 7) for n, t in enumerate(TEXTS[:15]))]), "each in three rows or more"),
    ],
)
def test_what_cannot_be_guessed_is_said(tmp_path: Path, content: str | bytes, said: str) -> None:
    with pytest.raises(PipelineError, match=said):
        look(tmp_path, content)


# --- delimiters, titles --------------------------------------------------------------------------------------------


MARKS = {";": "ssv", "|": "psv", "\t": "tsv", ",": "csv"}


@pytest.mark.parametrize("mark", MARKS)
def test_each_delimiter_is_found_though_numbers_have_decimal_commas(tmp_path: Path, mark: str) -> None:
    rows = [("text", "score", "mark"), *((t.replace(",", ""), f"{n},{n % 7}", n % 2) for n, t in enumerate(TEXTS))]
    section = look(tmp_path, delimited(rows, delimiter=mark)).changes["prepare"]
    assert (section["format"], section["template"], section["label_column"]) == (
        MARKS[mark],
        "Text: {text}\nMark:",
        "mark",
    )


@pytest.mark.parametrize("mark", MARKS)
@pytest.mark.parametrize("quoted", [False, True])
def test_excels_first_line_names_the_delimiter_and_is_no_class(tmp_path: Path, mark: str, quoted: bool) -> None:
    said = f'"sep={mark}"\n' if quoted else f"sep={mark}\n"
    proposal = look(
        tmp_path, said + delimited([("text", "mark"), *((t, n % 2) for n, t in enumerate(TEXTS))], delimiter=mark)
    )
    assert proposal.layout == Layout(MARKS[mark], None, mark != "\t")  # type: ignore[arg-type]
    assert list(proposal.changes["prepare"]["labels"]) == ["0", "1"]
    assert len(proposal.rows) == len(TEXTS)


def test_lines_that_split_in_two_ways_are_in_doubt(tmp_path: Path) -> None:
    proposal = look(tmp_path, "".join(f"good or bad, film {n};{'ab'[n % 2]}\n" for n in range(40)))
    assert proposal.layout.format == "ssv"
    assert "the lines split as csv as well as ssv" in proposal.doubts


@pytest.mark.parametrize(
    "titles", [("text", "mark"), ("the text", "the mark"), ("текст", "оценка"), ("text (en)", "a.b")]
)
def test_titles_that_come_again_are_no_class(tmp_path: Path, titles: tuple[str, str]) -> None:
    """As in files that were put together by cat."""
    half = [titles, *((t, n % 2) for n, t in enumerate(TEXTS[:20]))]
    proposal = look(tmp_path, delimited([*half, *half[:1], *((t, n % 2) for n, t in enumerate(TEXTS[20:]))]))
    section = proposal.changes["prepare"]
    assert (section["columns"], section["label_column"], list(section["labels"])) == (None, titles[1], ["0", "1"])
    assert template_fields(section["template"]) == [titles[0]]
    assert proposal.usable == Usable(40, {"cannot be read": 1})
    twice = [(*titles, titles[0]), *((t, n % 2, t) for n, t in enumerate(TEXTS))]
    assert len(look(tmp_path, delimited([*twice, twice[0]])).changes["prepare"]["labels"]) == 2


def test_a_compressed_file_is_understood(tmp_path: Path) -> None:
    content = "".join(json.dumps(row) + "\n" for row in OBJECTS).encode()
    assert look(tmp_path, gzip.compress(content)).changes == look(tmp_path, content).changes


# --- labels --------------------------------------------------------------------------------------------------------


def words_of(folder: Path, values: list[Any], repeat: int = 6) -> dict[str, str]:
    lines = [json.dumps({"text": f"It was film number {n}.", "label": v}) for n, v in enumerate(values * repeat)]
    labels = look(folder, "\n".join(lines)).changes["prepare"]["labels"]
    return {name: label["word"] for name, label in labels.items()}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([-1, 1], {"-1": " minus one", "1": " one"}),
        (["c++", "c", "c#"], {"c": " c\n", "c#": " c#\n", "c++": " c++\n"}),
        (["хорошо", "плохо"], {"плохо": " плохо", "хорошо": " хорошо"}),
        (["جيد", "سيئ"], {"جيد": " جيد", "سيئ": " سيئ"}),
        (["👍", "👎"], {"👍": " 👍", "👎": " 👎"}),
        (["<", ">"], {"<": " <", ">": " >"}),
        ([True, False], {"false": " false", "true": " true"}),
        (["10", "9", "2"], {"2": " two", "9": " nine", "10": " ten"}),
        (["1.0", "0.0"], {"0.0": " zero", "1.0": " one"}),
        (["6", "16"], {"6": " six\n", "16": " sixteen\n"}),
        ([25, 250], {"25": " 25\n", "250": " 250\n"}),
        (["good", "good enough"], {"good": " good\n", "good enough": " good enough\n"}),
        ([1, "1", 2], {"1": " one", "2": " two"}),
    ],
)  # fmt: skip
def test_a_labels_name_is_its_value_and_no_word_begins_another(
    tmp_path: Path, values: list[Any], words: dict[str, str]
) -> None:
    assert words_of(tmp_path, values) == words


@pytest.mark.parametrize("count", [21, 77, 150])
@pytest.mark.parametrize("named", [True, False])
def test_more_than_20_labels_are_proposed(tmp_path: Path, count: int, named: bool) -> None:
    words = words_of(tmp_path, [f"intent {n}" if named else n for n in range(count)], repeat=4)
    assert len(words) == len(set(words.values())) == count
    assert not [a for a in words.values() for b in words.values() if a != b and b.startswith(a)]


@pytest.mark.parametrize(
    ("rows", "doubt"),
    [
        ([(t, ("Good", "good", "bad")[n % 3]) for n, t in enumerate(TEXTS)], "differ in case or spacing"),
        ([(t, ("good", "bad", "N/A")[n % 3]) for n, t in enumerate(TEXTS)], r"may stand for no label: \['N/A'\]"),
        ([(t, "ab"[n % 2]) for n, t in enumerate([*TEXTS, *TEXTS[:10]])], "10 of 50 rows are lost"),
    ],
)
def test_what_a_person_should_look_at_is_a_doubt(tmp_path: Path, rows: list[tuple[Any, ...]], doubt: str) -> None:
    proposal = look(tmp_path, delimited([("text", "label"), *rows]))
    assert re.search(doubt, " ".join(proposal.doubts))


def test_two_columns_that_may_be_the_label_are_a_doubt(tmp_path: Path) -> None:
    rows = [("text", "tone", "kind"), *((t, "ab"[n % 2], "xyz"[n % 3]) for n, t in enumerate(TEXTS))]
    assert look(tmp_path, delimited(rows)).doubts == ("the label may be another column than tone: kind",)


def test_the_question_of_a_row_is_shown_with_its_answers_and_what_is_lost(tmp_path: Path) -> None:
    rows = [{"text": " ", "label": "good"}, {"text": "{label}", "label": "good"}]
    rows += [{"text": t, "label": ("good", "bad")[n % 2]} for n, t in enumerate(TEXTS)]
    proposal = look(tmp_path, "\n".join(map(json.dumps, rows)))
    assert proposal.example == Example("Text: {label}\nLabel:", (" bad", " good"), " good")
    assert proposal.usable == Usable(41, {"have no text": 1})


# --- params.yaml ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answers", [*ANSWERS.values(), ["yes", "no"], ["1.0", "null"], ["a: b", "it's"]])
def test_the_changed_params_are_read_back_as_proposed(tmp_path: Path, answers: list[str]) -> None:
    proposal = look(tmp_path, llm_adapters(answers))
    text = apply_changes(PARAMS, proposal.changes)
    read = yaml.safe_load(text)
    check_params(read, "params.yaml")
    for section, values in proposal.changes.items():
        assert {key: read[section][key] for key in values} == values


def test_comments_and_all_else_of_params_stay(tmp_path: Path) -> None:
    before = PARAMS.read_text(encoding="utf-8").splitlines()
    after = apply_changes(PARAMS, look(tmp_path, llm_adapters(["a", "b"], 100)).changes).splitlines()
    assert len(after) == len(before)
    changed = [number for number, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
    assert {before[number].split(":")[0].strip() for number in changed} <= {
        "source", "sha256", "format", "columns", "template", "label_column", "negative", "positive",
        "train_rows", "validation_rows", "test_rows", "tuning_rows",
    }  # fmt: skip
    assert [line.partition("#")[2] for line in before] == [
        line.partition("#")[2] if "pypi:" not in old else old.partition("#")[2]
        for old, line in zip(before, after, strict=True)
    ]


def test_nothing_is_written_that_breaks_a_rule() -> None:
    with pytest.raises(PipelineError, match="with these changes breaks"):
        apply_changes(PARAMS, {"prepare": {"train_rows": 0}})


def test_params_without_changes_come_out_byte_for_byte() -> None:
    assert apply_changes(PARAMS, {}) == PARAMS.read_text(encoding="utf-8")


# --- files for one split -------------------------------------------------------------------------------------------


def with_training_file(tmp_path: Path) -> Params:
    raw = shipped().model_dump(by_alias=True)
    for section, values in look(tmp_path, llm_adapters(["true", "false"], 100)).changes.items():
        raw[section] |= values
    return check_params(raw, "params.yaml")


def test_no_section_asks_for_more_rows_than_a_split_is_to_have(tmp_path: Path) -> None:
    params = with_training_file(tmp_path)
    sizes = params.prepare
    assert params.search.train_rows == params.compare.train_rows == params.compare.tuning_rows == sizes.train_rows < 96
    assert params.compare.validation_rows == sizes.validation_rows < 64
    assert params.compare.test_rows == sizes.test_rows < 400


def test_a_test_file_changes_its_own_keys_only(tmp_path: Path) -> None:
    params = with_training_file(tmp_path)
    path = write(tmp_path, llm_adapters(["true", "false"], 20))
    assert propose(path, "file:data/own/test", "test", params).changes == {
        "prepare": {"test_source": "file:data/own/test", "test_rows": 19},
        "compare": {"test_rows": 19},
    }


def test_a_test_file_is_held_against_the_labels_as_the_stage_does(tmp_path: Path) -> None:
    content = delimited([("text", "mark"), *((t, n % 2) for n, t in enumerate(TEXTS))])
    raw = shipped().model_dump(by_alias=True)
    for section, values in look(tmp_path, content).changes.items():
        raw[section] |= values
    for mark, label in enumerate(raw["prepare"]["labels"].values()):
        label["values"] = [mark]  # as a person writes a number; csv has text alone
    params = check_params(raw, "params.yaml")
    assert propose(write(tmp_path, content), "file:data/own/test", "test", params).changes["prepare"]["test_rows"] > 0


def test_a_test_file_needs_a_training_file_and_its_labels(tmp_path: Path) -> None:
    params = with_training_file(tmp_path)
    path = write(tmp_path, llm_adapters(["A", "B"], 20))
    with pytest.raises(PipelineError, match="Add the training file first"):
        propose(path, "file:data/own/test", "test", shipped())
    with pytest.raises(PipelineError, match="must have rows with instruction and a label in answer"):
        propose(path, "file:data/own/test", "test", params)


def test_a_new_training_file_of_the_same_layout_keeps_the_test_file(tmp_path: Path) -> None:
    raw = with_training_file(tmp_path).model_dump(by_alias=True)
    raw["prepare"]["test_source"] = "file:data/own/test"
    path = write(tmp_path, llm_adapters(["true", "false"], 80))
    changes = propose(path, SOURCE, "train", check_params(raw, "params.yaml")).changes["prepare"]
    assert "test_source" not in changes
    assert "test_rows" not in changes
    assert look(tmp_path, llm_adapters(["true", "false"])).changes["prepare"]["test_source"] is None


# --- real files ----------------------------------------------------------------------------------------------------

BENCH = os.environ.get("REFT_BENCH_DATA", "")
REAL: dict[str, tuple[str, str, int]] = {  # label column, template, labels; layouts as the folder's README has them
    "boolq": ("answer", "{instruction}\n", 2),
    "sst2": ("label", "Text: {text}\nLabel:", 2),
    "cola": ("label", "Text: {text}\nLabel:", 2),
    "mrpc": ("Quality", "1 String: {#1 String}\n2 String: {#2 String}\nQuality:", 2),
    "qqp": ("is_duplicate", "Sentence1: {sentence1}\nSentence2: {sentence2}\nIs duplicate:", 2),
    "mnli": ("gold_label", "Sentence1: {sentence1}\nSentence2: {sentence2}\nGold label:", 3),
    "rte": ("label", "Sentence1: {sentence1}\nSentence2: {sentence2}\nLabel:", 2),
    "qnli": ("label", "Question: {question}\nSentence: {sentence}\nLabel:", 2),
}
QUESTIONS: dict[str, tuple[str, int, str]] = {  # template, options at most (1: a list), and how the answer says which
    **dict.fromkeys(["ARC-Easy", "ARC-Challenge"], ("Question: {question}\nAnswer:", 5, "label")),
    "openbookqa": ("Question: {question}\nAnswer:", 4, "label"),
    "social_i_qa": ("Question: {question}\nAnswer:", 3, "label"),
    **dict.fromkeys(["piqa", "winogrande"], ("Question: {question}\nAnswer:", 2, "label")),
    "mathqa": ("Question: {question}\nAnswer:", 5, "letter"),
    "hellaswag": ("{ctx}", 1, "index"),
    "aqua": ("Question: {question}\nAnswer:", 1, "label"),
}
FREE: dict[str, tuple[str, str, str, str]] = {  # template, column of the reference, reader, measure
    **dict.fromkeys(["AddSub", "MultiArith", "SingleEq"], ("{instruction}\n", "answer", "number", "exact_match")),
    **dict.fromkeys(["alpaca", "alpaca_eval", "ultrafeedback"], ("{instruction}\n", "output", "exact", "chrf")),
    "seed_tasks": ("{instruction}\n", "instances.0.output", "exact", "chrf"),  # as in the library, but for the input
    "gsm8k": ("Question: {question}\nAnswer:", "answer", "number", "exact_match"),
    "svamp": ("Body: {Body}\nQuestion: {Question}\nAnswer:", "Answer", "number", "exact_match"),
    "asdiv": ("Question: {Question}\nAnswer:", "Answer", "number", "exact_match"),
    "mawps": ("Original text: {original_text}\nAns:", "ans", "number", "exact_match"),
}
DOUBTED = {
    "alpaca": "input is empty in",  # of an instruction's two parts
    "cola": "the label may be another column",  # the first column says where a sentence is from
    "seed_tasks": "the answer is inside instances, as instances.0.output",
}
REFUSED = {
    "trec": "must be json, jsonl, csv",
}


def bench_file(task: str) -> Path:
    """The training file of a task, or its test file if it has none."""
    return next(path for split in ("train", "test") for path in sorted((Path(BENCH) / task).glob(f"{split}.*")))


@pytest.mark.skipif(not BENCH, reason="REFT_BENCH_DATA is not set")
@pytest.mark.parametrize("name", REAL)
def test_real_files_are_understood(name: str) -> None:
    proposal = propose(bench_file(name), SOURCE, "train", shipped())
    section = proposal.changes["prepare"]
    assert (section["label_column"], section["template"], len(section["labels"])) == REAL[name]
    assert not [row for row in proposal.rows if row.problem]
    assert bool(proposal.doubts) == (name in DOUBTED)
    assert DOUBTED.get(name, "") in " ".join(proposal.doubts)
    apply_changes(PARAMS, proposal.changes)


@pytest.mark.skipif(not BENCH, reason="REFT_BENCH_DATA is not set")
@pytest.mark.parametrize("name", QUESTIONS)
def test_real_files_of_questions_are_understood(name: str) -> None:
    proposal = propose(bench_file(name), SOURCE, "train", shipped())
    section = proposal.changes["prepare"]
    assert section["task"] == "choice"
    assert (section["template"], len(section["option_columns"]), section["answer_as"]) == QUESTIONS[name]
    assert proposal.doubts == ()
    assert proposal.usable.rows >= 0.98 * len(proposal.rows)
    assert proposal.example.right in proposal.example.words
    apply_changes(PARAMS, proposal.changes)


@pytest.mark.skipif(not BENCH, reason="REFT_BENCH_DATA is not set")
@pytest.mark.parametrize("name", FREE)
def test_real_files_of_free_answers_are_understood(name: str) -> None:
    proposal = propose(bench_file(name), SOURCE, "train", shipped())
    section = proposal.changes["prepare"]
    assert section["task"] == "generation"
    found = (section["template"], section["answer_column"], section["reader"]["name"], section["measure"])
    assert found == FREE[name]
    assert DOUBTED.get(name, "") in " ".join(proposal.doubts)
    assert bool(proposal.doubts) == (name in DOUBTED)
    assert proposal.usable.rows >= 0.98 * len(proposal.rows)
    apply_changes(PARAMS, proposal.changes)


@pytest.mark.skipif(not BENCH, reason="REFT_BENCH_DATA is not set")
def test_a_real_file_of_scores_is_understood() -> None:
    proposal = propose(bench_file("stsb"), SOURCE, "train", shipped())
    section = proposal.changes["prepare"]
    assert (section["task"], section["number_column"], section["low"], section["high"]) == (
        "regression", "similarity", 0.0, 5.0,
    )  # fmt: skip
    assert section["template"] == "Sentence1: {sentence1}\nSentence2: {sentence2}\nSimilarity:"
    assert (proposal.usable.rows, proposal.doubts) == (len(proposal.rows), ())
    apply_changes(PARAMS, proposal.changes)


@pytest.mark.skipif(not BENCH, reason="REFT_BENCH_DATA is not set")
@pytest.mark.parametrize("name", REFUSED)
def test_real_files_of_other_tasks_are_refused(name: str) -> None:
    with pytest.raises(PipelineError, match=REFUSED[name]):
        propose(bench_file(name), SOURCE, "train", shipped())


@pytest.mark.skipif(not BENCH, reason="REFT_BENCH_DATA is not set")
def test_every_task_of_the_folder_is_in_a_table() -> None:
    assert {path.parent.name for path in Path(BENCH).glob("*/*.*")} == {*REAL, *QUESTIONS, *FREE, *REFUSED, "stsb"}
