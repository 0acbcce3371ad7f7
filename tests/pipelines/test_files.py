from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import files
from pipelines.errors import PipelineError


def test_json_is_the_same_text_whatever_the_order_of_the_keys(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", {"b": 1, "a": "é"})
    files.write_json(tmp_path / "b.json", {"a": "é", "b": 1})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert files.sha256_json({"b": 1, "a": 2}) == files.sha256_json({"a": 2, "b": 1})


def test_nan_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        files.write_json(tmp_path / "a.json", {"x": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, 1)

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write_json(path, 2)
    assert json.loads(path.read_text()) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_directory_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with files.whole_directory(path) as new:
        (new / "x").write_text("old")

    def fail() -> None:
        with files.whole_directory(path) as new:
            (new / "x").write_text("new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (path / "x").read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_directory_takes_the_place_of_the_old_one_whole(tmp_path: Path) -> None:
    path = tmp_path / "out"
    for name in ("first", "second"):
        with files.whole_directory(path) as new:
            (new / name).touch()
            assert not (path / name).exists()
    assert [p.name for p in path.iterdir()] == ["second"]
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_cleared_and_what_a_live_one_writes_is_not(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    stale = tmp_path / f".out.tmp-{dead.pid}-00"
    live = tmp_path / f".out.tmp-{os.getppid()}-00"
    stale.mkdir()
    live.mkdir()
    with files.whole_directory(tmp_path / "out"):
        pass
    assert not stale.exists()
    assert live.exists()


def test_too_little_disk_space_is_said_before_writing(tmp_path: Path) -> None:
    files.require_space(tmp_path / "not" / "there", 1)
    with pytest.raises(PipelineError, match="free disk space"):
        files.require_space(tmp_path, 1 << 60)


def test_broken_json_names_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"a"\n')
    with pytest.raises(PipelineError, match=r"a\.jsonl.*line 2"):
        files.read_jsonl(tmp_path / "a.jsonl")
    with pytest.raises(PipelineError, match="must exist"):
        files.read_json(tmp_path / "b.json")


def test_reft_home_is_the_variable_or_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REFT_HOME", str(tmp_path))
    assert files.reft_home() == tmp_path
    monkeypatch.delenv("REFT_HOME")
    assert files.reft_home().name == "reft"
