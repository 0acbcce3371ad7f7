"""A disk that takes no more: a real file system of a few hundred kilobytes, where this process may mount one."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import PipelineError
from pipelines.files import read_jsonl, write_jsonl
from pipelines.params.whole import check_params
from pipelines.runtime.disk import full_disk
from pipelines.stages import base, prepare
from tests.pipelines.stages.test_prepare import raw_params, rows, write
from tests.tiny import write_tiny_base


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 300 kilobytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("only root may mount a disk")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def grow(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)


def test_a_full_disk_is_told_with_file_free_space_and_advice(small: Path) -> None:
    path = small / "rows.jsonl"
    write_jsonl(path, [{"n": 1}])
    with pytest.raises(OSError, match="No space left") as caught:
        write_jsonl(path, ({"text": "x" * 100} for _ in range(10_000)))
    told = full_disk(caught.value, small)
    assert told is not None
    assert str(told).startswith(f"the disk must take {path}. Got: [Errno {errno.ENOSPC}] No space left on device")
    assert "0 MB free, and a stage needs 500 MB. Free some (reft clean" in str(told)
    assert [file.name for file in small.iterdir()] == ["rows.jsonl"]  # nothing half written stays
    assert read_jsonl(path) == [{"n": 1}]  # and what was there does


def test_a_stage_goes_on_when_there_is_room_again(small: Path, tmp_path: Path) -> None:
    write_tiny_base(tmp_path / "models" / "own" / "tiny")
    (tmp_path / "data" / "own").mkdir(parents=True)
    write(tmp_path, [{**row, "text": row["text"] + " so" * 12} for row in rows(2000)])
    params = check_params(raw_params(train_rows=1500), "params.yaml")
    base.run(params, root=tmp_path, out=tmp_path / "base.json")
    where: dict[str, Any] = {"root": tmp_path, "base": tmp_path / "base.json"}
    undisturbed = prepare.run(params, out=tmp_path / "prepared", card=tmp_path / "card.json", **where)
    with pytest.raises(Exception, match=r"full|No space left") as caught:
        prepare.run(params, out=small / "prepared", card=small / "card.json", **where)
    assert isinstance(full_disk(caught.value, tmp_path), PipelineError)
    assert list(small.iterdir()) == []
    grow(small)
    assert prepare.run(params, out=small / "prepared", card=small / "card.json", **where) == undisturbed


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.EDQUOT, "Disk quota exceeded", "/x/y"), True),
        (RuntimeError("I/O error: No space left on device (os error 28)"), True),  # safetensors
        (RuntimeError("(sqlite3.OperationalError) database or disk is full"), True),  # sqlalchemy
        (OSError(errno.EACCES, "Permission denied", "/x/y"), False),
        (PipelineError("stage train: the disk must take x", got="No space left on device"), False),  # said already
        (ValueError("no"), False),
    ],
)
def test_what_libraries_say_of_a_full_disk_is_known(error: Exception, full: bool, tmp_path: Path) -> None:
    assert (full_disk(error, tmp_path) is not None) == full
    later = KeyError("later")
    later.__cause__ = error
    assert (full_disk(later, tmp_path) is not None) == full
