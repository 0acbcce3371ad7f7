from __future__ import annotations

import io
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from pipelines.errors import PipelineError
from pipelines.sources.rows import RawRow, Reader


def read(data: bytes | str, kind: Any, *, columns: list[str] | None = None, quoting: bool = False) -> list[RawRow]:
    raw = data.encode() if isinstance(data, str) else data
    return list(Reader(kind, columns, quoting, ["text", "label"]).parse(io.BytesIO(raw), "f"))


GOOD = [RawRow("f", 2, {"text": "a", "label": "1"}), RawRow("f", 3, {"text": "b", "label": "2"})]


def test_delimited_files_with_a_header() -> None:
    assert read("text,label\na,1\nb,2\n", "csv") == GOOD
    assert read("text\tlabel\r\na\t1\r\nb\t2\r\n", "tsv") == GOOD
    assert read(b"\xef\xbb\xbftext,label\na,1\nb,2\n", "csv") == GOOD  # a byte order mark


def test_columns_name_a_file_without_a_header() -> None:
    assert [row.line for row in read("a\t1\nb\t2\n", "tsv", columns=["text", "label"])] == [1, 2]


def test_quotes_are_plain_characters_unless_quoting() -> None:
    assert read('text\tlabel\n"a\t1\n', "tsv")[0].values == {"text": '"a', "label": "1"}
    rows = read('text,label\n"a\nb, c",1\nd,2\n', "csv", quoting=True)
    assert [(row.line, row.values["text"]) for row in rows] == [(2, "a\nb, c"), (4, "d")]


def test_another_number_of_columns_is_a_problem_of_that_row_only() -> None:
    rows = read("text,label\na\nb,2\nc,3,4\n\n", "csv")
    assert [(row.line, row.problem) for row in rows] == [(2, "1 columns, not 2"), (3, None), (4, "3 columns, not 2")]


@pytest.mark.parametrize(("kind", "data"), [("csv", "text,other\na,1\n"), ("csv", "text,label,text\na,1,b\n")])
def test_a_missing_or_double_column_is_an_error(kind: str, data: str) -> None:
    with pytest.raises(PipelineError, match="must have each of the columns text, label once"):
        read(data, kind)


def test_json_and_jsonl_rows() -> None:
    objects = '{"text": "a", "label": 1}', '{"text": "b"}', "3"
    rows = read("\n\n".join(objects) + "\n", "jsonl")
    assert [(row.line, row.problem) for row in rows] == [(1, None), (3, None), (5, "a JSON int, not an object")]
    rows = read("[" + ",".join(objects) + "]", "json")
    assert [(row.line, len(row.values)) for row in rows] == [(1, 2), (2, 1), (3, 0)]


@pytest.mark.parametrize(
    ("kind", "data", "message"),
    [
        ("jsonl", b'{"text": "a"}\n{"text"', "f must be readable JSON.*line 2"),
        ("jsonl", b'{}\n{"text": "\xff"}', "UTF-8.*line 2"),
        ("csv", b"text,label\na,1\n\xff,2\n", "UTF-8.*line 3"),
        ("json", b'{"text": "a"}', "array of objects"),
        ("json", b"[" * 100_000, "readable JSON"),
        ("json", b"", "readable JSON"),
        ("parquet", b"PAR1 no", "readable parquet"),
    ],
)
def test_a_broken_file_is_named_with_the_place(kind: str, data: bytes, message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        read(data, kind)


def test_an_open_quote_is_an_error_with_its_line() -> None:
    with pytest.raises(PipelineError, match=r"line 3.*quoting"):
        read('text,label\na,1\n"b,2\n', "csv", quoting=True)


def test_parquet_rows() -> None:
    buffer = io.BytesIO()
    parquet.write_table(pa.table({"text": ["a", "b"], "label": [1, 2]}), buffer)
    assert read(buffer.getvalue(), "parquet")[1] == RawRow("f", 2, {"text": "b", "label": 2})
    buffer = io.BytesIO()
    parquet.write_table(pa.table({"text": ["a"]}), buffer)
    with pytest.raises(PipelineError, match="label"):
        read(buffer.getvalue(), "parquet")


def test_columns_are_for_delimited_files_only(tmp_path: Any) -> None:
    with pytest.raises(PipelineError, match="csv and tsv"):
        list(Reader("jsonl", ["text"], False, ["text"]).read("file:data/own/x", None, root=tmp_path))
