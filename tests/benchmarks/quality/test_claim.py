"""The protocol, its cells and what is written of them: committed ones are held to it, planted ones to its rules."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.quality import claim
from benchmarks.quality.claim_cells import Asked, ClaimCell, read_cells
from benchmarks.quality.claim_lines import find
from benchmarks.quality.claim_pictures import PICTURES, picture
from benchmarks.quality.claim_plan import BASE, TRIALS, Protocol, next_rate
from benchmarks.quality.claim_table import page, report
from benchmarks.quality.library_cells import write_cell
from pipelines.errors import PipelineError
from pipelines.files import sha256_file
from tests.project import ROOT
from tests.tiny import write_tiny_base

PAGE = ROOT / claim.PROTOCOL
CELLS = ROOT / claim.CELLS
ROWS = 40
WIDTH, LAYERS = 576, 30  # of SmolLM2-135M
LINEAR = {"q_proj": 576, "k_proj": 192, "v_proj": 192, "o_proj": 576, "gate_proj": 1536, "up_proj": 1536}


@pytest.fixture(scope="module")
def protocol() -> Protocol:
    return Protocol.read(PAGE)


@pytest.fixture(scope="module")
def cells() -> dict[str, ClaimCell]:
    return read_cells(CELLS)


def confidence() -> float:
    found: float = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["evaluate"]["confidence"]
    return found


def test_each_committed_cell_names_the_protocol_and_is_one_of_its_plan(
    protocol: Protocol, cells: dict[str, ClaimCell]
) -> None:
    planned = {step.file: step for step in protocol.steps()}
    for name, cell in cells.items():
        assert (cell.protocol, cell.name) == (sha256_file(PAGE), name)
        if cell.purpose == "tuning":
            assert cell.trial < protocol.plan.most_trials
            assert cell.test is None, "a trial asks no test row"
        else:
            assert (planned[name].line, planned[name].purpose) == (cell.line, cell.purpose)


def test_the_learning_rate_of_each_committed_test_is_the_one_that_its_trials_chose(
    protocol: Protocol, cells: dict[str, ClaimCell]
) -> None:
    for cell in cells.values():
        if cell.purpose == "test":
            tried = claim.tried(cells, cell.task, cell.line)
            assert len(tried) >= TRIALS
            assert next_rate(protocol.plan.lines[cell.line], tried, protocol.plan.most_trials) is None
            assert cell.learning_rate == claim.chosen(tried)


def test_the_committed_tables_and_pictures_are_those_of_the_committed_cells(
    protocol: Protocol, cells: dict[str, ClaimCell]
) -> None:
    assert (CELLS.parent / "tables.md").read_text(encoding="utf-8") == page(cells, protocol, confidence())
    lines = find(cells, protocol, confidence()).lines
    for name, axis in PICTURES.items() if lines else ():
        assert (CELLS.parent / name).read_text(encoding="utf-8") == picture(lines, axis)


def test_the_page_says_how_many_numbers_its_lines_train(protocol: Protocol) -> None:
    """LoReFT of rank r: r (2 d + 1) a layer; LoRA: r (in + out) a module; RED: a scale and a bias a layer."""

    def numbers(parts: dict[str, Any]) -> int:
        if "lora" in parts:
            lora = parts["lora"]
            every = {**{name: WIDTH + out for name, out in LINEAR.items()}, "down_proj": 1536 + WIDTH}
            of = every if lora["target_modules"] == "all-linear" else lora["target_modules"].split(",")
            return LAYERS * int(lora["rank"]) * sum(every[name] for name in of)
        if parts["method"] == "red":
            return LAYERS * 2 * WIDTH
        return LAYERS * int(parts["rank"]) * (2 * WIDTH + 1)

    said = dict(
        re.findall(r"^\| ([^|]+?) \| [^|]+ \| ([\d,]+) \| [\d.,]+ % \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    )
    found = {
        name: numbers(line.parts) for name, line in protocol.plan.lines.items() if name in said and "full" not in name
    }
    assert found == {name: int(told.replace(",", "")) for name, told in said.items() if "full" not in name}
    assert len(found) == 9


def test_every_line_has_as_many_trials_and_the_plan_ends_within_its_hours(protocol: Protocol) -> None:
    steps = protocol.steps()
    for task, line in {(step.task, step.line) for step in steps if step.purpose == "test"}:
        own = [step.purpose for step in steps if (step.task, step.line) == (task, line) and step.purpose != "whole"]
        assert own[: TRIALS + 1] == ["tuning"] * TRIALS + ["test"]
    promised = protocol.promised()
    assert sum(step.seconds for step in steps[:promised]) <= 3600 * protocol.plan.hours
    assert f"{promised} of {len(steps)} cells" in PAGE.read_text(encoding="utf-8")


def test_a_rate_beyond_the_end_or_beside_the_best_follows_the_grid(protocol: Protocol) -> None:
    line = protocol.plan.lines["LoReFT 10 %"]  # 1e-3, 3.2e-3, 1e-2
    grid = {0.001: (0.5, 1.0), 0.0032: (0.7, 1.0), 0.01: (0.6, 1.0)}
    assert [next_rate(line, dict(list(grid.items())[:count]), 6) for count in range(3)] == line.rates
    assert next_rate(line, grid, 6) == 0.0057  # between the best and the better of its neighbours, a quarter power on
    assert next_rate(line, grid | {0.01: (0.5, 2.0)}, 6) == 0.0018  # of equal neighbours the one with the lower loss
    assert next_rate(line, grid | {0.01: None}, 6) == 0.0018
    assert next_rate(line, grid | {0.0057: (0.6, 1.0)}, 6) is None
    highest = grid | {0.01: (0.8, 1.0)}
    assert next_rate(line, highest, 6) == 0.032
    assert next_rate(line, highest | {0.032: (0.9, 1.0)}, 6) == 0.1
    assert next_rate(line, highest | {0.032: (0.9, 1.0), 0.1: (0.91, 1.0), 0.32: (0.92, 1.0)}, 6) is None
    assert next_rate(line, dict.fromkeys(grid), 6) is None


def planted(line: str, right: int, *, seed: int = 42, purpose: str = "test") -> ClaimCell:
    """A cell of which the first ``right`` test rows are right."""
    asked = Asked(tuple(float(place < right) for place in range(ROWS)), (0.5,) * ROWS, 2.0, 1.0)
    rate = None if line == BASE else 0.01
    validation = None if purpose == "test" else asked
    return ClaimCell(
        "trec", line, purpose, 0, "a base", "accuracy", seed, rate, 200, 2, validation, None,  # type: ignore[arg-type]
        None if purpose == "tuning" else asked, tuple(range(ROWS)), {"chance": 0.5}, ((10, 30.0),) * 10, 7, 100,
        3.0, 4.0, None, "rows", "code", "page",
    )  # fmt: skip


def by_name(*cells: ClaimCell) -> dict[str, ClaimCell]:
    return {cell.name: cell for cell in cells}


def test_differences_are_adjusted_over_all_comparisons_of_the_plan_also_those_not_measured(protocol: Protocol) -> None:
    """Of 40 rows 11 that one line alone gets right: p = 2 (1/2)^11 = 1/1024 by McNemar, and 27 times that is 0.026."""
    ours, rival = "LoReFT 10 %", "LoRA 8, all linear"
    found = by_name(
        planted(BASE, 20, purpose="base"), planted(ours, 31), planted(rival, 20),
        *(planted(line, 31, purpose="tuning") for line in (ours, rival)),
    )  # fmt: skip
    said = report(found, protocol, 0.95)
    (line,) = [line.split(" | ") for line in said.splitlines() if " over " in line]
    assert line[1:] == [f"{ours} over {rival}", "+27.5 (+15.0 to +42.5)", "1", "0.00098", "0.026", "better |"]
    assert sum(len(each.tasks) for each in protocol.plan.comparisons) == 27
    few = planted(ours, 29)  # 9 rows: p = 1/256
    assert "not told apart: it takes" in report(found | {few.name: few}, protocol, 0.95)
    with pytest.raises(PipelineError, match="must be of one base and the same rows"):
        report(found | {few.name: replace(few, data="other")}, protocol, 0.95)


def test_a_comparison_is_of_the_seeds_that_both_lines_have(protocol: Protocol) -> None:
    ours, rival = "LoReFT 10 %", "LoRA 8, all linear"
    tests = [planted(ours, 31, seed=seed) for seed in (42, 43, 44)] + [
        planted(rival, 20, seed=seed) for seed in (42, 44)
    ]
    tuned = [planted(line, 31, purpose="tuning") for line in (ours, rival)]
    found = find(by_name(planted(BASE, 20, purpose="base"), *tests, *tuned), protocol, 0.95)
    assert {line.name: line.seeds for line in found.lines} == {BASE: 1, ours: 3, rival: 2}
    assert [one.seeds for one in found.compared if one.lead is not None] == [2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A root with params.yaml for a tiny base, a small protocol, and a folder of data."""
    raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    raw["base"] |= {"source": "file:models/own/tiny", "sha256": None}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    config = write_tiny_base(tmp_path / "work" / "trec" / "models" / "own" / "tiny") / "config.json"
    longer = json.loads(config.read_text(encoding="utf-8")) | {"max_position_embeddings": 1024}
    config.write_text(json.dumps(longer), encoding="utf-8")
    (tmp_path / "data" / "trec").mkdir(parents=True)
    for split, start in (("train", 0), ("validation", 100), ("test", 200)):
        lines = [f"{('LOC', 'NUM')[n % 2]}:x which word {n} ?" for n in range(start, start + 30)]
        (tmp_path / "data" / "trec" / f"{split}.label").write_text("\n".join(lines), encoding="utf-8")
    plan = yaml.safe_load(re.search(r"```yaml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)[1])  # type: ignore[index]
    task = {**plan["tasks"]["trec"], "test_rows": 8, "words": {"LOC": "good", "NUM": "bad"}}
    kept = {name: plan["lines"][name] for name in ("LoReFT 4 %", "pyreft, identity start", "LoRA 1, q and v")}
    for line in kept.values():
        if "rank" in line["parts"]:
            line["parts"] |= {"rank": 2}
    plan |= {
        "rows": {"train": 8, "validation": 6},
        "epochs": 1,
        "tasks": {"trec": task},
        "lines": kept,
        "comparisons": [],
    }
    plan["space"] = {"layers": ["all"], "positions": ["l1"], "rank": [1], "learning_rate": [0.001, 0.01]}
    own = {"task": "trec", "seeds": [42], "whole": False}
    plan["order"] = [
        {**own, "lines": [BASE, *kept]}, {**own, "lines": "recipes"}, {**own, "whole": True, "lines": ["LoReFT 4 %"]}
    ]  # fmt: skip
    (tmp_path / "protocol.md").write_text(f"```yaml\n{json.dumps(plan, indent=1)}\n```\n", encoding="utf-8")
    return tmp_path


@pytest.mark.long  # sixteen trainings or more
def test_cells_are_made_in_order_once_and_the_kept_model_is_the_one_that_won(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(claim.VARIABLE, str(folder / "data"))
    words = ["--root", str(folder), "--protocol", "protocol.md", "--work", str(folder / "work")]
    out = folder / claim.CELLS
    assert claim.main(words) == 0
    made = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    cells = read_cells(out)
    protocol = Protocol.read(folder / "protocol.md")
    assert {step.file for step in protocol.steps()} <= set(cells)
    assert not [cell.error for cell in cells.values() if cell.error]
    assert claim.main([*words, "--list"]) == 0
    assert "and 0 are left" in capsys.readouterr().out
    # A test whose line's trials were made by another process trains anew, and comes to the same bits.
    tests = [cell for cell in cells.values() if cell.purpose == "test"]
    for cell in tests:
        (out / cell.name).unlink()
    assert claim.main(words) == 0
    again = read_cells(out)
    for cell in tests:
        assert again[cell.name].test is not None
        assert cell.test is not None
        assert (again[cell.name].test.nats, again[cell.name].neutral) == (cell.test.nats, cell.neutral)
    assert all(path.stat().st_mtime_ns == time for path, time in made.items() if "-test-" not in path.name)
    assert claim.main([*words, "--table"]) == 0
    assert (out.parent / "tables.md").is_file()
    (whole,) = [cell for cell in cells.values() if cell.purpose == "whole"]
    (same,) = [
        cell for cell in cells.values()
        if (cell.line, cell.purpose, cell.learning_rate) == (whole.line, "tuning", whole.learning_rate)
    ]  # fmt: skip
    assert whole.validation is not None
    assert same.validation is not None
    assert whole.validation.nats == pytest.approx(same.validation.nats, abs=1e-3)


def test_without_data_it_says_so_and_without_cells_it_counts_none(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(claim.VARIABLE, raising=False)
    words = ["--root", str(folder), "--protocol", "protocol.md", "--work", str(folder / "work")]
    assert claim.main(words) == 2
    assert claim.VARIABLE in capsys.readouterr().err
    assert claim.main([*words, "--table"]) == 0
    assert "0 of the" in (folder / claim.CELLS.parent / "tables.md").read_text(encoding="utf-8")


def test_a_cell_is_read_as_it_was_written(tmp_path: Path) -> None:
    cell = planted("LoReFT 10 %", 31)
    write_cell(tmp_path / cell.name, cell)
    assert read_cells(tmp_path, "page") == {cell.name: cell}
    assert read_cells(tmp_path, "another page") == {}


def test_the_readme_says_of_the_claim_what_the_tables_say() -> None:
    """Every figure of its paragraph stands in the tables that the cells come to, or in the protocol."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (paragraph,) = [part for part in readme.split("\n\n") if part.startswith("**ReFT or LoRA?**")]
    pages = [(ROOT / "docs" / "results" / name).read_text(encoding="utf-8") for name in ("tables.md", "protocol.md")]
    known = {figure for page in pages for figure in figures(page)}
    claimed = figures(paragraph)
    assert len(claimed) > 12
    assert sorted(claimed - known) == []


def figures(text: str) -> set[str]:
    """Percentages, points and counts, by their digits and sign."""
    return set(re.findall(r"[+-]?\d{1,3}(?:,\d{3})+|[+-]?\d+\.\d+", text.replace("−", "-")))
