from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import files
from pipelines.errors import PipelineError
from reft.files import write_directory


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


@pytest.mark.parametrize("mode", [0o755, 0o700])
@pytest.mark.parametrize("below", ["", "not/there"])
def test_a_folder_of_somebody_else_is_refused_before_writing(tmp_path: Path, mode: int, below: str) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir(mode=mode)
    files.require_space(folder / below, 1)
    folder.chmod(mode & ~0o222)
    own = os.geteuid()
    if own == 0:
        os.seteuid(65534)  # whom no file belongs to
    try:
        with pytest.raises(PipelineError, match="must be writable") as refused:
            files.require_space(folder / below, 1)
    finally:
        if own == 0:
            os.seteuid(0)
    assert "no permission to write in" in str(refused.value.got)


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


def write_with(writer: str, path: Path) -> None:
    if writer == "file":
        files.write_text(path, "text")
    elif writer == "directory":
        with files.whole_directory(path) as new:
            (new / "inner").mkdir()
            (new / "inner" / "x").write_text("text")
    else:
        write_directory(path, {"inner/x": b"text"})


@pytest.mark.parametrize("writer", ["file", "directory", "bytes"])
def test_what_gets_its_name_is_on_the_disk_and_then_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str
) -> None:
    forced: list[int] = []
    named: dict[int, list[int]] = {}  # what was on the disk when a file or folder got its name
    fsync, replace = os.fsync, Path.replace

    def note_fsync(handle: int) -> None:
        forced.append(os.fstat(handle).st_ino)
        fsync(handle)

    def note_replace(self: Path, target: Path) -> Path:
        named[self.stat().st_ino] = list(forced)
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "replace", note_replace)
    path = tmp_path / "new"
    write_with(writer, path)
    content = {path.stat().st_ino, *(inner.stat().st_ino for inner in path.rglob("*"))}
    assert len(content) == (1 if writer == "file" else 3)
    assert set(named[path.stat().st_ino]) == content
    assert forced[len(content) :] == [tmp_path.stat().st_ino]


# Whoever else renames says here why no power cut can leave less than a whole file under the name.
RENAME_TOO = {
    "flows/commands/data.py": "sets aside what stood in the place, which comes back by that one function",
    "pipelines/files.py": "moves away what was there, and the damaged",
    "pipelines/stages/train.py": "within a folder that has no name yet",
    "reft/cone/files.py": "each file is compared with its sha256 when it is opened",
    "reft/files.py": "put_in_place itself",
}


def renames(path: Path) -> bool:
    """Whether a module calls a rename: of Path, os or shutil; a text's replace has two values, a dataclass's names."""
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    named = [(call.func.attr, call) for call in calls if isinstance(call.func, ast.Attribute)]
    return any(
        attribute in ("rename", "renames", "move")
        or (attribute == "replace" and len(call.args) == 1 and not call.keywords)
        or (attribute == "replace" and isinstance(call.func.value, ast.Name) and call.func.value.id == "os")
        for attribute, call in named
    )


def test_one_function_gives_files_their_names() -> None:
    root = Path(__file__).parents[2]
    found = {
        file.relative_to(root).as_posix()
        for room in ("flows", "pipelines", "reft")
        for file in (root / room).rglob("*.py")
        if renames(file)
    }
    assert found == set(RENAME_TOO)


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"\xff\xfe", b'{"other": 1}', b"[" * 100_000])
def test_a_damaged_file_of_work_in_progress_is_set_aside(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "note.json"
    path.write_bytes(content)
    assert files.read_kept(path, lambda raw: raw["wanted"]) is None
    assert [file.name for file in tmp_path.iterdir()] == ["note.json.damaged"]
    assert (tmp_path / "note.json.damaged").read_bytes() == content
    assert "note.json is damaged and is set aside" in caplog.text
    assert files.read_kept(path, lambda raw: raw["wanted"]) is None
    files.write_json(path, {"wanted": 1})
    assert files.read_kept(path, lambda raw: raw["wanted"]) == 1
