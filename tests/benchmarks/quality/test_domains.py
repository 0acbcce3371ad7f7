"""The benchmark of domains on a tiny base and a few rows: every way to answer at a t; the figures mean nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from benchmarks.quality import domains
from benchmarks.quality.domain_rows import BETWEEN, TRAINED, write_rows
from benchmarks.quality.domains import ABOVE, ALL, BELOW, MOVING, READING, Line, above, below, report
from pipelines.contracts.prepared import Row, read_rows
from pipelines.errors import PipelineError
from pipelines.params.whole import load_params
from tests.project import ROOT, review_rows
from tests.tiny import write_tiny_base


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A root with params.yaml for a tiny base, the base where each wording will look for it, and a folder of data."""
    raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    raw["base"] |= {"source": "file:models/own/tiny", "sha256": None}
    raw["run"] |= {"threads": 1}
    raw["evaluate"]["bootstrap"] = 100
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    for place in ("plain", "told"):
        write_tiny_base(tmp_path / "out" / place / "models" / "own" / "tiny")
    data = tmp_path / "data" / "stsb"
    data.mkdir(parents=True)
    lines = [f"{place}\t{text}\tA film.\t{place % 11 / 2}" for place, (text, _) in enumerate(review_rows(140))]
    for split, rows in (("train", lines[:48]), ("validation", lines[48:72]), ("test", lines[72:])):
        body = "".join(f"{row}\n" for row in rows)
        (data / f"{split}.tsv").write_text(f"id\tsentence1\tsentence2\tsimilarity\n{body}", encoding="utf-8")
    return tmp_path


@pytest.mark.long
def test_it_prints_every_way_to_answer_and_goes_on_where_it_was(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(domains.VARIABLE, str(folder / "data"))
    words = ["--root", str(folder), "--out", str(folder / "out"), "--rows", "24,40,16,56"]
    assert domains.main(words) == 0
    said = capsys.readouterr().out
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in said.splitlines() if line.startswith("|")]
    names = ["base", "the commoner answer at t", ALL, READING, BELOW, ABOVE, MOVING]
    assert [line[0] for line in lines] == ["accuracy, %", "---", *names, "", "---", *names]
    accuracy = {line[0]: line for line in lines[: len(names) + 2]}
    costs = {line[0]: line for line in lines[len(names) + 2 :]}
    assert [title.split()[2] for title in lines[0][1:8]] == ["1", "1.5", "2", "2.5", "3", "3.5", "4"]
    one = int(costs[ALL][4].replace(",", ""))
    assert int(costs[BELOW][4].replace(",", "")) == 4 * one
    assert costs[BELOW][3:] == costs[ABOVE][3:]
    modules, rank, degree = 2 * 3, 8, 2
    assert int(costs[MOVING][4].replace(",", "")) == one + modules * degree * rank**2
    trained = [place for place, title in enumerate(lines[0]) if title.startswith("t = ") and ".5" not in title]
    assert [accuracy[BELOW][place] for place in trained] == [accuracy[ABOVE][place] for place in trained]
    cells = {path: path.stat().st_mtime_ns for path in (folder / "out").rglob("compare/*/*.json")}
    assert len(cells) == 1 + 7 * (3 + 1)
    for wording in ("plain", "told"):
        for split, own in (("train", TRAINED), ("validation", TRAINED), ("test", (*TRAINED, *BETWEEN))):
            rows = read_rows(folder / "out" / wording / "prepared", split)  # type: ignore[arg-type]
            assert {row.domain for row in rows} == set(own)
            assert all((f"from {row.domain:g} of 5" in row.prompt) == (wording == "told") for row in rows)
    assert domains.main(words) == 0
    assert capsys.readouterr().out.splitlines()[-20:] == said.splitlines()[-20:]
    assert {path: path.stat().st_mtime_ns for path in cells} == cells


def test_a_row_is_the_same_from_its_similarity_down(folder: Path) -> None:
    write_rows(folder / "data", folder / "made")
    lines = (folder / "made" / "stsb" / "test.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines[1:]]
    assert [float(row[2]) for row in rows[:7]] == sorted((*TRAINED, *BETWEEN))
    similarities = [place % 11 / 2 for place in range(72, 140)]
    assert [row[3] for row in rows] == [
        "yes" if similarity >= float(row[2]) else "no" for similarity, row in zip(similarities, rows, strict=True)
    ]


def test_neighbours_are_the_trained_ones_beside_a_domain() -> None:
    assert [TRAINED[below(t)] for t in (1.0, 1.5, 2.0, 3.5, 4.0)] == [1.0, 1.0, 2.0, 3.0, 4.0]
    assert [TRAINED[above(t)] for t in (1.0, 1.5, 2.0, 3.5, 4.0)] == [1.0, 2.0, 2.0, 4.0, 4.0]


def test_the_tables_have_the_means_of_their_rows() -> None:
    asked = [Row("f:1", pair, " yes", domain=t) for pair, t in (("a", 1.0), ("b", 1.0), ("a", 1.5), ("b", 2.0))]
    lines = [
        Line("other", np.array([1.0, 0.0, 0.0, 0.0]), 1e-3, 1000, 2.5),
        Line(MOVING, np.array([1.0, 1.0, 1.0, 0.0]), 1e-3, 2000, 3.5),
    ]
    said = report(lines, asked, load_params(ROOT / "params.yaml"))
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in said.splitlines() if line.startswith("|")]
    assert rows[0][1:] == ["t = 1 (2 rows)", "t = 1.5 (1 rows)", "t = 2 (1 rows)", "trained t", "t between"]
    assert rows[2][1:] == ["50.0", "0.0", "0.0", "33.3", "0.0"]
    assert rows[3][1:] == ["100.0", "100.0", "0.0", "66.7", "100.0"]
    assert rows[6][1].startswith("+33.3 (")
    assert rows[6][2:] == ["+100.0 (+100.0 to +100.0)", "0.001", "1,000", "2"]
    assert rows[7][1:3] == ["", ""]


def test_without_data_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv(domains.VARIABLE, raising=False)
    assert domains.main(["--root", str(ROOT)]) == 2
    assert domains.VARIABLE in capsys.readouterr().err


def test_data_that_are_none_are_told(tmp_path: Path) -> None:
    (tmp_path / "stsb").mkdir()
    with pytest.raises(PipelineError, match=r"must hold stsb/train.tsv"):
        write_rows(tmp_path, tmp_path / "out")
    (tmp_path / "stsb" / "train.tsv").write_text("a\tb\n1\t2\n", encoding="utf-8")
    with pytest.raises(PipelineError, match="with sentence1, sentence2 and similarity"):
        write_rows(tmp_path, tmp_path / "out")
