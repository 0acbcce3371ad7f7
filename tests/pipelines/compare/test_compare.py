"""Methods side by side on a tiny project: what is chosen and measured, what is kept, and what the table says."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.compare import __main__ as comparing
from pipelines.compare import contenders as contending
from pipelines.compare.cells import BASE, Budget, Cell, CellMaker
from pipelines.compare.contenders import contenders
from pipelines.compare.table import Comparison, Line, lines_of, markdown
from pipelines.contracts.best import Best, write_best
from pipelines.errors import PipelineError
from pipelines.model.fitting import build_model, train_steps
from pipelines.model.intervals import each_alone
from pipelines.model.scores import answers
from pipelines.model.workspace import open_workspace
from pipelines.params.whole import Params, check_params
from pipelines.project.graph import read_graph
from pipelines.project.settings import TrainingSettings
from pipelines.tasks.family import open_family
from pipelines.tasks.measures import Proportion
from pipelines.upkeep.leftovers import leftovers
from reft.cone.keeper import filling_seconds
from tests.searching import FEW, Project, raw_params

METHODS: dict[str, Any] = {
    "LoReFT": {
        "method": "reft", "parts": {"layers": "all", "positions": "l4", "rank": 2}, "learning_rates": [1e-3, 2e-2],
    },
    "LoRA": {"method": "lora", "parts": {"lora": {"rank": 2}}, "learning_rates": [1e-3, 1e-2]},
    "too fast": {"method": "full", "parts": {}, "learning_rates": [1e30, 1e32]},
}  # fmt: skip
COMPARE: dict[str, Any] = {
    "seeds": [3, 4], "tuning_rows": 8, "train_rows": 16, "validation_rows": 8, "test_rows": 6, "epochs": 2,
    "methods": METHODS,
}  # fmt: skip


def params(changes: Mapping[str, Any] | None = None) -> Params:
    raw = raw_params(FEW | {"train.batch_size": 8, "evaluate.bootstrap": 100})
    raw["compare"] = {**COMPARE, **(changes or {})}
    return check_params(raw, "params.yaml")


def run(
    context: Project, out: Path, changes: Mapping[str, Any] | None = None, only: tuple[str, ...] = ()
) -> Comparison:
    return comparing.run(
        params(changes), root=context.root, base=context.base, prepared=context.prepared,
        search=context.root / "search", out=out, only=only,
    )  # fmt: skip


@pytest.fixture(scope="module")
def found(made: Project) -> Comparison:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFT_HOME", str(made.root / "home"))
        return run(made, made.root / "out")


def cell_files(context: Project) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (context.root / ".reft" / "compare").rglob("*.json")}


def test_a_learning_rate_is_chosen_on_validation_rows_and_measured_with_every_seed(found: Comparison) -> None:
    for contender, tuning, cells in found.lines[:2]:
        assert [(cell.learning_rate, cell.seed, len(cell.scores)) for cell in tuning] == [
            (rate, 3, 8) for rate in contender.learning_rates
        ]
        best = max(cell.value or 0.0 for cell in tuning)
        chosen = min(cell.learning_rate or 0.0 for cell in tuning if cell.value == best)
        assert [(cell.learning_rate, cell.seed, len(cell.scores)) for cell in cells] == [(chosen, 3, 6), (chosen, 4, 6)]
        assert {(cell.purpose, cell.steps) for cell in tuning} == {("tuning", 2)}
        assert {(cell.purpose, cell.steps) for cell in cells} == {("test", 4)}
        assert all(cell.memory_mb > 50 and cell.train_seconds > 0 for cell in (*tuning, *cells))


def test_a_cell_is_what_the_pipelines_own_training_and_scoring_give(found: Comparison, made: Project) -> None:
    chosen = params()
    workspace = open_workspace(chosen.computation(), root=made.root, base=made.base, prepared=made.prepared)
    cell = found.lines[1][2][1]
    recipe = {"lora.rank": 2, "lora.learning_rate": cell.learning_rate, "epochs": 2}
    whole = chosen.model_copy(update={"method": chosen.method.model_copy(update={"name": "lora"})})
    whole = whole.recipe_space().whole(recipe)
    model = build_model(workspace, whole, seed=4)
    for _ in train_steps(
        model, workspace.encoded("train", 16), whole, TrainingSettings.of(chosen.train), seed=4, pad_id=workspace.pad_id
    ):
        pass
    rows, task = workspace.rows("test")[:6], open_family(workspace.task)
    said = answers(workspace, task, model, rows, batch_size=chosen.evaluate.batch_size, title="rows")
    labels = [task.classes[int(np.argmax(answer))] for answer in said]
    assert cell.scores == tuple(float(label == row.label) for label, row in zip(labels, rows, strict=True))
    assert cell.parameters == model.num_trainable()


@pytest.mark.parametrize("name", [BASE, "LoReFT", "LoRA"])
def test_every_contender_is_asked_by_passes_over_whole_rows(made: Project, tmp_path: Path, name: str) -> None:
    """The cone's, which ReFT alone has, differ from them by up to 0.3 nats in bf16; they would compute constants."""
    settings = params({"test_rows": 4})
    workspace = open_workspace(settings.computation(), root=tmp_path, base=made.base, prepared=made.prepared)
    maker = CellMaker(workspace, settings, Budget(4, 4, 4, 4), root=tmp_path)
    if name == BASE:
        maker.base()
    else:
        method = next(each for each in contenders(settings, best=made.root / "none") if each.name == name)
        maker.measured(method, 1e-3, seed=5)
    assert filling_seconds(workspace.base) == 0


