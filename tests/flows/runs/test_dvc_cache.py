"""What DVC's cache has damaged is not restored from it; tests/damage has it with a whole run."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import yaml

from flows.runs.dvc_cache import CACHE, drop_damaged


def put(root: Path, content: bytes, suffix: str = "") -> str:
    name = hashlib.md5(content).hexdigest() + suffix
    file = root / CACHE / name[:2] / name[2:]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    file.chmod(0o444)
    return name


def project(root: Path) -> dict[str, str]:
    """A cache with an output that is a file and one that is a folder of two; the names in it."""
    names = {"metrics.json": put(root, b"{}"), "a": put(root, b"first"), "b": put(root, b"second")}
    listed = [{"md5": names[name], "relpath": name} for name in ("a", "b")]
    names["adapter"] = put(root, json.dumps(listed).encode(), ".dir")
    outs = [{"path": path, "hash": "md5", "md5": names[path]} for path in ("metrics.json", "adapter")]
    outs.append({"path": "registration.json", "hash": "md5", "md5": "0" * 32})  # which is never in the cache
    lock = {"schema": "2.0", "stages": {"train": {"cmd": "x", "outs": outs}}}
    (root / "dvc.lock").write_text(yaml.safe_dump(lock), encoding="utf-8")
    return names


def in_cache(root: Path, name: str) -> Path:
    return root / CACHE / name[:2] / name[2:]


def test_a_whole_cache_is_left_and_hashed_once(tmp_path: Path) -> None:
    names = project(tmp_path)
    assert drop_damaged(tmp_path) == []
    file = in_cache(tmp_path, names["a"])
    before = file.stat()
    os.truncate(file, 0)
    file.write_bytes(b"fIrst")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert drop_damaged(tmp_path) == []  # by size and time it is the one that was whole
    (tmp_path / ".reft" / "dvc-cache.json").write_text("[", encoding="utf-8")
    assert drop_damaged(tmp_path) == ["adapter"]  # and anew where what is known of it is lost


def test_what_is_damaged_goes_with_a_word(tmp_path: Path) -> None:
    names = project(tmp_path)
    drop_damaged(tmp_path)
    for name in ("metrics.json", "b"):
        os.truncate(in_cache(tmp_path, names[name]), 1)
    assert drop_damaged(tmp_path) == ["metrics.json", "adapter"]
    gone = {name for name, stored in names.items() if not in_cache(tmp_path, stored).exists()}
    assert gone == {"metrics.json", "b"}
    assert drop_damaged(tmp_path) == []


def test_a_damaged_list_of_a_folder_goes(tmp_path: Path) -> None:
    names = project(tmp_path)
    os.truncate(in_cache(tmp_path, names["adapter"]), 20)
    assert drop_damaged(tmp_path) == ["adapter"]
    assert not in_cache(tmp_path, names["adapter"]).exists()
    assert in_cache(tmp_path, names["a"]).exists()


def test_a_project_that_never_ran_has_nothing_to_look_at(tmp_path: Path) -> None:
    assert drop_damaged(tmp_path) == []
