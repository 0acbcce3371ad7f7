from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from tokenizers.processors import TemplateProcessing

from flows.runs.cards import data_card
from pipelines.contracts.beside import read_near, read_slices
from pipelines.contracts.card import Overlap, read_card
from pipelines.contracts.prepared import SPLITS, Row, data_sha256, read_rows
from pipelines.contracts.task import read_task
from pipelines.errors import PipelineError
from pipelines.intake.library import Sources, prepare_keys, read_task_file
from pipelines.params.whole import check_params
from pipelines.sources.raw_row import RawRow
from pipelines.stages import base, prepare
from pipelines.tasks.collect import collect, distinct
from pipelines.tasks.family import family_of
from pipelines.tasks.keys.classification import ClassificationParams
from pipelines.tasks.prompts import render_prompt
from pipelines.tasks.reader import RowReader
from pipelines.tasks.row_store import row_store
from pipelines.tasks.rows import comparable
from reft.data import prompt_tokens
from tests.tiny import tiny_tokenizer, write_tiny_base

ROOT = Path(__file__).parents[3]
LABELS = {
    "negative": {"word": " negative", "min": None, "max": -1.0, "values": None},
    "positive": {"word": " positive", "min": 1.0, "max": None, "values": None},
}
OWN: dict[str, Any] = {
    "source": "file:data/own/rows.jsonl",
    "sha256": None,
    "format": "jsonl",
    "columns": None,
    "template": "Review: {text}\nSentiment:",
    "label_column": "label",
    "labels": LABELS,
    "train_rows": 20,
    "validation_rows": 6,
    "test_rows": 10,
    "max_tokens": 60,
}


UNDATED = "2224e3d6ff46a6cb05512c2fe64972d85b47e595a43dce88f5893810c2abc622"  # data_sha256 of rows(50)


def raw_params(**changes: Any) -> dict[str, Any]:
    raw: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    raw["base"] |= {"source": "file:models/own/tiny", "sha256": None, "dtype": "float32"}
    raw["prepare"] |= OWN | changes
    raw["search"]["train_rows"] = 1
    return raw


def section(**changes: Any) -> ClassificationParams:
    return check_params(raw_params(**changes), "params.yaml").prepare


@pytest.fixture
def project(tmp_path: Path) -> Path:
    write_tiny_base(tmp_path / "models" / "own" / "tiny")
    (tmp_path / "data" / "own").mkdir(parents=True)
    params = check_params(raw_params(), "params.yaml")
    base.run(params, root=tmp_path, out=tmp_path / "base.json")
    return tmp_path


