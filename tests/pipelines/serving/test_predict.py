"""Answers to the rows of a file: as the registered model gives them, in their order, and all of them or none."""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from pipelines.contracts.base import read_base
from pipelines.contracts.prepared import Row
from pipelines.errors import PipelineError
from pipelines.model.scores import ScoresError
from pipelines.serving.answerer import Answerer, open_answerer
from pipelines.serving.predict import CHUNK, Asked, predict
from tests.pipelines.finished import finish_stages

TEXTS = ["good film", "bad, bad film", 'a "good" film\nin two lines', "film", "so so: 8/10"]


@pytest.fixture(scope="module")
def answerer(tmp_path_factory: pytest.TempPathFactory) -> Answerer:
    root = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFT_HOME", str(tmp_path_factory.mktemp("home")))
        paths = finish_stages(root)
        return open_answerer(paths["adapter"], read_base(paths["base"]), root=root)


def write_csv(path: Path, texts: Sequence[str]) -> Path:
    """A file whose first column of text is another one than the template's."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("id", "text"), *((f"row {place}", text) for place, text in enumerate(texts))])
    return path


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def expected(answerer: Answerer, texts: Sequence[str]) -> list[dict[str, Any]]:
    from pipelines.serving.inputs import input_rows

    rows = [answerer.read(raw) for raw in input_rows(list(texts), answerer.columns)]
    return answerer.answer([row for row in rows if isinstance(row, Row)])


def test_every_row_is_answered_in_its_order_with_its_line(answerer: Answerer, tmp_path: Path) -> None:
    file, out = write_csv(tmp_path / "rows.csv", TEXTS), tmp_path / "answers.jsonl"
    done = predict(Asked(str(file), str(out)), answerer)
    found = read_lines(out)
    assert (done.rows, done.rejected) == (len(TEXTS), 0)
    assert [answer.pop("line") for answer in found] == [2, 3, 4, 6, 7]  # the third row has two lines
    assert found == expected(answerer, TEXTS)


def test_the_strength_is_that_of_the_call_alone(answerer: Answerer, tmp_path: Path) -> None:
    """At 0 the answers are the frozen base's."""
    file = write_csv(tmp_path / "rows.csv", TEXTS)
    found = {}
    for scale in (1.0, 0.0, 0.5):
        out = tmp_path / f"answers-{scale}.jsonl"
        predict(Asked(str(file), str(out), scale=scale), answerer)
        found[scale] = [{key: value for key, value in answer.items() if key != "line"} for answer in read_lines(out)]
    assert found[1.0] == expected(answerer, TEXTS)  # also before it and behind it
    model: Any = answerer._model
    with model.disabled():
        assert found[0.0] == expected(answerer, TEXTS)
    assert found[0.0] != found[0.5] != found[1.0]
    with pytest.raises(PipelineError, match="number from -1000 to 1000; got nan"):
        predict(Asked(str(file), str(tmp_path / "none.jsonl"), scale=float("nan")), answerer)
    assert not (tmp_path / "none.jsonl").exists()


def test_a_strength_that_a_base_overflows_by_is_blamed_and_not_the_training(answerer: Answerer) -> None:
    """As half precision does by a strength that fp32 has room for."""
    model: Any = answerer._model
    overflow = model.base.get_input_embeddings().register_forward_hook(lambda _module, _args, h: h * float("inf"))
    try:
        with answerer.at_scale(100), pytest.raises(ScoresError, match="Give a scale nearer to 1 than 100"):
            expected(answerer, TEXTS)
        with pytest.raises(ScoresError, match="Train again"):
            expected(answerer, TEXTS)
    finally:
        overflow.remove()


def test_a_table_has_a_column_for_each_probability(answerer: Answerer, tmp_path: Path) -> None:
    file, out = write_csv(tmp_path / "rows.csv", TEXTS), tmp_path / "answers.csv"
    predict(Asked(str(file), str(out)), answerer)
    with out.open(encoding="utf-8", newline="") as stream:
        found = list(csv.DictReader(stream))
    answers = expected(answerer, TEXTS)
    assert list(found[0]) == ["line", "label", "probabilities.negative", "probabilities.positive"]
    assert [row["label"] for row in found] == [answer["label"] for answer in answers]
    assert [float(row["probabilities.positive"]) for row in found] == [
        answer["probabilities"]["positive"] for answer in answers
    ]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.tsv", "rows.parquet", "rows.csv.gz"])
