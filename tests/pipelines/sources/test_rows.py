from __future__ import annotations

import bz2
import datetime
import decimal
import gzip
import io
import json
import lzma
import random
import zipfile
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from pipelines.errors import PipelineError
from pipelines.sources import json_rows
from pipelines.sources.raw_row import RawRow
from pipelines.sources.rows import Reader


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
        ("jsonl", b'{"text": "\xff"}\n' * 2 + b"{}\n", "UTF-8.*2 of 3 lines are not, the first is line 1"),
        ("csv", b"text,label\n" + b"\xff,2\n" * 3 + b"a,1\n" * 200, "UTF-8.*3 of 204 lines.*line 2"),
        ("csv", b"te\xffxt,label\na,1\n", "readable csv.*line 1: not UTF-8"),
        ("csv", b"text,label\ra,1\r", "readable csv.*line 1: a carriage return"),
        ("json", b'[{"text": "\xff"}]', "UTF-8"),
        ("json", b'[{"text": "a"},\n {"text" "b"}]', "delimiter: line 2 column 10"),
        ("json", b'[{"text": "a"},]', "readable JSON"),
        ("json", b'[{"text": "a"}] []', "Extra data: line 1 column 17"),
        ("json", b'[{"text": "a", "text": "b"}]', "the name 'text' stands in it twice"),
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
    with pytest.raises(PipelineError, match="the columns of csv, tsv, ssv, psv"):
        list(Reader("jsonl", ["text"], False, ["text"]).read("file:data/own/x", None, root=tmp_path))


# --- a fault in one row is that row's alone ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "fault", "said"),
    [
        ("csv", b"a,b,c\n", "3 columns, not 2"),
        ("csv", b"a \r b,1\n", "a carriage return within the line"),
        ("csv", b"caf\xe9,1\n", "not UTF-8: byte 0xe9 at 4"),
        ("csv", b'"he said "hi" to me",1\n', "',' expected after '\"'"),
        ("csv", b'"he said "hi"\nto me",1\n', None),  # three on a line: where the row ends nobody can say
        ("csv", b"text,label\n", "the titles again"),
        ("jsonl", b'{"text": "a",, "label": "1"}\n', "no JSON: Expecting property name"),
        ("jsonl", b'{"text": "caf\xe9"}\n', "not UTF-8"),
        ("jsonl", b'{"text": "a", "label": "1", "label": "2"}\n', "no JSON: the name 'label' stands in it twice"),
        ("jsonl", b'{"text": ' + b"[" * 100_000 + b"\n", "no JSON: maximum recursion"),
        ("jsonl", b'{"label": ' + b"9" * 5000 + b"}\n", "no JSON: Exceeds the limit"),
    ],
)  # fmt: skip
def test_a_fault_in_a_row_is_that_rows_alone(kind: str, fault: bytes, said: str | None) -> None:
    sound = {
        "csv": (b"text,label\na,1\n", b"b,2\n"),
        "jsonl": (b'{"text": "a", "label": "1"}\n', b'{"text": "b", "label": "2"}\n'),
    }
    before, after = sound[kind]
    if said is None:
        with pytest.raises(PipelineError, match="every double quote closed"):
            read(before + fault + after, kind, quoting=True)
        return
    first, wrong, last = read(before + fault + after, kind, quoting=True)
    assert (first.values["text"], last.values["text"]) == ("a", "b")
    assert wrong.values == {}
    assert (wrong.problem or "").startswith(said)


def test_a_long_cell_is_read_as_it_stands() -> None:
    """Python's csv ends at a cell of more than 131,072 characters; whether a row is too long its tokens say."""
    rows = read(f"text,label\na,1\n{'x' * 200_000},2\nb,3\n", "csv")
    assert [len(str(row.values["text"])) for row in rows] == [1, 200_000, 1]


def test_a_quoted_row_that_never_ends_is_an_error_before_all_of_the_file_is_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipelines.sources.delimited.LONGEST_ROW", 1000)
    read_lines: list[int] = []

    class Lines(io.BytesIO):
        def readline(self, size: int | None = -1, /) -> bytes:
            number = len(read_lines)
            read_lines.append(number)
            if number == 10_000:
                return b""
            return b'"open,1\n' if number == 3 else b"text,label\n" if number == 0 else b"a,1\n"

    from pipelines.sources.delimited import read_cells

    with pytest.raises(PipelineError, match="line 4: a row of"):
        list(read_cells(Lines(), "f", "csv", quoting=True))
    assert len(read_lines) < 1000


# --- delimiters ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "mark"), [("csv", ","), ("tsv", "\t"), ("ssv", ";"), ("psv", "|")])
def test_each_delimiter_has_a_format(kind: str, mark: str) -> None:
    assert read(f"text{mark}label\na{mark}1\nb{mark}2\n", kind) == GOOD


def test_excels_own_first_line_is_no_row() -> None:
    rows = read("sep=;\ntext;label\na;1\n", "ssv", quoting=True)
    assert [(row.line, row.values) for row in rows] == [(3, {"text": "a", "label": "1"})]
    with pytest.raises(PipelineError, match=r"delimiter of csv.*sep=;.*prepare.format: ssv"):
        read("sep=;\ntext;label\na;1\n", "csv")


