"""``reft align`` on a tiny model: its map, how it goes on after a stop, and what it refuses."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from flows.cli import app
from pipelines.align import run as align
from pipelines.align.map import Cell
from pipelines.errors import PipelineError
from pipelines.params.whole import Params, check_params
from tests import tiny

ROOT = Path(__file__).parents[3]
RAW = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
WORDS = [" yes no", "From to dollars is fair. Is fair? Answer: yes", " is fair? Answer: no"]
SMALL: dict[str, Any] = {
    "teach": {"layers": "all", "positions": "l4", "rank": 2, "learning_rate": 0.02, "rows": 16, "epochs": 1,
              "batch_size": 8},
    "questions": 24, "train_rows": 16, "validation_rows": 8, "test_rows": 12, "layers": "0,2",
    "positions": ["l1", "l4"], "dimensions": [1, 4], "blocks": [], "epochs": 1, "batch_size": 8, "random_rotations": 2,
}  # fmt: skip


def make_params(**changes: Any) -> Params:
    raw = copy.deepcopy(RAW)
    raw["base"] |= {"source": "file:models/own/tiny", "sha256": None, "dtype": "float32"}
    raw["run"] |= {"threads": 1, "device": "cpu"}
    raw["align"] |= SMALL | changes
    return check_params(raw, "params.yaml")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tiny, "CORPUS", [*tiny.CORPUS, *WORDS * 3])
    tiny.write_tiny_base(tmp_path / "models" / "own" / "tiny")
    return tmp_path


def measured(root: Path, **changes: Any) -> align.AlignResult:
    return align.run(make_params(**changes), root=root, out=root / "plots" / "align")


def cells(root: Path) -> list[Path]:
    return sorted((root / ".reft" / "align").glob("*/*.json"))


def test_the_map_has_every_cell_and_a_stopped_search_goes_on(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = align._measure, 0

    def stopped(*arguments: Any) -> Cell:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(align, "_measure", stopped)
    with pytest.raises(KeyboardInterrupt):
        measured(root)
    assert len(cells(root)) == 4
    before = {path: path.read_bytes() for path in cells(root)}
    monkeypatch.setattr(align, "_measure", real)
    result = measured(root)
    assert result.resumed == 4
    assert all(path.read_bytes() == data for path, data in before.items())
    assert len(result.cells) == len(cells(root)) == 2 * 2 * 3  # layers, places, and whole, 1 and 4 dimensions
    figures = json.loads((root / "plots" / "align" / "map.json").read_text(encoding="utf-8"))
    assert figures["best"]["layer"] in (0, 2)
    assert [Cell.from_dict(cell) for cell in figures["cells"]] == list(result.cells)
    lines = (root / "plots" / "align" / "map.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + len(result.cells)
    assert (root / "plots" / "align" / "map.png").read_bytes().startswith(b"\x89PNG")
    again = measured(root, layers="0,1,2")  # a map that grows keeps what it has
    assert again.resumed == len(result.cells)
    assert [cell for cell in again.cells if cell.layer != 1] == list(result.cells)


def test_a_file_of_ones_own_pairs_and_a_learned_dimension(root: Path) -> None:
    write_pairs(root, 12)
    result = measured(
        root, data="file:data/own/pairs.jsonl", variable="tone", model="base", teach=None, method="boundless",
        dimensions=[4], train_rows=6, validation_rows=2, test_rows=4, layers="1", positions=["l1"],
    )  # fmt: skip
    learned = result.cells[1]
    assert learned.method == "boundless"
    assert 1 <= learned.dimension <= 32
    assert result.taught_from is None
    assert result.accuracy.rows == 4


def test_blocks_of_units_are_tried_and_the_whole_state_is_the_largest(root: Path) -> None:
    result = measured(root, layers="2", positions=["l1"], dimensions=[4], blocks=[8, 32])
    by_name = {(cell.method, cell.dimension): cell for cell in result.cells}
    whole, eight, all_units = by_name["whole", 32], by_name["units", 8], by_name["units", 32]
    assert (all_units.first_unit, all_units.test, all_units.validation) == (0, whole.test, whole.validation)
    assert eight.first_unit in (0, 8, 16, 24)
    assert (eight.random, eight.losses) == ((), ())
    assert result.best.method == "das"
    assert result.resumed == 0
    assert measured(root, layers="2", positions=["l1"], dimensions=[4], blocks=[8, 32, 16]).resumed == len(result.cells)


def write_pairs(root: Path, count: int, **changes: Any) -> None:
    tones = ("positive", "negative")
    rows = [
        {"base": f"Review: film {place}.\nSentiment:", "source": f"Review: plot {place}.\nSentiment:",
         "answer": f" {tones[place % 2]}", "counterfactual": f" {tones[place // 2 % 2]}"} | changes
        for place in range(count)
    ]  # fmt: skip
    (root / "data" / "own").mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (root / "data" / "own" / "pairs.jsonl").write_text(text, encoding="utf-8")


OWN: dict[str, Any] = {"data": "file:data/own/pairs.jsonl", "variable": "tone", "model": "base", "teach": None}


@pytest.mark.parametrize(
    ("changes", "row", "said"),
    [
        (OWN, {}, "train_rows . validation_rows . test_rows = 36 rows"),
        (OWN, {"answer": 1}, "a row of pairs.jsonl is an object of the texts"),
        (OWN | {"data": "file:data/own/none.jsonl"}, {}, "the source must exist"),
        ({"layers": "0,3"}, {}, "numbered 0 to 2"),
        ({"positions": ["90:91"]}, {}, "a site is as many tokens"),
        ({"dimensions": [33]}, {}, "must not be above the base's hidden size 32"),
        ({"blocks": [8, 33]}, {}, "align.blocks must not be above the base's hidden size 32"),
        ({"model": "adapter", "teach": None}, {}, "dvc.yaml"),
    ],
)
def test_what_is_refused_before_anything_is_learned(
    root: Path, changes: dict[str, Any], row: dict[str, Any], said: str
) -> None:
    write_pairs(root, 12, **row)
    with pytest.raises(PipelineError, match=said):
        measured(root, **changes)
    assert cells(root) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"variable": "middle"}, "the variables of price-range are lower and upper; got middle"),
        ({"teach": None}, "model: taught and teach go together"),
        ({"data": "prices"}, "data is price-range or a file: source; got prices"),
        ({"positions": ["l1", "l1"]}, "positions are tried once each"),
        ({"positions": ["f7&l7"]}, "positions are fN, lN"),
        ({"positions": ["l1", "g1"]}, "tokens of prompts, and gN is behind them"),
        ({"method": "boundless"}, "boundless learns the dimension"),
        ({"layer": "1"}, "align.layer: unknown key"),
    ],
)
def test_params_that_disagree_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(PipelineError, match=said):
        make_params(**changes)


def test_answers_must_begin_with_different_tokens(root: Path) -> None:
    write_pairs(root, 40)
    text = (root / "data" / "own" / "pairs.jsonl").read_text(encoding="utf-8")
    (root / "data" / "own" / "pairs.jsonl").write_text(text.replace(" negative", " positively"), encoding="utf-8")
    with pytest.raises(PipelineError, match="begin with different tokens"):
        measured(root, **OWN)


def test_the_help_teaches() -> None:
    said = CliRunner().invoke(app, ["align", "--help"]).output
    for word in ("interchange accuracy", "random rotations", "Ctrl-C", "params.yaml"):
        assert word in " ".join(said.replace("│", " ").split())
