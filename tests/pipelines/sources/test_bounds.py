"""A few bytes of a data file that stand for gigabytes: refused in little memory, whatever the format.

Each is read in a process of its own, whose height the operating system tells; Python with what reads it takes 100 MB.
"""

from __future__ import annotations

import gzip
import io
import json
import lzma
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from pipelines.errors import PipelineError
from pipelines.sources import content, raw_row, rows
from pipelines.sources.parquet_rows import decoded
from pipelines.sources.rows import Reader

ROOT = Path(__file__).parents[3]
MEGABYTES = 300  # of the process that reads; the files below stand for 500 to 5,000
READ = """
import sys
from benchmarks.speed.peak import peak_memory
from pipelines.errors import PipelineError
from pipelines.sources.rows import Reader
if __name__ == "__main__":
    with open(sys.argv[2], "rb") as stream:
        try:
            print(sum(1 for row in Reader(sys.argv[1], None, True, ["text"]).parse(stream, "f", limit=10**9)), "rows")
        except PipelineError as error:
            print(error)
    print(peak_memory() // 2**20)
"""


def read(path: Path, kind: str) -> tuple[str, int]:
    """What is said of a file, and the height of the process in megabytes."""
    done = subprocess.run(
        [sys.executable, "-c", READ, kind, str(path)], cwd=ROOT, capture_output=True, text=True, check=True, timeout=900
    )
    said, height = done.stdout.strip().rsplit("\n", 1)
    return said, int(height)


def table(column: pa.Array, path: Path) -> None:
    parquet.write_table(pa.table({"text": column}), path, compression="zstd", write_statistics=False)


def dictionary(path: Path) -> None:
    """One text of 4.7 MB, a thousand times: 4.8 GB."""
    places = pa.array([0] * 1024, pa.int32())
    table(pa.DictionaryArray.from_arrays(places, pa.array(["x" * 4_700_000])), path)


def nested(path: Path) -> None:
    """One row that is a list of 60 million numbers, each an object to Python."""
    count = 60_000_000
    numbers = pa.Array.from_buffers(pa.int8(), count, [None, pa.py_buffer(bytes(count))])
    table(pa.ListArray.from_arrays(pa.array([0, count], pa.int32()), numbers), path)


def nothings(path: Path) -> None:
    """One row that is a list of 60 million nothings, which have no bytes at all."""
    count = 60_000_000
    table(pa.ListArray.from_arrays(pa.array([0, count], pa.int32()), pa.nulls(count)), path)


@pytest.mark.long
@pytest.mark.parametrize("write", [dictionary, nested, nothings])
def test_a_parquet_file_of_a_few_bytes_takes_no_gigabytes(write: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "bomb.parquet"
    write(path)
    assert path.stat().st_size < 50_000
    said, height = read(path, "parquet")
    assert "must be read within 1074 MB" in said or said == "1 rows", said  # the row has a problem: it is too long
    assert height < MEGABYTES


@pytest.mark.long
@pytest.mark.parametrize(("kind", "begin"), [("csv", b"text\n"), ("jsonl", b'{"text": "'), ("json", b'[{"text": "')])
@pytest.mark.parametrize("pack", [gzip.open, lzma.open])
def test_two_gigabytes_without_a_line_end_are_not_held(
    kind: str, begin: bytes, pack: Callable[..., io.BufferedIOBase], tmp_path: Path
) -> None:
    path = tmp_path / "bomb"
    with pack(path, "wb") as file:
        file.write(begin)
        for _ in range(2000):
            file.write(b"x" * 1_000_000)
    said, height = read(path, kind)
    assert "must not pass 1000000000 bytes" in said or "must be readable JSON" in said, said
    assert height < MEGABYTES


def parse(data: bytes, kind: str) -> list[raw_row.RawRow]:
    return list(Reader(kind, None, True, ["text"]).parse(io.BytesIO(data), "f"))  # type: ignore[arg-type]


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> int:
    """Have rows be too long at a thousand bytes."""
    for module in ("content", "json_rows", "delimited", "parquet_rows"):
        monkeypatch.setattr(f"pipelines.sources.{module}.LONGEST_ROW", 1000)
    return 1000


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("csv", b"text\na\n" + b"x" * 5000 + b"\nb\n"),
        ("jsonl", b'{"text": "a"}\n{"text": "' + b"x" * 5000 + b'"}\n{"text": "b"}\n'),
    ],
)
def test_a_row_that_is_too_long_is_given_up_alone(short: int, kind: str, data: bytes) -> None:
    first, long, last = parse(data, kind)
    assert (first.values["text"], last.values["text"]) == ("a", "b")
    assert long.problem == "a line of more than 1000 bytes"


