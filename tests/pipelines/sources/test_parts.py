"""Folders of rows: their files are read by name, and what does not belong there is told."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from pipelines.errors import PipelineError
from pipelines.sources.newest import at_commit
from pipelines.sources.parts import source_sha256
from pipelines.sources.rows import Reader

SOURCE = "file:data/own/reviews"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "data" / "own" / "reviews"
    made.mkdir(parents=True)
    return made


def read(folder: Path, sha256: str | None = None) -> list[tuple[str, int, object]]:
    rows = Reader("csv", None, True, ("text",)).read(SOURCE, sha256, root=folder.parents[2])
    return [(row.file.removeprefix("data/own/"), row.line, row.values["text"]) for row in rows]


def test_the_files_of_a_folder_are_read_by_name_each_with_its_own_titles(folder: Path) -> None:
    (folder / "2026-02.csv.gz").write_bytes(gzip.compress(b"label,text\n1,c\n"))
    (folder / "2026-01.csv").write_text("text,label\na,1\nb,2\n")
    (folder / ".2026-03.csv.tmp-1").write_text("half a row")
    assert read(folder) == [
        ("reviews/2026-01.csv", 2, "a"), ("reviews/2026-01.csv", 3, "b"), ("reviews/2026-02.csv.gz", 2, "c"),
    ]  # fmt: skip


def test_the_hash_of_a_folder_is_of_names_and_contents(folder: Path) -> None:
    (folder / "a.csv").write_text("text\na\n")
    first = source_sha256(folder)
    (folder / ".b.csv").write_text("text\nb\n")
    assert source_sha256(folder) == first
    (folder / "a.csv").rename(folder / "b.csv")
    assert source_sha256(folder) != first


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("more.jsonl", "format: csv; got reviews/more.jsonl, a file of jsonl"),
        ("notes.md", "got reviews/notes.md, a file of no known kind"),
        ("inner/a.csv", "got reviews/inner, a folder"),
    ],
)
def test_what_is_no_file_of_the_format_is_an_error(folder: Path, name: str, said: str) -> None:
    (folder / "a.csv").write_text("text\na\n")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("text\na\n")
    with pytest.raises(PipelineError) as caught:
        read(folder)
    assert said.casefold() in str(caught.value).replace(". Got: ", "; got ").casefold()


def test_an_empty_folder_and_the_hash_of_one_file_are_errors(folder: Path) -> None:
    with pytest.raises(PipelineError, match=r"must hold files.*reviews, which is empty"):
        read(folder)
    with pytest.raises(PipelineError, match="a sha256 is of one file"):
        read(folder, "0" * 64)


def test_another_commit_leaves_the_rest_of_an_address(folder: Path) -> None:
    assert at_commit(f"hub:org/rows:new@{'0' * 40}#train", "1" * 40) == f"hub:org/rows:new@{'1' * 40}#train"