def test_what_was_measured_is_not_measured_again(found: Comparison, made: Project, tmp_path: Path) -> None:
    before = cell_files(made)
    assert len(before) == 1 + 2 * (2 + 2) + 2
    again = run(made, tmp_path / "again")
    assert cell_files(made) == before
    assert again.base == found.base
    assert [line[1:] for line in again.lines] == [line[1:] for line in found.lines]
    (lost,) = [name for name in before if name.startswith("lora-test") and "-4-" in name]
    next((made.root / ".reft" / "compare").rglob(lost)).unlink()
    added = {**METHODS, "prompts": {"method": "prompt", "parts": {}, "learning_rates": [1e-2]}}
    run(made, tmp_path / "more", {"methods": added, "seeds": [3, 4]})
    after = cell_files(made)
    new = {name for name in after if after[name] != before.get(name)}
    assert lost in new
    assert sorted(name.rsplit("-", 1)[0] for name in new - {lost}) == ["prompts-test-0.01-3", "prompts-test-0.01-4"]


def test_the_table_says_what_the_cells_hold(found: Comparison, made: Project) -> None:
    lines = {line.name: line for line in lines_of(found, params().evaluate)}
    assert list(lines) == [BASE, "LoReFT", "LoRA", "too fast"]
    with (made.root / "out" / "table.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    for contender, _, cells in found.lines[:2]:
        line, accuracies = lines[contender.name], [cell.value for cell in cells]
        assert line.value is not None
        assert line.value.value == pytest.approx(np.mean(accuracies))
        assert line.spread == pytest.approx(np.std(accuracies, ddof=1))
        assert line.value.low <= line.value.value <= line.value.high
        assert float(rows[contender.name]["accuracy"]) == pytest.approx(line.value.value)
        assert int(rows[contender.name]["parameters"]) == cells[0].parameters
    assert lines["LoReFT"].difference is None
    assert lines[BASE].parameters == 0
    assert "must be finite" in lines["too fast"].note
    text = (made.root / "out" / "table.md").read_text(encoding="utf-8")
    assert [row.split("|")[1].strip() for row in text.splitlines() if row.startswith("|")][2:] == list(lines)
    assert "failed: loss and gradient must be finite" in text
    assert f"Answers that read no prompt: majority {100 * found.baselines['majority']:.1f} %" in text
    assert (made.root / "out" / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    cells = json.loads((made.root / "out" / "cells.json").read_text(encoding="utf-8"))
    assert len(cells) == 1 + 2 * 4 + 2


def test_every_method_has_its_perplexity_on_neutral_text_and_its_change(found: Comparison, made: Project) -> None:
    """By the tokens that the cells keep: exp of their mean, over all seeds, and of the mean distance to the base's."""
    lines = {line.name: line for line in lines_of(found, params().evaluate)}
    base = np.array(found.base.neutral)
    assert lines[BASE].perplexity == pytest.approx(np.exp(base.mean()))
    with (made.root / "out" / "table.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    for contender, tuning, cells in found.lines[:2]:
        nats = np.array([cell.neutral for cell in cells])
        change = lines[contender.name].forgetting
        assert change is not None
        assert change.value == pytest.approx(np.expm1((nats - base).mean()))
        assert change.low <= change.value <= change.high
        assert float(rows[contender.name]["perplexity_change"]) == pytest.approx(change.value)
        assert {cell.neutral for cell in tuning} <= {()}  # a learning rate is not chosen by it
    assert "perplexity on neutral text" in (made.root / "out" / "table.md").read_text(encoding="utf-8")
    assert lines["too fast"].forgetting is None


def test_the_difference_is_paired_row_by_row() -> None:
    """Two systems that are right on other rows as often differ by 0, in an interval that their rows give."""
    line = second_line((1.0, 1.0, 0.0, 0.0) * 5, (0.0, 1.0, 1.0, 0.0) * 5)
    assert line.difference is not None
    assert (line.difference.value, line.difference.low < 0 < line.difference.high) == (0.0, True)
    assert (line.p_value, line.verdict) == (1.0, "not more than chance")
    assert line.detectable is not None
    assert f"not more than chance: it takes {100 * line.detectable:.1f} points" in markdown([line], "accuracy")


@pytest.mark.parametrize(
    ("won", "rows", "p_value", "verdict"),
    [
        (6, 40, 2 / 2**6, "better"),
        (-6, 40, 2 / 2**6, "worse"),
        (5, 40, 2 / 2**5, "not more than chance"),  # though its interval lies above 0
        (10, 10, 2 / 2**10, "too few rows"),
    ],
)
def test_better_is_what_the_stage_evaluate_calls_so(won: int, rows: int, p_value: float, verdict: str) -> None:
    """The exact test of n rows that one system alone gets right, and none the other, has p = 2 (1/2)^n."""
    more, none = (1.0,) * abs(won) + (0.0,) * (rows - abs(won)), (0.0,) * rows
    line = second_line(none, more) if won > 0 else second_line(more, none)
    assert line.difference is not None
    assert line.difference.low > 0 or line.difference.high < 0
    assert (line.p_value, line.verdict) == (pytest.approx(p_value), verdict)


def second_line(first: tuple[float, ...], second: tuple[float, ...]) -> Line:
    """The table's line of the second of two methods with these scores of the test rows."""
    cells = [Cell(name, "test", 1e-3, 3, 0.5, scores, 10, 1, 1.0, 1.0, 1.0, None, (1.0, 2.0)) for name, scores in
             (("a", first), ("b", second))]  # fmt: skip
    methods = contenders(params({"methods": dict.fromkeys("ab", METHODS["LoRA"])}), best=Path("none"))
    lines = tuple((method, (), (cell,)) for method, cell in zip(methods, cells, strict=True))
    found = Comparison(Proportion("accuracy"), cells[0], lines, {}, each_alone(len(first)), each_alone(2))
    return lines_of(found, params().evaluate)[2]


def test_a_searched_part_is_as_the_last_search_chose_it_or_is_missed(tmp_path: Path) -> None:
    methods = {"LoReFT": {"method": "reft", "parts": {"layers": "all"}, "learning_rates": [1e-3]}}
    chosen = params({"methods": methods})
    with pytest.raises(PipelineError, match="Got: no positions for LoReFT"):
        contenders(chosen, best=tmp_path / "best.yaml")
    chosen_parts: dict[str, object] = {"layers": "0", "positions": "l1", "rank": 2}
    write_best(tmp_path / "best.yaml", Best(chosen_parts, "search-1", 0, "proposed", 0.5, None))
    (contender,) = contenders(chosen, best=tmp_path / "best.yaml")
    assert (contender.key["layers"], contender.key["positions"], contender.key["rank"]) == ("all", "l1", 2)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"methods": {"x": {**METHODS["LoRA"], "parts": {"rank": 2}}}}, "parts are the method's own"),
        ({"methods": {"x": {**METHODS["LoRA"], "parts": {"lora": {"rank": 0}}}}}, "parts.lora.rank: Input should be"),
        ({"methods": {"x": {**METHODS["LoRA"], "parts": {"lora": {"rnk": 2}}}}}, "did you mean 'lora.rank'"),
        ({"methods": {"base": METHODS["LoRA"]}}, "and not base; got 'base'"),
        ({"tuning_rows": 17}, "tuning_rows must not be above train_rows; got 17 and 16"),
        ({"seeds": [3, 3]}, "seeds are each given once"),
    ],
)
def test_a_mistake_in_the_section_is_told_with_its_place(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(PipelineError) as error:
        params(changes)
    assert "compare" in str(error.value)
    assert said in str(error.value)


def test_more_rows_than_there_are_and_a_stranger_are_refused(made: Project) -> None:
    with pytest.raises(PipelineError, match=r"compare.methods has LoReFT, LoRA, too fast. Got: Lora"):
        contenders(params(), best=Path("none"), only=["Lora"])
    chosen = params()
    workspace = open_workspace(chosen.computation(), root=made.root, base=made.base, prepared=made.prepared)
    budget = dataclasses.replace(Budget.of(chosen.compare), test_rows=9)
    with pytest.raises(PipelineError, match=r"compare.test_rows must not be above the rows that there are, 8"):
        CellMaker(workspace, chosen, budget, root=made.root)


@pytest.mark.parametrize(
    ("rates", "rows", "raised"),
    [([1e-3], {"train_rows": 8}, "train_rows"), ([1e-3, 1e-2], {"train_rows": 16}, "tuning_rows")],
)
def test_a_step_for_each_of_two_methods_is_asked_for(
    made: Project, tmp_path: Path, rates: list[float], rows: dict[str, int], raised: str
) -> None:
    """Before anything is measured: a method that stands before it in the table is not trained for nothing."""
    parts = {"layers": "all", "positions": "l4", "rank": 2}
    both = {"method": "lora_then_reft", "parts": parts, "learning_rates": rates}
    before = cell_files(made)
    with pytest.raises(PipelineError, match=rf"Got: 1 for both.*Raise compare\.{raised} or compare\.epochs"):
        run(made, tmp_path, {"methods": {"LoRA": METHODS["LoRA"], "both": both}, **rows, "epochs": 1, "seeds": [5]})
    assert cell_files(made) == before


def test_a_training_too_short_for_two_methods_is_refused(made: Project) -> None:
    chosen = params()
    workspace = open_workspace(chosen.computation(), root=made.root, base=made.base, prepared=made.prepared)
    chosen = chosen.model_copy(update={"method": chosen.method.model_copy(update={"name": "lora_then_reft"})})
    values = {"layers": "all", "positions": "l4", "rank": 2, "learning_rate": 1e-3, "lora.learning_rate": 1e-3}
    recipe = chosen.recipe_space().whole(values | {"epochs": 1})
    model = build_model(workspace, recipe, seed=3)
    with pytest.raises(PipelineError, match=r"Got: two turns need a step each; got 1 in all.*Raise rows or epochs"):
        train_steps(
            model,
            workspace.encoded("train", 8),
            recipe,
            TrainingSettings.of(chosen.train),
            seed=3,
            pad_id=workspace.pad_id,
        )


def test_scores_that_are_no_numbers_fail_a_cell_and_the_others_are_measured(made: Project, tmp_path: Path) -> None:
    """A single step at such a rate has a loss, and leaves weights that overflow when rows are asked."""
    methods = {
        "too fast": {"method": "full", "parts": {}, "learning_rates": [1e38]},
        "LoRA": {"method": "lora", "parts": {"lora": {"rank": 2}}, "learning_rates": [1e-3]},
    }
    rows = {"tuning_rows": 8, "train_rows": 8}
    failed, stood = run(made, tmp_path, {"methods": methods, "seeds": [7], "epochs": 1, **rows}).lines
    assert "must be numbers" in (failed[2][0].error or "")
    assert failed[2][0].value is None
    assert stood[2][0].value is not None
    text = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "failed: scores of too fast must be numbers" in text
    assert "differences are paired, to LoRA." in text


def test_a_training_without_enough_memory_is_told_and_tried_again_the_next_time(
    made: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    methods = {"LoRA": {"method": "lora", "parts": {"lora": {"rank": 3}}, "learning_rates": [1e-3]}}
    real = contending.build_model

    def full(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("CUDA out of memory.\nTried to allocate 2 GiB")

    monkeypatch.setattr(contending, "build_model", full)
    (line,) = run(made, tmp_path / "one", {"methods": methods, "seeds": [7]}).lines
    assert line[2][0].error == "RuntimeError: CUDA out of memory. Tried to allocate 2 GiB"
    assert "failed: RuntimeError: CUDA" in (tmp_path / "one" / "table.md").read_text(encoding="utf-8")
    monkeypatch.setattr(contending, "build_model", real)
    (line,) = run(made, tmp_path / "two", {"methods": methods, "seeds": [7]}).lines
    assert line[2][0].value is not None


def test_the_search_is_needed_where_a_part_is_left_to_it() -> None:
    methods = {"open": {"method": "reft", "parts": {"layers": "all"}, "learning_rates": [1e-3]}, **METHODS}
    chosen = params({"methods": methods})
    assert chosen.compare.needs_search((), chosen.recipe_space().fixed)
    assert chosen.compare.needs_search(["open"], chosen.recipe_space().fixed)
    assert not chosen.compare.needs_search(["LoRA", "too fast"], chosen.recipe_space().fixed)


def test_cells_of_other_inputs_are_left_over(found: Comparison, made: Project) -> None:
    """Of what a comparison keeps, that on the present base and rows stays."""
    assert found.lines
    folder = made.root / ".reft" / "compare" / "0123456789abcdef"
    folder.mkdir()
    all_of_them = leftovers(params(), made.root, read_graph(made.root))
    assert [leftover.where for leftover in all_of_them if leftover.kind == "comparison"] == [str(folder)]
    folder.rmdir()
