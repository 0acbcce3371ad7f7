"""`reft compare-methods` and `reft align` as a user runs them, on a tiny project."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.pipelines.align.test_align import SMALL, write_pairs
from tests.project import make_tiny_project

COMPARE: dict[str, Any] = {
    "compare.seeds": [3],
    "compare.tuning_rows": 8,
    "compare.train_rows": 16,
    "compare.validation_rows": 8,
    "compare.test_rows": 8,
    "compare.methods": {
        "LoReFT, searched": {"method": "reft", "parts": {"method": "loreft"}, "learning_rates": [0.02]},
        "LoRA": {"method": "lora", "parts": {"lora": {"rank": 2}}, "learning_rates": [1e-3, 1e-2]},
    },
}
ALIGN: dict[str, Any] = {
    **SMALL, "data": "file:data/own/pairs.jsonl", "variable": "tone", "model": "base", "teach": None, "layers": "0,2",
    "positions": ["l1"], "dimensions": [4], "blocks": [8], "train_rows": 16, "validation_rows": 8, "test_rows": 12,
}  # fmt: skip


@pytest.mark.long
def test_methods_are_compared_after_the_search_that_one_of_them_needs(tmp_path: Path) -> None:
    project = make_tiny_project(tmp_path / "project", tmp_path / "home", COMPARE)
    said = project.run("reft", "compare-methods").stdout
    assert "LoReFT, searched" in said
    assert set(project.markers()) == {"base", "prepare", "search"}
    table = (project.root / "reports" / "compare" / "table.md").read_text(encoding="utf-8")
    assert [row.split("|")[1].strip() for row in table.splitlines() if row.startswith("|")][2:] == [
        "base", "LoReFT, searched", "LoRA",
    ]  # fmt: skip
    cells = list((project.root / ".reft" / "compare").rglob("*.json"))
    assert len(cells) == 1 + 1 + 2 + 1  # the base, one with one learning rate, and two rates with the chosen one


@pytest.mark.parametrize(
    ("words", "changes", "said"),
    [
        (["--method", "Lora"], {}, "compare.methods has LoReFT, searched, LoRA"),
        ([], {"compare.test_rows": 49}, "compare.test_rows must not be above prepare.test_rows, 48"),
        (["--rows", "3"], {}, "--rows goes with --tasks or --prepared"),
        (["--tasks", "sentiments", "--data", "."], {}, "sentiments"),
        (["--prepared", "nowhere"], {}, "the file must exist. Got: nowhere/task.json"),
    ],
)
def test_a_mistake_is_told_before_anything_is_done(
    tmp_path: Path, words: list[str], changes: dict[str, Any], said: str
) -> None:
    project = make_tiny_project(tmp_path / "project", tmp_path / "home", COMPARE | changes)
    done = project.run("reft", "compare-methods", *words, check=False)
    assert done.returncode == 2
    assert said in " ".join((done.stdout + done.stderr).split())
    assert project.markers() == {}


@pytest.mark.long
def test_an_alignment_is_shown_drawn_and_logged_as_a_training_is(tmp_path: Path) -> None:
    changes = {f"align.{key}": value for key, value in ALIGN.items()}
    project = make_tiny_project(tmp_path / "project", tmp_path / "home", changes)
    write_pairs(project.root, 36)
    said = " ".join(project.run("reft", "align").stdout.split())
    for words in ("Interchange accuracy of 'tone', 12 test rows", "block of 8", "das 4", "random 4", "whole state"):
        assert words in said
    assert (project.root / "plots" / "align" / "map.png").read_bytes().startswith(b"\x89PNG")
    with closing(sqlite3.connect(project.root / "mlflow" / "mlflow.db")) as db:
        runs = dict(db.execute("select name, status from runs").fetchall())
        metrics = dict(db.execute("select key, count(*) from metrics group by key").fetchall())
    assert runs["project align-tone"] == "FINISHED"
    assert {name for name in runs if name.endswith("das 4")} == {"0 l1 das 4", "2 l1 das 4"}
    assert metrics["loss"] == 2 * 2  # two layers, two steps each
    assert metrics["l1/units-8"] == 2
    assert metrics["best_test_accuracy"] == 1
    assert list((project.root / "mlflow").rglob("map.png"))
