"""The table of library tasks: recomputed from the committed cells, and its rules on cells whose scores are planted."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import yaml

from benchmarks.quality import library, library_table
from benchmarks.quality.library_cells import BASE, LORA, LOREFT, LibraryCell, cell_path, read_cell
from benchmarks.quality.library_table import report
from pipelines.errors import PipelineError
from pipelines.intake.library import KINDS, read_task_file
from tests.project import ROOT
from tests.tiny import write_tiny_base

CELLS = ROOT / "docs" / "results" / "library"
PAGE = ROOT / "docs" / "results.md"
ROWS = 40


def planted(task: str, method: str, right: int, *, measure: str = "accuracy") -> LibraryCell:
    """A cell of which the first ``right`` test rows are right."""
    scores = tuple(float(place < right) for place in range(ROWS))
    neutral = tuple((10, 30.0 + 3.0 * (method == LORA)) for _ in range(10))
    return LibraryCell(
        task, method, "a base", measure, (8, ROWS), 2, 42, None if method == BASE else 0.001, scores,
        tuple(range(ROWS)), {"chance": 0.5}, neutral, 10, 4, 1.0, 2.0, None, "rows", "key",
    )  # fmt: skip


def write(folder: Path, *cells: LibraryCell) -> Path:
    for cell in cells:
        cell_path(folder, cell.task, cell.method).write_text(json.dumps(asdict(cell)), encoding="utf-8")
    return folder


def lines(said: str) -> dict[str, list[str]]:
    """The table's lines by task."""
    parts = [[part.strip() for part in line.split("|")[1:-1]] for line in said.splitlines() if line.startswith("|")]
    return {part[0].strip("`"): part for part in parts[2:]}


def test_the_page_has_the_table_of_the_committed_cells() -> None:
    settings = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["evaluate"]
    assert report(CELLS, settings["confidence"]) in PAGE.read_text(encoding="utf-8")
    assert {path.name for path in CELLS.iterdir()} == {
        cell_path(CELLS, *own).name
        for path in CELLS.iterdir()
        for own in [(read_cell(path).task, read_cell(path).method)]
    }


def test_the_twelve_are_of_all_kinds_of_the_library() -> None:
    assert len(set(library.TWELVE)) == 12
    assert {read_task_file(name).kind for name in library.TWELVE} == set(KINDS)


def test_differences_are_paired_and_adjusted_over_the_tasks(tmp_path: Path) -> None:
    """Of 40 rows 6 that LoReFT alone gets right: p = 2 (1/2)^6 = 1/32 by McNemar; three such tasks make it 3/32."""
    for task in ("boolq", "piqa", "rte"):
        write(tmp_path, planted(task, BASE, 20), planted(task, LOREFT, 26), planted(task, LORA, 20))
    alone = tmp_path / "alone"
    alone.mkdir()
    write(alone, planted("piqa", BASE, 20), planted("piqa", LOREFT, 26), planted("piqa", LORA, 20))
    one, three = lines(report(alone, 0.95))["piqa"], lines(report(tmp_path, 0.95))["piqa"]
    assert (one[10], one[11]) == ("0.031", "better")
    assert three[10] == "0.094"
    assert three[11].startswith("not told apart: it takes")
    assert one[5:8] == ["50.0 %", "65.0 %", "50.0 %"]
    assert one[8].startswith("+15.0 (+5.0 to +2")
    assert one[4] == "50.0 % / –"


