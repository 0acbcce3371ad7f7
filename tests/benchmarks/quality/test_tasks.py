"""The tables of the library's tasks: what is in them, and what is said without data."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.quality import tasks
from benchmarks.quality.tasks import Prepared, report
from pipelines.contracts.card import DataCard, SplitCard
from pipelines.contracts.prepared import SPLITS, Row
from pipelines.intake.library import task_names


def test_the_tables_count_rows_and_rejections_and_show_a_prompt() -> None:
    split = SplitCard(2, {}, {"p50": 3.0, "max": 4})
    card = DataCard("file:x", None, "0", 12, {"a text is empty": 4, "two options are the same": 1}, 1, {}, 0,
        dict.fromkeys(SPLITS, split))  # fmt: skip
    row = Row("f:1", "Is it?\nAnswer:", " yes", choices=(" no", " yes"))
    said = report([Prepared("boolq", "accuracy", card, 2, {"majority": 0.625}, row)])
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in said.splitlines() if line.startswith("|")]
    assert lines[2] == ["`boolq`", "accuracy", "12", "5", "2", "2", "2", "2", "3, 4", "62.5 %", ""]
    assert lines[5:] == [["`boolq`", "a text is empty", "4"], ["`boolq`", "two options are the same", "1"]]
    assert "Is it?\nAnswer:\n" in said
    assert "  ' no'\n* ' yes'\n" in said


def test_the_page_has_a_line_for_every_task() -> None:
    page = (Path(tasks.__file__).parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")
    listed = [line.split("|")[1].strip(" `") for line in page.splitlines() if line.count("|") == 12]
    assert listed[2:] == task_names()


def test_without_data_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv(tasks.VARIABLE, raising=False)
    assert tasks.main([]) == 2
    assert "REFT_BENCH_DATA" in capsys.readouterr().err
