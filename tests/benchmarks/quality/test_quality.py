"""The quality benchmark on a tiny base and a few rows: pyreft beside two methods; the figures mean nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from benchmarks.quality import __main__ as quality
from pipelines.compare.table import Line
from pipelines.contracts.interval import Interval
from tests.project import ROOT, review_rows
from tests.tiny import write_tiny_base


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A root with params.yaml for a tiny base, the base where the task will look for it, and a folder of data."""
    raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    raw["base"] |= {"source": "file:models/own/tiny", "sha256": None}
    raw["run"] |= {"threads": 1}
    raw["evaluate"]["bootstrap"] = 100
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    write_tiny_base(tmp_path / "out" / "sst2" / "models" / "own" / "tiny")
    data = tmp_path / "data" / "sst2"
    data.mkdir(parents=True)
    lines = [f"{text}\t{int(label == 'good')}" for text, label in review_rows(60)]
    for split, rows in (("train", lines[:32]), ("validation", lines[32:44]), ("test", lines[44:])):
        (data / f"{split}.tsv").write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    return tmp_path


@pytest.mark.long
def test_it_prints_a_table_with_pyreft_and_goes_on_where_it_was(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(quality.VARIABLE, str(folder / "data"))
    words = ["--root", str(folder), "--out", str(folder / "out"), "--tasks", "sst2", "--seeds", "42"]
    words += ["--rows", "16,16,8,8", "--workers", "2", "--dtype", "bfloat16"]
    words += ["--methods", "LoReFT, paper;LoRA;pyreft, paper"]
    assert quality.main(words) == 0
    said = capsys.readouterr().out
    names = [line.split("|")[1].strip() for line in said.splitlines() if line.startswith("|")]
    expected = ["method", "---", "base", "LoReFT, paper", "LoRA", "pyreft, paper"]
    assert names == expected
    rows = {line.split("|")[1].strip(): line for line in said.splitlines() if line.startswith("|")}
    assert "failed" not in said
    counts = {name: rows[name].split("|")[7].strip() for name in expected[3:]}
    assert counts["pyreft, paper"] == counts["LoReFT, paper"]
    assert "LoReFT, paper is" in said or "answers every test row" in said
    cells = {path: path.stat().st_mtime_ns for path in (folder / "out").rglob("compare/*/*.json")}
    assert len(cells) == 1 + 3 * (3 + 1)
    assert quality.main(words) == 0
    assert {path: path.stat().st_mtime_ns for path in cells} == cells


@pytest.mark.long
def test_a_worker_that_fails_is_told_with_its_messages(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sixteen rows in batches of sixteen are one step, which two methods cannot share."""
    monkeypatch.setenv(quality.VARIABLE, str(folder / "data"))
    words = ["--root", str(folder), "--out", str(folder / "out"), "--tasks", "sst2", "--seeds", "42"]
    words += ["--rows", "16,16,8,8"]
    assert quality.main([*words, "--methods", "LoRA;LoRA then LoReFT", "--workers", "2"]) == 2
    assert "for LoRA then LoReFT" in capsys.readouterr().err
    assert quality.main([*words, "--methods", "Lora"]) == 2
    assert "--methods knows" in capsys.readouterr().err


def test_without_the_line_that_pyreft_follows_it_says_what_is_missing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(quality.VARIABLE, str(folder / "data"))
    raw = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    del raw["compare"]["methods"]["LoReFT, searched"]
    (folder / "params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    words = ["--root", str(folder), "--out", str(folder / "out"), "--tasks", "sst2", "--rows", "32,32,8,8"]
    assert quality.main(words) == 2
    assert "pyreft has the recipe of compare.methods.LoReFT, searched" in capsys.readouterr().err


def test_without_data_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv(quality.VARIABLE, raising=False)
    assert quality.main(["--root", str(ROOT)]) == 2
    assert quality.VARIABLE in capsys.readouterr().err


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        ("", "is level with LoRA"),
        ("too few rows", "is level with LoRA"),
        ("better", "is below LoRA"),
        ("worse", "is above LoRA"),
    ],
)
def test_the_sentence_follows_the_verdict_of_the_table(verdict: str, said: str) -> None:
    """The difference in a line is that line's to the first, so LoRA's is turned round."""
    some = Interval(0.8, 0.7, 0.9)
    ours = Line("LoReFT, paper", 1e-3, 1, some, None, None, None, None, "", 30, 1.0, 1.0, "")
    lora = Line("LoRA", 1e-3, 1, some, None, Interval(0.02, 0.01, 0.03), 0.01, None, verdict, 60, 1.0, 1.0, "")
    sentence = quality.sentence(ours, lora)
    assert said in sentence
    assert sentence.endswith("-2.0 points (-3.0 to -1.0).\n")
    assert sentence.startswith("With 50% of its trained numbers, LoReFT, paper is ")