def test_a_loss_that_is_lower_is_better_and_words_say_where_it_loses(tmp_path: Path) -> None:
    """The likelihood is minus the loss; LoRA's nats of neutral text are a tenth more a token: e^0.3 = 1.35."""
    for method, loss in ((BASE, 2.0), (LOREFT, 1.5), (LORA, 1.25)):
        cell = planted("alpaca", method, 0, measure="log_likelihood")
        scores = tuple(-loss - 0.01 * (place % 3) for place in range(ROWS))
        write(tmp_path, replace(cell, scores=scores, baselines={}))
    said = report(tmp_path, 0.95)
    (line,) = lines(said).values()
    assert line[1] == "loss"
    assert line[5:8] == ["2.010", "1.510", "1.260"]
    assert line[8].startswith("+0.500")
    assert line[9].startswith("-0.250")
    assert line[11] == "worse"
    assert line[12].startswith("+0.0 %")
    assert line[13].startswith("+35.0 %")
    assert "Surely worse than LoRA: `alpaca`. Surely better: none." in said


def test_a_training_that_failed_has_no_figure_and_old_cells_are_not_mixed_with_new(tmp_path: Path) -> None:
    lora = replace(planted("piqa", LORA, 20), scores=(), neutral=(), error="the loss must be finite")
    write(tmp_path, planted("piqa", BASE, 20), planted("piqa", LOREFT, 26), lora)
    line = lines(report(tmp_path, 0.95))["piqa"]
    assert (line[7], line[9], line[10], line[11], line[13]) == ("failed", "", "", "", "")
    write(tmp_path, replace(planted("piqa", LORA, 20), data="other rows"))
    with pytest.raises(PipelineError, match="the cells of piqa must be of one base, the same rows and epochs"):
        report(tmp_path, 0.95)
    with pytest.raises(PipelineError, match="the library measures cola by matthews"):
        library_table.measure_of(planted("cola", BASE, 20))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A root with params.yaml for a tiny base, the base where the task will look for it, and a folder of data."""
    raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    raw["base"] |= {"source": "file:models/own/tiny", "sha256": None}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    config = write_tiny_base(tmp_path / "work" / "alpaca" / "models" / "own" / "tiny") / "config.json"
    longer = json.loads(config.read_text(encoding="utf-8")) | {"max_position_embeddings": 1024}  # as rows of Alpaca
    config.write_text(json.dumps(longer), encoding="utf-8")
    rows = [
        {"instruction": f"say it {n}", "input": f"word {n}", "output": "good" if n % 2 else "a bad one"}
        for n in range(30)
    ]
    (tmp_path / "data" / "alpaca").mkdir(parents=True)
    (tmp_path / "data" / "alpaca" / "train.json").write_text(json.dumps(rows), encoding="utf-8")
    return tmp_path


@pytest.mark.long  # two trainings, in four openings of a base
def test_a_cell_is_made_once_for_the_same_code_data_and_settings(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(library.VARIABLE, str(folder / "data"))
    words = ["--root", str(folder), "--work", str(folder / "work"), "--tasks", "alpaca", "--threads", "1"]
    words += ["--rows", "12,4,8", "--epochs", "1"]
    assert library.main(words) == 0
    said = capsys.readouterr().out
    line = lines(said)["alpaca"]
    assert line[1:4] == ["loss", "6", "8"]
    assert all(float(figure) > 0 for figure in line[5:8])
    cells = {path: path.stat().st_mtime_ns for path in (folder / "work" / "cells").iterdir()}
    assert len(cells) == 3
    steps = {read_cell(path).method: read_cell(path).steps for path in cells}
    assert steps == {BASE: 0, LOREFT: 2, LORA: 2}  # half of 12 rows in batches of 4, once
    assert library.main([*words, "--methods", BASE]) == 0
    assert {path: path.stat().st_mtime_ns for path in cells} == cells
    assert library.main(["--root", str(folder), "--work", str(folder / "work"), "--table"]) == 0
    assert lines(capsys.readouterr().out)["alpaca"] == line


def test_without_data_and_without_cells_it_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(library.VARIABLE, raising=False)
    assert library.main(["--root", str(folder), "--tasks", "alpaca"]) == 2
    assert library.VARIABLE in capsys.readouterr().err
    assert library.main(["--root", str(folder), "--work", str(folder / "none"), "--table"]) == 2
    assert "must have cells" in capsys.readouterr().err
