"""The comparison of searches on a model of a few kilobytes, with the project's own stages."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from benchmarks import search_cells, search_quality
from benchmarks.search_cells import read_cell
from tests.project import review_rows, write_own_files
from tests.searching import FEW, raw_params

WORDS = ["--rows", "24,12,16", "--trials", "2", "--epochs", "1", "--seeds", "1,2", "--threads", "1"]


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command's words for a tiny base, and rows in the layout of SST-2."""
    monkeypatch.setenv("REFT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("REFT_BENCH_DATA", str(tmp_path / "data"))
    root = tmp_path / "root"
    (root / "data" / "own").mkdir(parents=True)
    write_own_files(root)
    (root / "params.yaml").write_text(yaml.safe_dump(raw_params(FEW)), encoding="utf-8")
    (tmp_path / "data" / "sst2").mkdir(parents=True)
    rows = [f"{text}\t{int(label == 'good')}\n" for text, label in review_rows(160)]
    for place, split in enumerate(("train", "validation", "test")):
        (tmp_path / "data" / "sst2" / f"{split}.tsv").write_text("".join(rows[place::3]), encoding="utf-8")
    return [*WORDS, "--root", str(root), "--out", str(tmp_path / "out")]


def test_cells_are_made_once_and_the_table_says_what_they_hold(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert search_quality.main([*words, "--parts", "sst2,pruning"]) == 0
    printed = capsys.readouterr().out
    files = sorted((tmp_path / "out").glob("*.json"))
    of_seeds = [f"sst2-{seed}-{who}" for seed in (1, 2) for who in ("paper", "random", "searched")]
    assert [file.stem for file in files] == sorted([*of_seeds, "sst2-1-pruned", "sst2-1-unpruned"])
    cells = {file.stem: read_cell(file) for file in files}
    assert {len(cell.right) for cell in cells.values()} == {16}
    assert cells["sst2-1-paper"].recipe["learning_rate"] == 0.02
    assert sum(cells["sst2-2-searched"].trials) == 2
    assert cells["sst2-1-pruned"].search_seconds > 0
    mean = np.mean([cells[f"sst2-{seed}-searched"].accuracy for seed in (1, 2)])
    assert f"| found by the search | {100 * mean:.1f} % (" in printed
    assert "found by the search against the paper's: " in printed
    assert "the pruner saved " in printed
    # Again: nothing is made; one cell of another recipe is.
    monkeypatch.setattr(search_cells.Workshop, "_make", None)
    assert search_quality.main([*words, "--parts", "sst2,pruning"]) == 0
    assert capsys.readouterr().out == printed
    spoilt = tmp_path / "out" / "sst2-1-paper.json"
    spoilt.write_text(json.dumps(json.loads(spoilt.read_text()) | {"key": "of other parameters"}))
    with pytest.raises(TypeError):
        search_quality.main([*words, "--parts", "sst2"])


def test_without_data_it_says_so(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("REFT_BENCH_DATA")
    assert search_quality.main(words) == 2
    assert "REFT_BENCH_DATA" in capsys.readouterr().err