# --- JSON arrays ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 2, 7, 1 << 20])
def test_an_array_is_read_in_pieces_as_json_reads_it_whole(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(json_rows, "CHUNK", chunk)
    rng = random.Random(0)
    values = [
        {"text": "".join(rng.choices('a"\\é😀\n ]},', k=30)), "label": rng.choice([1, 2.5, -3e9, None, True])}
        for _ in range(40)
    ]
    for form in ({"ensure_ascii": False}, {"indent": 2}):
        assert [row.values for row in read(json.dumps(values, **form), "json")] == values  # type: ignore[arg-type]
    assert read("[]", "json") == read(" [ ] ", "json") == []


def test_of_an_array_no_more_is_held_than_a_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_rows, "CHUNK", 100)
    stream = io.BytesIO(b"[" + b",".join(b'{"text": "%d"}' % n for n in range(10_000)) + b"]")
    rows = json_rows.read_json_array(stream, "f")
    assert next(rows).values == {"text": "0"}
    assert stream.tell() < 1000


# --- parquet -------------------------------------------------------------------------------------------------------


def parquet_bytes(**columns: Any) -> bytes:
    buffer = io.BytesIO()
    parquet.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def test_of_parquet_only_the_needed_columns_are_converted() -> None:
    """A date of the year 300,000 is no Python value."""
    far = pa.array([2**62, 2**62], pa.timestamp("us"))
    data = parquet_bytes(text=["a", "b"], label=["1", "2"], seen=far)
    assert [row.values for row in read(data, "parquet")] == [row.values for row in GOOD]
    all_columns = list(Reader("parquet", None, False, ()).parse(io.BytesIO(data), "f"))
    assert [(row.problem or "")[:5] for row in all_columns] == ["seen:", "seen:"]


def test_a_typed_cell_is_as_text_has_it() -> None:
    data = parquet_bytes(
        text=[b"caf\xc3\xa9", b"\xff"],
        label=[decimal.Decimal("4.50"), decimal.Decimal("-1.00")],
        day=[datetime.date(2024, 7, 26), None],
    )
    rows = list(Reader("parquet", None, False, ()).parse(io.BytesIO(data), "f"))
    assert rows[0].values == {"text": "café", "label": "4.50", "day": "2024-07-26"}
    assert rows[1].values == {"text": b"\xff", "label": "-1.00", "day": None}


@pytest.mark.parametrize("name", ["the text", "text-1", "a.b", "a"])
def test_parquet_columns_may_have_any_name(name: str) -> None:
    nested = pa.array([{"b": "inner"}], pa.struct([("b", pa.string())]))
    columns: dict[str, Any] = {"a": nested, "a.b": ["outer"], "the text": ["x"], "text-1": ["y"]}
    rows = list(Reader("parquet", None, False, (name,)).parse(io.BytesIO(parquet_bytes(**columns)), "f"))
    wanted = {"a": {"b": "inner"}, "a.b": "outer", "the text": "x", "text-1": "y"}
    assert [row.values for row in rows] == [{name: wanted[name]}]


# --- what a file is ------------------------------------------------------------------------------------------------

PLAIN = b"text,label\na,1\nb,2\n"


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress], ids=["gzip", "bzip2", "xz"])
def test_a_compressed_file_is_read_as_what_it_holds(pack: Callable[[bytes], bytes]) -> None:
    assert read(pack(PLAIN), "csv") == GOOD
    assert len(read(pack(b'[{"text": "a"}]'), "json")) == 1
    assert len(read(pack(parquet_bytes(text=["a"], label=["1"])), "parquet")) == 1
    with pytest.raises(PipelineError, match="sound compressed file"):
        read(pack(b"text,label\n" + random.Random(0).randbytes(300_000).hex().encode())[:-100_000], "csv")


def test_a_compressed_file_is_unpacked_up_to_the_limit() -> None:
    data = io.BytesIO(gzip.compress(b"a,1\n" * 100_000))
    with pytest.raises(PipelineError, match="must not pass 1000 bytes"):
        list(Reader("csv", ["text", "label"], False, []).parse(data, "f", limit=1000))


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as bundle:
        for name in names:
            bundle.writestr(name, "x")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (zipped("[Content_Types].xml", "xl/worksheets/sheet1.xml"), "an Excel workbook .*save the rows as CSV"),
        (zipped("mimetype", "content.xml"), "an OpenDocument sheet"),
        (zipped("rows.csv"), "a zip archive.*Unpack it"),
        (b"PK\x03\x04 and no more", "a zip archive"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Excel workbook of the old kind"),
        (PLAIN.decode().encode("utf-16"), "UTF-16 text.*Convert"),
        (PLAIN.decode().encode("utf-32"), "UTF-32 text.*Convert"),
        (b"\x28\xb5\x2f\xfd\x00", "zstandard"),
        (b"ARROW1\x00\x00", "an Arrow"),
        (b"\x80\x04\x95", "a pickle, which could run code"),
        (b"SQLite format 3\x00", "a SQLite database"),
        (b"\n<!DOCTYPE html><html>", "an HTML page.*raw file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer.*git lfs pull"),
    ],
)
def test_what_is_no_file_of_rows_is_named(data: bytes, what: str) -> None:
    for packed in (data, gzip.compress(data)):
        with pytest.raises(PipelineError, match=what):
            read(packed, "csv")
