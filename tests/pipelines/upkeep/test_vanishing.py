"""Folders that somebody else empties while `reft clean` looks at them."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

from pipelines.params.whole import load_params
from pipelines.upkeep.leftovers import Leftover, remove, size

ROOT = Path(__file__).parents[3]


def fill(folder: Path) -> None:
    for number in range(40):
        inner = folder / str(number)
        inner.mkdir(parents=True, exist_ok=True)
        (inner / "file").write_bytes(b"0123456789")


def test_what_vanishes_while_it_is_looked_at_counts_nothing(tmp_path: Path) -> None:
    ended = threading.Event()

    def come_and_go() -> None:
        while not ended.is_set():
            fill(tmp_path / "work")
            shutil.rmtree(tmp_path / "work")

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        sizes = [size(tmp_path) for _ in range(200)]
    finally:
        ended.set()
        thread.join()
    assert all(0 <= found <= 400 and found % 10 == 0 for found in sizes)


def test_what_is_removed_by_another_is_removed(tmp_path: Path) -> None:
    params = load_params(ROOT / "params.yaml")
    for _ in range(20):
        fill(tmp_path / "work")
        other = threading.Thread(target=shutil.rmtree, args=(tmp_path / "work", True))
        other.start()
        remove(Leftover("checkpoints", str(tmp_path / "work"), None, ""), params, tmp_path)
        other.join()
        assert not (tmp_path / "work").exists()