def rows(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [{"text": f"film {n}", "label": 2 if n % 4 else -2} for n in range(start, start + count)]


def write(project: Path, data: list[Any], name: str = "rows.jsonl") -> None:
    (project / "data" / "own" / name).parent.mkdir(exist_ok=True)
    (project / "data" / "own" / name).write_text("".join(json.dumps(row) + "\n" for row in data))


def run(project: Path, data: list[Any] | None = None, **changes: Any) -> prepare.PrepareResult:
    if data is not None:
        write(project, data)
    params = check_params(raw_params(**changes), "params.yaml")
    return prepare.run(
        params, root=project, base=project / "base.json", out=project / "prepared", card=project / "data.json"
    )


def rejected(project: Path) -> list[tuple[int, str]]:
    lines = (project / "prepared" / "rejected.jsonl").read_text().splitlines()
    return [(row["line"], row["reason"]) for row in map(json.loads, lines)]


def ids(project: Path) -> dict[str, list[str]]:
    return {split: [row.prompt for row in read_rows(project / "prepared", split)] for split in SPLITS}


def test_splits_have_the_asked_sizes_and_share_no_text(project: Path) -> None:
    result = run(project, rows(50))
    assert result.splits == {"train": 20, "validation": 6, "test": 10}
    assert result.unused == 14
    texts = [text for split in ids(project).values() for text in split]
    assert len(set(texts)) == len(texts) == 36


def test_splits_keep_the_balance_of_the_labels(project: Path) -> None:
    run(project, rows(200), train_rows=80, validation_rows=20, test_rows=40)
    for split, size in (("train", 80), ("validation", 20), ("test", 40)):
        labels = [row.label for row in read_rows(project / "prepared", split)]  # type: ignore[arg-type]
        assert abs(labels.count("negative") - size / 4) <= 1


def test_the_split_does_not_depend_on_the_order_of_the_file(project: Path) -> None:
    run(project, rows(50))
    first = ids(project)
    run(project, rows(50)[::-1])
    assert ids(project) == first


def test_the_same_input_gives_the_same_bytes_and_another_seed_another_split(project: Path) -> None:
    first = run(project, rows(50)).content_sha256
    assert run(project).content_sha256 == first == data_sha256(project / "prepared")
    params = check_params(raw_params() | {"seed": 7}, "params.yaml")
    out = {"out": project / "other", "card": project / "other.json"}
    assert prepare.run(params, root=project, base=project / "base.json", **out).content_sha256 != first


def test_every_row_is_used_unused_or_rejected_with_line_and_reason(project: Path) -> None:
    bad: list[Any] = [
        {"text": "neutral", "label": 0},
        {"text": " ", "label": 2},
        {"text": None, "label": 2},
        {"text": ["a"], "label": 2},
        {"text": "x", "label": "many"},
        {"text": "x", "label": None},
        {"label": 2},
        3,
        {"text": " FILM  1", "label": 2},
        {"text": "two minds", "label": 2},
        {"text": "Two  minds", "label": -2},
        {"text": "x" * 200, "label": 2},
        {"text": "evil </s> turn", "label": 2},
    ]
    result = run(project, rows(50) + bad)
    assert rejected(project) == [
        (51, "no label rule holds"),
        (52, "a text is empty"),
        (53, "a text is empty"),
        (54, "a column is not text"),
        (55, "the label is not a number"),
        (56, "no label rule holds"),
        (57, "a column is missing"),
        (58, "the row cannot be read"),
        (59, "the same text stands in an earlier row"),
        (60, "the same text has another answer in another row"),
        (61, "the same text has another answer in another row"),
        (62, "prompt and completion have too many tokens"),
        (63, "a text holds a special token of the model"),
    ]
    assert result.read == sum(result.splits.values()) + sum(result.rejected.values()) + result.unused
    card = json.loads((project / "data.json").read_text())
    assert card["rejected"]["total"] == len(bad)
    assert read_card(project / "data.json").content_sha256 == result.content_sha256
    assert card["splits"]["test"]["rows"] == 10


def test_a_text_in_an_own_test_file_is_taken_from_training(project: Path) -> None:
    write(project, [*rows(3), *rows(20, start=100)], "test.jsonl")
    result = run(project, rows(40), test_source="file:data/own/test.jsonl")
    assert result.rejected == {"the text is also in the test source": 3}
    assert not set(ids(project)["test"]) & set(ids(project)["train"] + ids(project)["validation"])
    assert all(row.id.startswith("data/own/test.jsonl:") for row in read_rows(project / "prepared", "test"))


def test_one_source_is_not_two_splits(project: Path) -> None:
    with pytest.raises(PipelineError, match="another split"):
        run(project, rows(50), test_source="file:data/own/rows.jsonl")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "no row"),
        ([{"other": 1}] * 3, "none with all of them"),
        (rows(35), r"36 usable rows.*Got: 35"),
        ([{"text": f"film {n}", "label": 2} for n in range(50)], "at least two labels"),
        ([*rows(20), *[{"text": "z", "label": 0}] * 30], "30 because no label rule holds"),
    ],
)
def test_data_that_cannot_serve_is_an_error_with_the_numbers(project: Path, data: list[Any], message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        run(project, data)
    assert not (project / "prepared").exists()


def test_a_failed_run_leaves_the_last_good_output(project: Path) -> None:
    content = run(project, rows(50)).content_sha256
    with pytest.raises(PipelineError):
        run(project, rows(5))
    assert data_sha256(project / "prepared") == content


def test_the_task_file_keeps_the_order_of_the_labels(project: Path) -> None:
    turned = dict(reversed(LABELS.items()))
    run(project, rows(50), labels=turned)
    assert list(read_task(project / "prepared").settings["labels"]) == ["positive", "negative"]


# --- groups of rows ---


def grouped(count: int, size: int, start: int = 0) -> list[dict[str, Any]]:
    """Groups of so many rows each, with both labels in each."""
    return [
        {"text": f"film {n} of {group}", "label": 2 if n % 2 else -2, "passage": f"Passage  {group}"}
        for group in range(start, start + count)
        for n in range(size)
    ]


def test_rows_of_one_group_stand_in_one_split(project: Path) -> None:
    run(project, grouped(20, 5), group_column="passage", train_rows=40, validation_rows=20, test_rows=20)
    found = {split: read_rows(project / "prepared", split) for split in SPLITS}
    groups = {split: {row.group for row in rows} for split, rows in found.items()}
    assert {split: len(own) for split, own in groups.items()} == {"train": 8, "validation": 4, "test": 4}
    assert not groups["train"] & groups["test"]
    assert not groups["validation"] & (groups["train"] | groups["test"])
    assert all(row.group == f"passage {row.prompt.split()[4]}" for row in found["train"])


def test_a_group_of_another_source_is_rejected_and_a_row_without_one_is_alone(project: Path) -> None:
    free = [{"text": f"free {row['text']}", "label": row["label"]} for row in rows(30)]
    free = [row | {"passage": " "} if place % 2 else row for place, row in enumerate(free)]
    write(project, grouped(8, 5, start=18), "test.jsonl")
    result = run(project, [*grouped(20, 5), *free], group_column="passage", test_source="file:data/own/test.jsonl",
        train_rows=40, validation_rows=20, test_rows=20)  # fmt: skip
    assert result.rejected == {"the group is also in the test source": 10}
    kept = [row for split in SPLITS for row in read_rows(project / "prepared", split)]
    assert {row.group is None for row in kept if "free" in row.prompt} == {True}


def test_a_group_column_that_no_row_has_is_an_error(project: Path) -> None:
    with pytest.raises(PipelineError, match=r"rows with the column of group_column.*100 rows, none with 'pasage'"):
        run(project, grouped(20, 5), group_column="pasage")


# --- rows that grow ---


def test_rows_that_are_added_leave_every_row_in_its_split(project: Path) -> None:
    growing = {"growing": {"validation": 0.25, "test": 0.25}}
    run(project, rows(80), **growing)
    before = ids(project)
    result = run(project, rows(160)[::-1], **growing)
    after = ids(project)
    assert all(set(before[split]) < set(after[split]) for split in SPLITS)
    assert (sum(result.splits.values()), result.unused) == (160, 0)


def test_a_folder_of_rows_grows_by_files_whatever_their_names(project: Path) -> None:
    growing = {"growing": {"validation": 0.25, "test": 0.25}, "source": "file:data/own/reviews"}
    write(project, rows(80), "reviews/2026-02.jsonl")
    run(project, **growing)
    before, digest = ids(project), read_card(project / "data.json").source_sha256
    write(project, rows(40, start=60), "reviews/2026-01.jsonl")  # half of them were there
    result = run(project, **growing)
    after = ids(project)
    assert all(set(before[split]) <= set(after[split]) for split in SPLITS)
    assert (result.read, sum(result.splits.values())) == (120, 100)
    assert read_card(project / "data.json").source_sha256 != digest
    files = {row.id.rpartition(":")[0] for split in SPLITS for row in read_rows(project / "prepared", split)}
    assert files == {"data/own/reviews/2026-01.jsonl", "data/own/reviews/2026-02.jsonl"}


def test_a_text_of_two_groups_is_counted_among_the_rejected(project: Path) -> None:
    lone = [{"text": "a text", "label": 2, "passage": f"passage {n}"} for n in range(20)]  # in all splits, surely
    result = run(project, [*grouped(40, 5), *lone], growing={"validation": 0.25, "test": 0.25}, group_column="passage")
    assert result.rejected == {"the text stands in groups of several splits": 20}
    assert sum(result.splits.values()) == 200


# --- a domain of each row ------------------------------------------------------------------------------------


def dated(count: int, *years: Any) -> list[dict[str, Any]]:
    """Each text once for each year; the label of a text turns with the year."""
    return [
        {"text": f"film {n}", "year": year, "label": 2 if (n + place) % 2 else -2}
        for n in range(count)
        for place, year in enumerate(years)
    ]


def test_rows_have_the_domain_of_their_column(project: Path) -> None:
    run(project, [*dated(50, 2015), *({**row, "text": f"again {row['text']}"} for row in dated(9, "2016.5"))],
        domain_column="year", train_rows=40)  # fmt: skip
    found = [row for split in SPLITS for row in read_rows(project / "prepared", split)]
    assert {row.domain for row in found} == {2015.0, 2016.5}
    assert all((row.domain == 2016.5) == ("again" in row.prompt) for row in found)
    assert read_task(project / "prepared").domain_column == "year"
    card = json.loads((project / "data.json").read_text())
    assert card["splits"]["train"]["domain"] == {"low": 2015.0, "high": 2016.5, "different": 2}


def test_without_a_domain_column_nothing_is_written_of_it(project: Path) -> None:
    """The hash is what this data had before there were domains, read with the commit before."""
    assert run(project, rows(50)).content_sha256 == UNDATED
    row = json.loads((project / "prepared" / "train.jsonl").read_text().splitlines()[0])
    assert set(row) == {"id", "prompt", "completion", "label"}
    assert "domain_column" not in json.loads((project / "prepared" / "task.json").read_text())
    assert "domain" not in json.loads((project / "data.json").read_text())["splits"]["train"]


def test_a_text_may_stand_in_several_domains_and_is_in_one_split(project: Path) -> None:
    data = dated(40, 2015, 2017, 2019)
    result = run(project, data, domain_column="year", test_rows=10, validation_rows=7, train_rows=60)
    assert result.splits == {"train": 60, "validation": 7, "test": 10}
    assert result.read == sum(result.splits.values()) + result.unused
    texts = {split: {row.prompt for row in read_rows(project / "prepared", split)} for split in SPLITS}
    assert (
        not texts["train"] & texts["test"] | texts["train"] & texts["validation"] | texts["validation"] & texts["test"]
    )
    assert len(texts["train"]) < 60
    first = ids(project)
    run(project, data[::-1], domain_column="year", test_rows=10, validation_rows=7, train_rows=60)
    assert ids(project) == first


def test_a_text_twice_in_one_domain_is_a_duplicate_or_a_conflict(project: Path) -> None:
    data = dated(50, 2015, 2016)
    twice = [data[0], {**data[2], "label": -data[2]["label"]}]
    run(project, data + twice, domain_column="year")
    assert rejected(project) == [
        (3, "the same text has another answer in another row"),
        (101, "the same text stands in an earlier row"),
        (102, "the same text has another answer in another row"),
    ]


@pytest.mark.parametrize("year", [None, "", "soon", "nan", "inf", True, [2015]])
def test_a_row_whose_domain_is_no_finite_number_is_rejected(project: Path, year: Any) -> None:
    run(project, [*dated(50, 2015, 2016), {"text": "odd", "label": 2, "year": year}, {"text": "none", "label": 2}],
        domain_column="year")  # fmt: skip
    assert rejected(project) == [(101, "the domain is not a finite number"), (102, "a column is missing")]


def test_a_domain_in_the_template_makes_no_text_another(project: Path) -> None:
    data = dated(40, 2015, 2017)
    run(project, data, domain_column="year", template="In {year}: {text}\nSentiment:")
    found = {split: read_rows(project / "prepared", split) for split in SPLITS}
    assert all(row.prompt.startswith(f"In {row.domain:g}: ") for split in SPLITS for row in found[split])
    texts = {split: {row.prompt.partition(": ")[2] for row in found[split]} for split in SPLITS}
    assert not texts["train"] & texts["test"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"domain_column": "label"}, "domain_column must not be label_column, which is to be told; got 'label'"),
        ({"domain_column": "text"}, "the template must name a column beside domain_column; got 'text' alone"),
        (
            {"domain_column": "year", "format": "csv", "columns": ["text", "label"]},
            "domain_column names a column that columns holds; got 'year'",
        ),
        (
            {"group_column": "passage", "format": "csv", "columns": ["text", "label"]},
            "group_column names a column that columns holds; got 'passage'",
        ),
        (
            {"growing": {"validation": 0.3, "test": 0.2}, "test_source": "file:data/own/test.jsonl"},
            "growing.test must be null, since its rows are those of file:data/own/test.jsonl; got 0.2",
        ),
        (
            {"growing": {"validation": None, "test": 0.2}},
            "growing.validation must be a share, since it is cut from source; got None",
        ),
        (
            {"growing": {"validation": 0.5, "test": 0.5}},
            "growing must leave a share for the train split; got 1 for the others",
        ),
        (
            {"measure": "f1", "labels": LABELS | {"x": LABELS["positive"] | {"word": " x", "min": 0.0, "max": 0.5}}},
            "measure f1 is that of the second of two labels; got 3; take macro_f1",
        ),
    ],
)
def test_a_column_or_measure_that_cannot_be_is_told_before_anything_is_read(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(PipelineError, match=message):
        section(**changes)


def test_training_rows_of_one_domain_are_an_error(project: Path) -> None:
    with pytest.raises(PipelineError, match=r"at least two domains, numbers of the column year.*2015.0 only, in 20"):
        run(project, dated(50, 2015), domain_column="year")


# --- the task ------------------------------------------------------------------------------------------------


def reader(keys: ClassificationParams, *, chat: bool = True) -> RowReader:
    return RowReader(keys, family_of(keys), tiny_tokenizer(chat=chat))


def read(rows: RowReader, **values: object) -> Row:
    found = rows.read(RawRow("f", 1, values))
    assert isinstance(found, Row), found
    return found


def test_the_prompt_is_the_filled_template_and_nothing_in_a_text_is_a_placeholder() -> None:
    task = reader(section())
    row = read(task, text=" a {label} {{x}} ", label=1.5)
    assert row.prompt == "Review: a {label} {{x}}\nSentiment:"
    assert (row.completion, row.label) == (" positive", "positive")


def test_a_chat_prompt_is_a_users_turn() -> None:
    task = reader(section(chat=True, template="{text}?"))
    assert read(task, text="good", label=1).prompt == "<s>user\ngood?</s><s>assistant\n"
    with pytest.raises(PipelineError, match="chat template"):
        reader(section(chat=True), chat=False)


@pytest.mark.parametrize(
    ("values", "value", "holds"),
    [
        (["entailment"], " entailment ", True),
        ([1], "1", True),
        ([1], "1.0", True),
        ([1], "one", False),
        ([1], 1, True),
        ([1], 1.0, True),
        ([1], True, False),
        ([True], "true", True),
        ([True], True, True),
        (["1"], 1, False),
        ([2**53], f"{2**53 + 1}", False),  # of which fp64 knows the first alone
        ([2**53 + 1], f" {2**53 + 1} ", True),
    ],
)
def test_values_mean_what_they_say_in_text_and_in_json(values: list[Any], value: object, holds: bool) -> None:
    labels = {
        "a": {"word": " a", "min": None, "max": None, "values": values},
        "b": {"word": " b", "min": None, "max": None, "values": ["other"]},
    }
    task = reader(section(labels=labels))
    assert isinstance(task.read(RawRow("f", 1, {"text": "t", "label": value})), Row) == holds


def test_the_ends_of_a_range_belong_to_it() -> None:
    task = reader(section())
    assert read(task, text="t", label="1.0").label == "positive"
    assert read(task, text="t", label=-1).label == "negative"
    for value in ("0.99", "nan", "inf", True):
        assert not isinstance(task.read(RawRow("f", 1, {"text": "t", "label": value})), Row)


SAME = [("Well made,  FILM!\n", "well made, film!"), ("e\u0301tude", "\u00c9tude"), ("\u1e9e", "ss")]
OTHER = [
    ("18 < 172", "18 > 172"), ("-5", "5"), ("x == y", "x != y"), ("good :)", "good :("), ("so 👍", "so 👎"),
    ("¬A", "A"), ("a/b", "ab"), ("3.5", "35"), ("50%", "50"), ("C#", "C"), ("f(x)", "fx"), ("x²", "x2"),
    ("שָׁלוֹם", "שלום"), ("कि", "की"), ("resume", "résumé"), ("naïve", "naive"), ("(1, 2]", "[1, 2)"),
    ("no, one", "no one"), ("therapist", "the rapist"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), SAME)
def test_texts_are_one_but_for_case_and_spacing(one: str, other: str) -> None:
    assert comparable(one) == comparable(other)


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_texts_that_differ_in_a_sign_or_a_mark_are_two(tmp_path: Path, one: str, other: str) -> None:
    """With signs removed each pair would be one text with two labels, and both rows dropped."""
    assert comparable(one) != comparable(other)
    rows = reader(section())
    pair = [rows.read(RawRow("f", n, {"text": t, "label": 2 - 4 * n})) for n, t in enumerate((one, other))]
    with row_store(tmp_path / "prepared", 0) as store:
        for row in pair:
            assert isinstance(row, Row)
            store.add("train", row)
        store.flush()
        distinct(store, "train")
        assert store.count("train") == 2
        assert list(store.rejected()) == []


def test_near_duplicates_are_kept_and_counted(project: Path) -> None:
    pairs = [{"text": f"{n} {sign} {n + 1}", "label": 2 if sign == "<" else -2} for n in range(25) for sign in "<>"]
    result = run(project, pairs, train_rows=30)
    assert result.rejected == {}
    found = json.loads((project / "data.json").read_text())["near_duplicates"]
    made = {split: read_rows(project / "prepared", split) for split in SPLITS}
    texts = {split: [row.prompt.replace("<", ">") for row in made[split]] for split in SPLITS}
    every = [text for split in SPLITS for text in texts[split]]
    shared = {text for text in every if sum(text in texts[split] for split in SPLITS) > 1}
    assert found == {
        "rows": sum(every.count(text) > 1 for text in every),
        "across_splits": sum(text in shared for text in every),
    }
    assert found["rows"] > found["across_splits"]


def told(number: int) -> str:
    """A text that is near no other one of another number."""
    return hashlib.sha256(str(number).encode()).hexdigest()[:36]


def test_planted_leaks_are_counted_named_and_warned_of(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of ten test rows in a file of their own two stand in the main file too, and three but for their last letter."""
    data = [{"text": told(n), "label": 2 if n % 4 else -2} for n in range(40)]
    near = [{**row, "text": f"{row['text']}x"} for row in data[2:5]]
    others = [{"text": told(n), "label": 2 if n % 4 else -2} for n in range(100, 105)]
    write(project, data[:2] + near + others, name="test.jsonl")
    run(project, data, test_source="file:data/own/test.jsonl", train_rows=38 - 6)
    card = read_card(project / "data.json")
    assert card.rejected == {"the text is also in the test source": 2}
    learned = {row.prompt: split for split in ("train", "validation") for row in read_rows(project / "prepared", split)}
    counts = Counter(learned[f"Review: {row['text']}\nSentiment:"] for row in data[2:5])
    assert card.overlap == Overlap(2, counts["train"], counts["validation"], 0)
    assert sum(counts.values()) == 3
    named = {(each.split, each.id) for each in read_near(project / "prepared")}
    assert named == {("test", f"data/own/test.jsonl:{line}") for line in (3, 4, 5)}
    assert "2 rows stand in the sources of two splits" in caplog.text
    assert f"{counts['train']} of 10 test rows are nearly the same as a training row" in caplog.text
    page = data_card(card)
    assert "Overlap of splits: 2 rows stood in the sources of two splits" in page
    assert f"nearly a training row are {counts['train']} test row" in page


def test_columns_that_figures_are_sliced_by_stand_beside_the_rows_and_change_no_hash(project: Path) -> None:
    data: list[dict[str, Any]] = [{**row, "topic": f"t{place % 3}"} for place, row in enumerate(rows(50))]
    del data[7]["topic"]
    run(project, data)
    plain = data_sha256(project / "prepared")
    raw = raw_params()
    paths = {"base": project / "base.json", "out": project / "prepared", "card": project / "data.json"}
    raw["evaluate"]["slices"] = ["length", "{topic}"]
    prepare.run(check_params(raw, "params.yaml"), root=project, **paths)
    assert data_sha256(project / "prepared") == plain
    found = read_slices(project / "prepared")
    assert {row.id for row in read_rows(project / "prepared", "test")} == set(found)
    for name, values in found.items():
        place = int(name.rpartition(":")[2]) - 1
        assert values == ({"topic": f"t{place % 3}"} if place != 7 else {})
    raw["evaluate"]["slices"] = ["{subject}"]
    with pytest.raises(PipelineError, match=r"columns that evaluate\.slices names\. Got: 50 rows, none with subject"):
        prepare.run(check_params(raw, "params.yaml"), root=project, **paths)


def test_damaged_rows_of_a_public_tasks_file_are_named_with_their_lines(project: Path) -> None:
    """CoLA's file as its publisher has it, but for a row cut off, one with a zero byte, one with a strange label."""
    lines = [f"gj04\t{n % 2}\t\tThe {told(n)} sleeps." for n in range(50)]
    lines[6], lines[20] = "gj04\t1", f"gj04\t1\t\tThe \0 {told(20)}."
    lines[33] = lines[33].replace("gj04\t1", "gj04\t2")
    (project / "data" / "own" / "train.tsv").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    raw = raw_params()
    sizes = {"train_rows": 30, "validation_rows": 6, "test_rows": 8}
    raw["prepare"] = prepare_keys(read_task_file("cola"), Sources({"train": "file:data/own/train.tsv"}, sizes))
    raw["search"]["objectives"] = ["matthews"]
    paths = {"base": project / "base.json", "out": project / "prepared", "card": project / "data.json"}
    prepare.run(check_params(raw, "params.yaml"), root=project, **paths)
    found = dict(rejected(project))
    assert sorted(found) == [7, 21, 34]
    page = data_card(read_card(project / "data.json"))
    assert "Read 50 rows; 3 were rejected (rejected.jsonl beside the splits names each)" in page
    for reason in found.values():
        assert f"| {reason} | 1 |" in page


# --- answers and tokens ----------------------------------------------------------------------------------------------


def worded(*given: str) -> dict[str, Any]:
    return {f"w{n}": {"word": word, "min": None, "max": None, "values": [n]} for n, word in enumerate(given)}


@pytest.mark.parametrize(
    "given", [(" 1", " 10"), (" good enough", " good"), (" x", " positive", " positive!"), ("a", "ab", "abc")]
)
def test_a_word_that_begins_another_is_refused_until_each_ends_with_its_line(given: tuple[str, ...]) -> None:
    with pytest.raises(PipelineError, match=r"beginning of another's.*line end"):
        reader(section(labels=worded(*given)))
    reader(section(labels=worded(*(f"{word}\n" for word in given))))


@pytest.mark.parametrize("name", ["-1", "c++", "хорошо", "سيئ", "👍", "not good", "A/B", "1,5", "a: b # c", "null"])
def test_a_labels_name_is_the_answer_and_may_be_any_text(project: Path, name: str) -> None:
    named = dict(zip((name, "other"), LABELS.values(), strict=True))
    run(project, rows(50), labels=named)
    assert {row.label for row in read_rows(project / "prepared", "train")} == {name, "other"}
    assert read_task(project / "prepared").settings["labels"] == {name: " negative", "other": " positive"}
    assert name in json.loads((project / "data.json").read_text())["splits"]["train"]["labels"]


@pytest.mark.parametrize("name", ["", " a", "a ", "a\nb", "\x00"])
def test_a_labels_name_is_one_line_without_blanks_around_it(name: str) -> None:
    with pytest.raises(PipelineError, match=r"prepare.*labels"):
        section(labels=dict(zip((name, "other"), LABELS.values(), strict=True)))


@pytest.mark.parametrize(
    ("template", "words", "otherwise"),
    [
        ("Review: {text}\nSentiment:", (" negative", " positive"), 0),
        ("Review: {text}\nSentiment: ", ("negative", "positive"), 36),  # the space was a part of the word's token
        ("Review: {text}\nSentiment", ("negative", "positive"), 0),
        ("{text} posit", ("ative", "ive"), 27),  # in the middle of the word of 27 rows
    ],
)
def test_prompts_that_join_their_answers_otherwise_are_counted_and_warned_of(
    project: Path, caplog: pytest.LogCaptureFixture, template: str, words: tuple[str, str], otherwise: int
) -> None:
    labels = {name: LABELS[name] | {"word": word} for name, word in zip(LABELS, words, strict=True)}
    run(project, rows(36), template=template, labels=labels)
    assert json.loads((project / "data.json").read_text())["joined_otherwise"] == otherwise
    assert (f"of {otherwise} of 36 usable rows" in caplog.text) == bool(otherwise)


def test_an_end_token_of_the_tokenizer_is_not_counted(project: Path) -> None:
    write(project, rows(20))
    keys, tokenizer = section(), tiny_tokenizer()

    def measured() -> tuple[Any, list[Any]]:
        with row_store(project / "prepared", 0) as store:
            found = collect(keys, RowReader(keys, family_of(keys), tokenizer), project, store)
            return found, list(store.kept("train"))

    bare = measured()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    assert measured() == bare
    assert bare[0].joined_otherwise == 0


CLOCK = "{% set day = strftime_now( '%d %b %Y' ) %}{{ day }} {{ messages[0]['content'] }}"


@pytest.mark.parametrize("template", [CLOCK, CLOCK.replace("'", '"')])
def test_a_chat_templates_date_is_the_same_every_day(template: str) -> None:
    tokenizer, keys = tiny_tokenizer(), section(chat=True)
    tokenizer.chat_template = template
    RowReader(keys, family_of(keys), tokenizer)
    prompt = render_prompt(tokenizer, template="{text}", chat=True, texts={"text": "so"})
    assert prompt == "26 Jul 2024 so"


@pytest.mark.parametrize("chance", ["{{ ['a', 'b'] | random }}", "{{ lipsum(n=1) }}", "{{ strftime_now(form) }}"])
def test_a_chat_template_that_throws_dice_is_refused(chance: str) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = chance + CLOCK
    RowReader(section(), family_of(section()), tokenizer)  # it is not used
    with pytest.raises(PipelineError, match="must give the same prompt each time"):
        RowReader(section(chat=True), family_of(section(chat=True)), tokenizer)


@pytest.mark.parametrize("special", ["$A </s>", "<s> $A </s>", "<s> $A", "$A"])
@pytest.mark.parametrize("bos", ["<s>", "</s>"])
def test_a_chat_prompt_begins_with_what_its_template_says_once(special: str, bos: str) -> None:
    """With GPT-2's one token for both ends, an end that is put behind a text is not the beginning of another."""
    tokenizer = tiny_tokenizer()
    tokenizer.bos_token = bos
    processor = TemplateProcessing(single=special.replace("<s>", bos), special_tokens=[("<s>", 1), ("</s>", 2)])
    tokenizer.backend_tokenizer.post_processor = processor
    tokenizer.chat_template = f"{bos}{{{{ messages[0]['content'] }}}}"
    prompt = render_prompt(tokenizer, template="{text}", chat=True, texts={"text": "so"})
    assert prompt_tokens(tokenizer, prompt).count(tokenizer.bos_token_id) == 1
