"""The comparison of searches on a model of a few kilobytes, with the project's own stages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.quality import search as search_quality
from benchmarks.quality import search_cells
from benchmarks.quality.search import report, widened
from benchmarks.quality.search_cells import Cell, Contender, read_cell
from pipelines.params.whole import check_params
from tests.project import ROOT, review_rows, write_own_files
from tests.searching import FEW, raw_params

WORDS = ["--rows", "24,12,16", "--trials", "2", "--seeds", "1", "--threads", "1"]


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command's words for a tiny base, and rows in the layout of SST-2."""
    monkeypatch.setenv("REFT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("REFT_BENCH_DATA", str(tmp_path / "data"))
    root = tmp_path / "root"
    (root / "data" / "own").mkdir(parents=True)
    write_own_files(root)
    raw = raw_params(FEW)
    monkeypatch.setattr(search_quality, "PAPER", raw["search"]["enqueue"][0])
    monkeypatch.setattr(search_quality, "SPACE", {})  # its learning rates are for the real base
    (root / "params.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    (tmp_path / "data" / "sst2").mkdir(parents=True)
    rows = [f"{text}\t{int(label == 'good')}\n" for text, label in review_rows(160)]
    for place, split in enumerate(("train", "validation", "test")):
        (tmp_path / "data" / "sst2" / f"{split}.tsv").write_text("".join(rows[place::3]), encoding="utf-8")
    return [*WORDS, "--root", str(root), "--out", str(tmp_path / "out")]


@pytest.mark.long
def test_cells_are_made_once_and_the_table_says_what_they_hold(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert search_quality.main([*words, "--parts", "sst2,pruning"]) == 0
    printed = capsys.readouterr().out
    files = sorted((tmp_path / "out").glob("*.json"))
    made = [f"sst2-1-{who}" for who in ("paper-1", "pruned-3", "published-6", "random-1", "searched-1", "unpruned-3")]
    assert [file.stem for file in files] == made
    cells = {file.stem: read_cell(file) for file in files}
    assert {len(cell.right) for cell in cells.values()} == {16}
    assert cells["sst2-1-paper-1"].recipe["learning_rate"] == 0.02
    recipes = [_trained(tmp_path / "out" / "sst2" / "cells" / name) for name in ("1-published-6", "1-paper-1")]
    differs = {part: value for part, value in recipes[0].items() if value != recipes[1][part]}
    assert differs == {"init": "paper", "dropout_on": "output", "accumulation": 2, "epochs": 6}
    assert sum(cells["sst2-1-searched-1"].trials) == 2
    assert cells["sst2-1-pruned-3"].search_seconds > 0
    assert f"| found by the search | {100 * cells['sst2-1-searched-1'].accuracy:.1f} % (one seed) |" in printed
    assert "found by the search against the paper's choices, trained as ours: " in printed
    assert "the pruner saved " in printed
    # Again: nothing is made; one cell of another recipe is.
    monkeypatch.setattr(search_cells.CellMaker, "_make", None)
    assert search_quality.main([*words, "--parts", "sst2,pruning"]) == 0
    assert capsys.readouterr().out == printed
    spoilt = tmp_path / "out" / "sst2-1-paper-1.json"
    spoilt.write_text(json.dumps(json.loads(spoilt.read_text()) | {"key": "of other parameters"}))
    with pytest.raises(TypeError):
        search_quality.main([*words, "--parts", "sst2"])


def _trained(cell: Path) -> dict[str, Any]:
    """The whole recipe of a cell's adapter."""
    recipe: dict[str, Any] = json.loads((cell / "train.json").read_text(encoding="utf-8"))["recipe"]
    return recipe


def test_the_paper_s_recipe_and_the_project_s_own_lie_in_the_space() -> None:
    raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    widened(raw)
    params = check_params(raw, "params.yaml")
    assert params.search.enqueue[0] == search_quality.PAPER
    assert search_quality.PAPER.items() <= search_quality.PUBLISHED.items()
    assert len(params.search.enqueue) == 3
    assert params.search.epochs == 1


def cell(contender: Contender, seed: int, right: str, seconds: float = 0.0) -> Cell:
    """An outcome on as many test rows as there are letters: x is right."""
    return Cell(
        task="sst2", seed=seed, contender=contender, recipe={"rank": seed, "layers": "all"}, chosen_by=None,
        search_seconds=seconds, confirm_seconds=0.0, trials=(0, 0, 0), parameters=5, train_seconds=1.0,
        right=tuple(letter == "x" for letter in right), key="",
    )  # fmt: skip


def test_the_figures_are_means_over_seeds_and_the_interval_is_over_rows_and_seeds() -> None:
    """The means' quantiles over 4 ways to draw a seed of each and 4^4 to draw rows, all of them counted: -1/2, 3/4."""
    cells = [
        cell("searched", 1, "xxxo"),
        cell("searched", 2, "xxoo"),
        cell("paper", 1, "oxxo"),
        cell("paper", 2, "xooo"),
    ]
    said = report(cells, 0.95, 2000)
    assert "| found by the search | 62.5 % (17.7) | 5 / 5 |" in said
    assert "found by the search against the paper's choices, trained as ours: +25.0 points (-50.0 to +75.0)" in said
    assert "- the paper's choices, trained as ours, seed 2: layers all, rank 2; 25.0 %\n" in said


def test_what_a_pruner_saves_is_a_share_of_the_seconds_without_it() -> None:
    said = report([cell("unpruned", 1, "xo", 200.0), cell("pruned", 1, "xo", 90.0)], 0.95, 200)
    assert "the pruner saved 55% of 200 s" in said
    assert "found with successive halving against found without a pruner: +0.0 points (+0.0 to +0.0)" in said


def test_without_data_it_says_so(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("REFT_BENCH_DATA")
    assert search_quality.main(words) == 2
    assert "REFT_BENCH_DATA" in capsys.readouterr().err