def test_a_row_of_parquet_that_is_too_long_is_given_up_alone(
    short: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("pipelines.sources.parquet_rows.PIECE", 1000)
    table(pa.array(["a", "x" * 5000, "b"]), tmp_path / "rows.parquet")
    pieces = list(decoded(str(tmp_path / "rows.parquet"), "f", ["text"], 10_000))
    assert [bool(piece) for piece in pieces] == [True, True, False, True]  # the columns, then a row each
    with pytest.raises(PipelineError, match="the rows of f must not pass 5000 bytes"):
        list(decoded(str(tmp_path / "rows.parquet"), "f", ["text"], 5000))


def test_a_value_of_a_json_array_that_is_too_long_ends_the_file(short: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.sources.json_rows.CHUNK", 100)
    with pytest.raises(PipelineError, match="a value of more than 1000 characters"):
        parse(b'[{"text": "' + b"x" * 5000 + b'"}]', "json")


@pytest.mark.parametrize("kind", ["csv", "jsonl", "json", "parquet"])
def test_a_file_of_more_rows_than_any_needs_is_refused(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MOST_ROWS", 3)
    texts = ["a", "b", "c", "d"]
    sink = io.BytesIO()
    parquet.write_table(pa.table({"text": texts}), sink)
    data = {
        "csv": "\n".join(["text", *texts]).encode(),
        "jsonl": "\n".join(json.dumps({"text": text}) for text in texts).encode(),
        "json": json.dumps([{"text": text} for text in texts]).encode(),
        "parquet": sink.getvalue(),
    }
    with pytest.raises(PipelineError, match="must not pass 3 rows"):
        parse(data[kind], kind)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_file_of_empty_lines_ends(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "MOST_LINES", 100)
    with pytest.raises(PipelineError, match="must not pass 100 lines"):
        parse(b"text\n" + 100 * b"\n", kind)


def test_a_name_that_stands_twice_among_many_is_found_in_no_time() -> None:
    names = [*range(200_000), 199_999]
    began = time.process_time()
    (row,) = parse(("{" + ", ".join(f'"{name}": 0' for name in names) + "}").encode(), "jsonl")
    assert row.problem == "no JSON: the name '199999' stands in it twice"
    assert time.process_time() - began < 10  # looking through all names for each takes half an hour


def test_an_xz_file_that_asks_for_gigabytes_to_unpack_it_is_refused() -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 28}]
    with pytest.raises(PipelineError, match=r"must be a sound compressed file.*[Mm]emory"):
        parse(lzma.compress(b"text\na\n", filters=filters), "csv")


def test_an_xz_file_is_read_to_the_end_of_its_last_stream() -> None:
    data = lzma.compress(b"text\na\n") + bytes(4) + lzma.compress(b"b\n" * 100_000)
    assert len(parse(data, "csv")) == 100_001
    with pytest.raises(PipelineError, match="must be a sound compressed file"):
        parse(data[:-20], "csv")


def test_compressed_files_in_each_other_end() -> None:
    data = b"text\na\n"
    for _ in range(content.DEEPEST):
        data = gzip.compress(data)
    assert len(parse(data, "csv")) == 1
    with pytest.raises(PipelineError, match="a data file is compressed once"):
        parse(gzip.compress(data), "csv")
