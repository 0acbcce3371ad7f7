"""Tasks that no method is trained on: which rows are asked, what is kept, and what the tables say of them."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipelines.compare import __main__ as comparing
from pipelines.compare.beside import untrained_tasks
from pipelines.compare.cells import BASE, Cell
from pipelines.compare.changes import Change, changes_of
from pipelines.compare.contenders import contenders
from pipelines.compare.table import Comparison
from pipelines.compare.untrained import Untrained
from pipelines.contracts.identities import write_identities
from pipelines.contracts.prepared import SPLITS, Row, Split, read_rows, write_rows
from pipelines.contracts.task import read_task
from pipelines.errors import PipelineError
from pipelines.evaluation.wanted import WantedRows
from pipelines.model.intervals import each_alone
from pipelines.model.scores import answers
from pipelines.model.workspace import open_workspace
from pipelines.tasks.family import open_family
from pipelines.tasks.measures import Proportion
from reft import ReftConfig, ReftModel
from tests.pipelines.compare.test_compare import METHODS, cell_files, params
from tests.searching import Project

ROWS = 8
LORA = {"LoRA": METHODS["LoRA"]}


@pytest.fixture(scope="module")
def other(made: Project) -> Path:
    """Prepared rows of another task: other words, in pairs that belong together."""
    folder = made.root / "other" / "prepared"
    shutil.copytree(made.prepared, folder)
    task = json.loads((folder / "task.json").read_text(encoding="utf-8"))
    task["template"] = "Weather: {text}\nTone:"
    (folder / "task.json").write_text(json.dumps(task), encoding="utf-8")
    label = read_rows(made.prepared, "test")[0].label
    rows = [
        Row(
            f"w:{place}",
            f"Weather: day {place}\nTone:",
            f" {label}",
            label=label,
            key=f"day {place}",
            group=str(place // 2),
        )
        for place in range(ROWS)
    ]
    splits: dict[Split, list[Row]] = dict.fromkeys(SPLITS, rows[:2]) | {"test": rows}
    for split, own in splits.items():
        write_rows(folder, split, own)
    write_identities(folder, splits)
    return folder


def opened(made: Project, wanted: WantedRows, methods: tuple[str, ...] = ("reft",)) -> list[Untrained]:
    return untrained_tasks(wanted, methods, params(), root=made.root, base=made.base, prepared=made.prepared)


def run(made: Project, out: Path, wanted: WantedRows, seeds: tuple[int, ...] = (3, 4)) -> Comparison:
    return comparing.run(
        params({"methods": LORA, "seeds": list(seeds)}), root=made.root, base=made.base, prepared=made.prepared,
        search=made.root / "search", out=out, untrained=wanted,
    )  # fmt: skip


def test_each_model_that_is_asked_test_rows_is_asked_the_others_too(made: Project, other: Path, tmp_path: Path) -> None:
    found = run(made, tmp_path / "out", WantedRows(prepared=(other,), limit=6))
    (task,) = found.others
    assert [row.id for row in task.rows] == [f"w:{place}" for place in range(6)]
    assert sorted(set(task.groups)) == [0, 1, 2]
    ((_, tuning, cells),) = found.lines
    assert [dict(cell.others) for cell in tuning] == [{}, {}]  # a learning rate is not chosen by it
    assert task.title == "other/prepared"
    assert [len(cell.others[task.key]) for cell in (found.base, *cells)] == [6, 6, 6]
    workspace = open_workspace(params().computation(), root=made.root, base=made.base, prepared=made.prepared)
    model = ReftModel(workspace.base, ReftConfig((0,), "l1", 1), seed=0)
    family = open_family(task.family.spec)
    with model.disabled():
        said = answers(workspace, family, model, task.rows, batch_size=2, title="rows")
    assert found.base.others[task.key] == tuple(family.scores(task.rows, said))
    with (tmp_path / "out" / "untrained.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert list(rows) == [BASE, "LoRA"]
    runs, frozen = [np.array(cell.others[task.key]) for cell in cells], np.array(found.base.others[task.key])
    assert float(rows["LoRA"]["change"]) == pytest.approx(np.mean(runs) - frozen.mean())
    assert float(rows[BASE]["value"]) == pytest.approx(frozen.mean())
    assert rows[BASE]["change"] == ""
    said_of = (tmp_path / "out" / "table.md").read_text(encoding="utf-8")
    assert "Tasks that no method was trained on (other/prepared: " in said_of
    assert "accuracy on 6 test rows" in said_of


def test_models_are_trained_anew_for_new_rows_alone(made: Project, other: Path, tmp_path: Path) -> None:
    """Without such tasks, with the same ones in a folder of another name, in another order, or with some of them, what
    was measured is found; with new ones the models are trained again, to the same figures."""
    few, more = WantedRows(prepared=(other,), limit=4), WantedRows(prepared=(other,), limit=5)
    run(made, tmp_path / "alone", WantedRows(), seeds=(5,))
    alone = cell_files(made)
    found = run(made, tmp_path / "with", few, seeds=(5,))
    anew = {name for name, changed in cell_files(made).items() if changed != alone.get(name)}
    assert sorted(name.split("-")[0] for name in anew) == ["base", "lora"]  # not those that chose the learning rate
    run(made, tmp_path / "more", more, seeds=(5,))
    kept = cell_files(made)
    second = made.root / "moved" / "prepared"
    shutil.copytree(other, second)
    for wanted in (WantedRows(), few, more, replace(few, prepared=(second,))):
        again = run(made, tmp_path / "again", wanted, seeds=(5,))
        assert again.base.scores == found.base.scores
        assert cell_files(made) == kept
    assert "moved/prepared" in (tmp_path / "again" / "untrained.csv").read_text(encoding="utf-8")
    run(made, tmp_path / "alone again", WantedRows(), seeds=(5,))
    assert not (tmp_path / "alone again" / "untrained.csv").exists()


def test_the_same_rows_are_named_once(made: Project, other: Path) -> None:
    second = made.root / "second" / "prepared"
    shutil.copytree(other, second)
    with pytest.raises(PipelineError, match=r"each task is named once. Got: other/prepared and second/prepared"):
        opened(made, WantedRows(prepared=(other, second)))
    with pytest.raises(PipelineError, match="each task and each folder is named once"):
        opened(made, WantedRows(prepared=(other, other / ".." / "prepared")))
    with pytest.raises(PipelineError, match=r"at least one row is asked\. Got: 0"):
        opened(made, WantedRows(prepared=(other,), limit=0))


def test_rows_that_are_nearly_trained_on_are_left_out(made: Project, other: Path, tmp_path: Path) -> None:
    """By what differs between prompts: two templates that share most of their signs make no rows near."""
    rows = read_rows(other, "test")
    assert opened(made, WantedRows(prepared=(other,)))[0].left_out == 0
    trained = read_rows(made.prepared, "train")[0].prompt.split("\n")[0].partition(":")[2].strip()
    folder = tmp_path / "near"
    shutil.copytree(other, folder)
    near = replace(rows[2], prompt=f"Weather: {trained.upper()}\nTone:")
    write_rows(folder, "test", [*rows[:2], near, *rows[3:]])
    (found,) = opened(made, WantedRows(prepared=(folder,), limit=4))
    assert ([row.id for row in found.rows], found.left_out) == (["w:0", "w:1", "w:3", "w:4"], 1)


def test_the_trained_task_is_refused_with_another_template_too(made: Project, tmp_path: Path) -> None:
    folder = tmp_path / "again"
    shutil.copytree(made.prepared, folder)
    task = json.loads((folder / "task.json").read_text(encoding="utf-8"))
    (folder / "task.json").write_text(json.dumps(task | {"template": "Comment: {text}\nTone:"}), encoding="utf-8")
    with pytest.raises(PipelineError, match=r"must be another one. Got: .*again, which has \d+ rows of this project"):
        opened(made, WantedRows(prepared=(folder,)))


def test_rows_that_methods_are_trained_on_are_left_out(made: Project, other: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    shutil.copytree(other, folder)
    lines = (made.prepared / "identities.jsonl").read_text(encoding="utf-8").splitlines()
    trained = next(one for one in map(json.loads, lines) if one["split"] == "train")
    own = [json.loads(line) for line in (folder / "identities.jsonl").read_text(encoding="utf-8").splitlines()]
    place = next(place for place, one in enumerate(own) if one["split"] == "test" and one["id"] == "w:3")
    own[place] |= {"text": trained["text"]}
    (folder / "identities.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in own), encoding="utf-8")
    (found,) = opened(made, WantedRows(prepared=(folder,)))
    assert (len(found.rows), found.left_out) == (ROWS - 1, 1)
    assert "w:3" not in {row.id for row in found.rows}


def test_the_task_that_is_trained_is_refused_before_a_base_is_loaded(
    made: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing, "open_workspace", lambda *_, **__: pytest.fail("a base is loaded"))
    with pytest.raises(
        PipelineError, match=r"must be another one. Got: data/prepared, which has \d+ rows of this project"
    ):
        run(made, tmp_path, WantedRows(prepared=(made.prepared,)))
    with pytest.raises(PipelineError, match=r"the file must exist. Got: .*task\.json"):
        run(made, tmp_path, WantedRows(prepared=(tmp_path,)))


def test_a_method_that_reads_a_number_needs_one_in_each_row(made: Project, other: Path) -> None:
    assert opened(made, WantedRows(prepared=(other,)), ("reft", "lora"))
    with pytest.raises(PipelineError, match=r"where time_lora is compared.*none in w:0.*--method"):
        opened(made, WantedRows(prepared=(other,)), ("reft", "time_lora"))


def changes(base: tuple[float, ...], runs: list[list[tuple[float, ...]]], other: Path) -> list[Change]:
    """Of one method with these scores, runs of each of several tasks."""
    task = open_family(read_task(other))
    rows = [Row(f"r:{place}", f"row {place}", " x") for place in range(len(base))]
    tasks = [Untrained(f"task {place}", task, rows, 0, str(place)) for place in range(len(runs))]
    frozen = Cell(BASE, "test", None, None, 0.5, (1.0,), 0, 0, 0.0, 0.0, 0.0, None, (1.0, 2.0), {})
    frozen = replace(frozen, others={one.key: base for one in tasks})
    cells = tuple(
        replace(
            frozen, name="LoRA", seed=seed, others={one.key: own[seed] for one, own in zip(tasks, runs, strict=True)}
        )
        for seed in range(len(runs[0]))
    )
    (method,) = contenders(params({"methods": LORA}), best=Path("none"))
    lines = ((method, (), cells),)
    found = Comparison(Proportion("accuracy"), frozen, lines, {}, each_alone(1), each_alone(2), tuple(tasks))
    return [one for one in changes_of(found, params().evaluate) if one.method == "LoRA"]


def test_a_change_is_told_by_the_exact_test_and_by_holm_over_the_methods_tasks(other: Path) -> None:
    """Six rows lost of forty and none won: 2 (1/2)^6, which stands for one task and falls for two."""
    base, lost = (1.0,) * 40, (0.0,) * 6 + (1.0,) * 34
    (alone,) = changes(base, [[lost]], other)
    assert alone.change is not None
    assert (alone.change.value, alone.p_value, alone.verdict) == (
        pytest.approx(-0.15),
        pytest.approx(2 / 2**6),
        "worse",
    )
    first, second = changes(base, [[lost], [base]], other)
    assert (first.adjusted_p_value, first.verdict) == (pytest.approx(4 / 2**6), "not more than chance")
    assert second.change is not None
    assert (second.change.value, second.verdict) == (0.0, "not more than chance")
    (few,) = changes(base[:4], [[lost[:4]]], other)
    assert few.verdict == "too few rows"


def test_the_change_of_several_seeds_is_that_of_their_mean(other: Path) -> None:
    base = (1.0, 0.0) * 20
    (one,) = changes(base, [[(1.0,) * 40, (0.0,) * 40]], other)
    assert one.change is not None
    assert one.change.value == pytest.approx(0.0)
    assert one.change.low < 0 < one.change.high
