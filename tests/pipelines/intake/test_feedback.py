"""Rows that were served, and labels that came later: what is joined, what is not, and how it is written."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.errors import PipelineError
from pipelines.intake.feedback import Feedback, growing_folder, join, write_part
from pipelines.params.whole import check_params
from pipelines.sources.rows import Reader
from pipelines.tasks.keys.prepare import PrepareParams

ROOT = Path(__file__).parents[3]
TODAY = date(2026, 3, 2)
SERVED = 'id,text\n7,A good film\n8,"A bad, bad film"\n9,So so\n10,Nobody answered\n11,a  GOOD film\n'
ANSWERS = "".join(json.dumps({"line": line, "label": "positive"}) + "\n" for line in (2, 3, 4, 6))


def section(**changes: Any) -> PrepareParams:
    raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    keys = {"source": "file:data/own/reviews", "sha256": None, "format": "csv", "columns": None, "quoting": True}
    raw["prepare"] |= {**keys, "growing": {"validation": 0.2, "test": 0.2}, **changes}
    return check_params(raw, "params.yaml").prepare


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "data" / "own" / "reviews").mkdir(parents=True)
    (tmp_path / "served.csv").write_text(SERVED, encoding="utf-8")
    (tmp_path / "answers.jsonl").write_text(ANSWERS, encoding="utf-8")
    return tmp_path


def given(files: Path, labels: str, id_column: str | None = None, name: str = "labels.csv") -> Feedback:
    (files / name).write_text(labels, encoding="utf-8")
    return Feedback(files / name, files / "served.csv", files / "answers.jsonl", id_column)


def test_labels_are_joined_by_id_and_every_row_is_counted_once(files: Path) -> None:
    found = join(section(), given(files, "id,rating\n7,2\n7,2\n8,-2\n9,1\n9,-1\n10,2\n99,1\n11,\n", "id"))
    assert found.rows == [{"text": "A good film", "rating": "2"}, {"text": "A bad, bad film", "rating": "-2"}]
    assert (found.answered, found.unlabelled, found.contradictory, found.repeated, found.strange) == (4, 1, 1, 0, 2)


def test_without_an_id_the_texts_join_as_training_compares_them(files: Path) -> None:
    found = join(section(), given(files, "text,rating\na good   FILM,2\nunknown,1\n"))
    assert [row["text"] for row in found.rows] == ["A good film"]
    assert (found.answered, found.unlabelled, found.repeated, found.strange) == (4, 2, 1, 1)


def test_what_is_no_number_is_no_label_as_in_training(files: Path) -> None:
    labels = '{"id": 7, "rating": NaN}\n{"id": 8, "rating": -2.0}\n{"id": 9, "rating": Infinity}\n'
    found = join(section(format="jsonl"), given(files, labels, "id", name="labels.jsonl"))
    assert (found.rows, found.unlabelled) == ([{"text": "A bad, bad film", "rating": -2.0}], 3)
    folder = files / "data" / "own" / "reviews"
    assert write_part(section(format="jsonl"), found.rows, folder, today=TODAY).is_file()
    with pytest.raises(PipelineError, match="must be finite"):
        write_part(section(format="jsonl"), [{"text": "a", "rating": [float("nan")]}], folder, today=TODAY)


@pytest.mark.parametrize(
    ("labels", "id_column", "said"),
    [
        ("id,rating\n1,2\n", "id", r"must have a label, by their id.*none of 4; 1 labels are of other rows"),
        ("id,stars\n7,2\n", "id", r"columns id, rating once"),
        ("id,rating\n7\n", "id", r"each row of labels.csv must have id, rating.*line 2"),
    ],
)
def test_labels_that_do_not_fit_are_refused(files: Path, labels: str, id_column: str | None, said: str) -> None:
    with pytest.raises(PipelineError, match=said):
        join(section(), given(files, labels, id_column))


def test_answers_of_other_rows_and_an_id_of_two_rows_are_refused(files: Path) -> None:
    asked = given(files, "id,rating\n7,2\n", "id")
    (files / "answers.jsonl").write_text('{"line": 2}\n{"line": 77}\n')
    with pytest.raises(PipelineError, match=r"answers.jsonl has line 77, and served.csv has no row there"):
        join(section(), asked)
    (files / "answers.jsonl").write_text('{"line": 2}\n{"line": 3}\n')
    (files / "served.csv").write_text("id,text\n7,one\n7,two\n")
    with pytest.raises(PipelineError, match=r"an id must stand for one row.*'7' in lines 2 and 3"):
        join(section(), asked)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "feedback-2026-03-02-*.csv"),
        ({"format": "jsonl"}, "feedback-2026-03-02-*.jsonl"),
        ({"format": "tsv", "quoting": False, "columns": ["number", "rating", "text"]}, "feedback-2026-03-02-*.tsv"),
    ],
)
def test_what_is_written_is_read_as_training_reads_it_and_once(files: Path, changes: Any, name: str) -> None:
    config = section(**changes)
    folder = growing_folder(config, files)
    rows = join(config, given(files, "id,rating\n7,2\n8,-2\n", "id")).rows
    path = write_part(config, rows, folder, today=TODAY)
    assert [path] == list(folder.glob(name)) == list(folder.iterdir())
    reader = Reader(config.format, config.columns, config.quoting, ("text", "rating"))
    read = [row.values for row in reader.read(config.source, None, root=files)]
    assert [(row["text"], row["rating"]) for row in read] == [("A good film", "2"), ("A bad, bad film", "-2")]
    with pytest.raises(PipelineError, match=r"rows are added once.*reviews/feedback-2026-03-02"):
        write_part(config, rows, folder, today=date(2026, 3, 9))


def test_what_the_format_cannot_hold_leaves_no_file(files: Path) -> None:
    config = section(quoting=False)
    with pytest.raises(PipelineError, match=r"without quotes .* no cell may hold what stands between cells"):
        write_part(config, [{"text": "A bad, bad film", "rating": "-2"}], growing_folder(config, files), today=TODAY)
    config = section(format="tsv", quoting=False)
    with pytest.raises(PipelineError, match=r"a row must be read as it was written|no cell may hold|as many rows"):
        write_part(config, [{"text": "two\rlines", "rating": "1"}], growing_folder(config, files), today=TODAY)
    assert list((files / "data" / "own" / "reviews").iterdir()) == []


def test_a_source_that_does_not_grow_takes_no_rows(files: Path) -> None:
    (files / "data" / "own" / "one.csv").write_text("text,rating\n")
    for changes in ({"source": "file:data/own/one.csv"}, {"growing": None}):
        with pytest.raises(PipelineError, match="put into a folder of rows that grows"):
            growing_folder(section(**changes), files)
    with pytest.raises(PipelineError, match="rows are added as JSON Lines, or lines of cells"):
        growing_folder(section(format="parquet"), files)


def test_options_of_rows_are_a_part_of_what_was_asked(files: Path) -> None:
    """A question that comes with other options is another row."""
    keys = {
        "task": "choice", "format": "jsonl", "template": "{question}", "option_columns": ["options"], "options": None,
        "answer_column": "answer", "answer_as": "index", "score": "per_byte", "train_on": "answer", "split": None,
    }  # fmt: skip
    raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    own = {
        "source": "file:data/own/reviews",
        "sha256": None,
        "columns": None,
        "growing": {"validation": 0.2, "test": 0.2},
    }
    prepare = {key: value for key, value in raw["prepare"].items() if key not in ("labels", "label_column", "measure")}
    config = check_params({**raw, "prepare": {**prepare, **keys, **own}}, "params.yaml").prepare
    asked = [{"question": "Is it so?", "options": options} for options in (["yes", "no"], ["no", "never"])]
    (files / "served.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    (files / "answers.jsonl").write_text('{"line": 1}\n{"line": 2}\n')
    (files / "labels.jsonl").write_text(json.dumps({**asked[1], "answer": 1}) + "\n")
    given_files = Feedback(files / "labels.jsonl", files / "served.jsonl", files / "answers.jsonl", None)
    rows, cells = join(config, given_files).rows, section(format="csv")
    assert rows == [{**asked[1], "answer": 1}]
    with pytest.raises(PipelineError, match="a list or object in options"):
        write_part(cells, rows, growing_folder(cells, files), today=TODAY)