def test_formats_agree(answerer: Answerer, tmp_path: Path, name: str) -> None:
    path, out = tmp_path / name, tmp_path / "answers.jsonl"
    rows = [{"id": str(place), "text": text} for place, text in enumerate(TEXTS)]
    if name.endswith("jsonl"):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif name.endswith("json"):
        path.write_text(json.dumps(rows), encoding="utf-8")
    elif name.endswith("parquet"):
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif name.endswith("tsv"):
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, delimiter="\t").writerows([("id", "text"), *(row.values() for row in rows)])
    else:
        path.write_bytes(gzip.compress(write_csv(tmp_path / "rows.csv", TEXTS).read_bytes()))
    predict(Asked(str(path), str(out)), answerer)
    assert [{**answer, "line": 0} for answer in read_lines(out)] == [
        {"line": 0, **answer} for answer in expected(answerer, TEXTS)
    ]


def test_rows_are_piped_through(
    answerer: Answerer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
    predict(Asked("-"), answerer)
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert found == [{"line": n, **answer} for n, answer in enumerate(expected(answerer, TEXTS), start=1)]


def test_a_broken_row_is_told_before_anything_is_answered(
    answerer: Answerer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, out = write_csv(tmp_path / "rows.csv", ["good film", " ", "film", "good " * 300]), tmp_path / "answers.jsonl"
    out.write_text("of an earlier time\n", encoding="utf-8")
    monkeypatch.setattr(answerer, "answer", None)
    with pytest.raises(PipelineError, match=r"2 of 4 rows break a rule; the first, line 3: a text is empty \(text\)"):
        predict(Asked(str(file), str(out)), answerer)
    assert out.read_text(encoding="utf-8") == "of an earlier time\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.jsonl", "rows.csv"]


def test_rejected_rows_are_written_beside_the_answers(answerer: Answerer, tmp_path: Path) -> None:
    file = write_csv(tmp_path / "rows.csv", ["good film", " ", "film", "good " * 300])
    out, rejected = tmp_path / "answers.jsonl", tmp_path / "rejected.jsonl"
    done = predict(Asked(str(file), str(out), rejected), answerer)
    assert (done.rows, done.rejected) == (2, 2)
    assert [answer["line"] for answer in read_lines(out)] == [2, 4]
    assert [(row["line"], row["reason"]) for row in read_lines(rejected)] == [
        (3, "a text is empty"),
        (5, "prompt and completion have too many tokens"),
    ]


def test_what_ends_half_way_leaves_nothing(answerer: Answerer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Ctrl-C does in the second thousand of rows."""
    file = write_csv(tmp_path / "rows.csv", [f"film {place}" for place in range(CHUNK + 1)])
    given: list[int] = []

    def answer(rows: Sequence[Row], _progress: object) -> list[dict[str, Any]]:
        given.append(len(rows))
        if len(given) == 2:
            raise KeyboardInterrupt
        return [{"label": "x"}] * len(rows)

    monkeypatch.setattr(answerer, "answer", answer)
    with pytest.raises(KeyboardInterrupt):
        predict(Asked(str(file), str(tmp_path / "answers.jsonl"), tmp_path / "rejected.jsonl"), answerer)
    assert given == [CHUNK, 1]
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]


def test_no_more_than_a_chunk_is_read_ahead_of_what_is_answered(
    answerer: Answerer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So memory does not grow with the file."""
    file = write_csv(tmp_path / "rows.csv", [f"film {place}" for place in range(5 * CHUNK)])
    read, answered, ahead = 0, 0, []
    made = answerer.read

    def counted(raw: Any) -> Any:
        nonlocal read
        read += 1
        return made(raw)

    def answer(rows: Sequence[Row], _progress: object) -> list[dict[str, Any]]:
        nonlocal answered
        ahead.append(read - answered)
        answered += len(rows)
        return [{"label": "x"}] * len(rows)

    monkeypatch.setattr(answerer, "read", counted)
    monkeypatch.setattr(answerer, "answer", answer)
    done = predict(Asked(str(file), str(tmp_path / "out.jsonl"), tmp_path / "rejected.jsonl"), answerer)
    assert (done.rows, ahead) == (5 * CHUNK, [CHUNK] * 5)


@pytest.mark.parametrize(
    ("name", "text", "out", "rule"),
    [
        ("rows.txt", "text\nfilm\n", "out.jsonl", "must end in .csv"),
        ("rows.csv", "review\nfilm\n", "out.jsonl", "each of the columns text once"),
        ("rows.csv", "text\n", "out.jsonl", "must hold rows that can be answered"),
        ("rows.csv", "text\nfilm\n", "out.parquet", "ends in .jsonl or .csv"),
        ("rows.csv", "text\nfilm\n", "rows.csv", "must be files of their own"),
        ("rows.jsonl", '{"txt": "film"}\n', "out.jsonl", "line 1: a column is missing"),
        ("absent/rows.csv", None, "out.jsonl", "must be there"),
    ],
)
def test_a_mistake_is_told_and_writes_nothing(
    answerer: Answerer, tmp_path: Path, name: str, text: str | None, out: str, rule: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text, encoding="utf-8")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(PipelineError, match=rule):
        predict(Asked(str(tmp_path / name), str(tmp_path / out)), answerer)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
