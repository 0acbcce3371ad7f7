"""An adapter of any origin beside its base: the figures of stage evaluate, and no row asked twice."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.contracts.base import read_base
from pipelines.contracts.identities import seen_of
from pipelines.contracts.prepared import Row, read_rows, write_rows
from pipelines.contracts.task import write_task
from pipelines.errors import PipelineError
from pipelines.evaluation import ask as asking
from pipelines.evaluation.alone import Evaluated, evaluate_adapter
from pipelines.evaluation.kept import KeptAnswers
from pipelines.evaluation.rows import library_task, rows_of
from pipelines.evaluation.wanted import WantedRows, every_asked, opened_systems
from pipelines.exchange.export import export_adapter
from pipelines.exchange.imports import DeclaredSettings
from pipelines.exchange.named import Naming, layout_of
from pipelines.files import read_json, write_json
from pipelines.model.scores import answers
from pipelines.model.workspace import open_workspace
from pipelines.params.whole import Params
from pipelines.project.graph import read_graph
from pipelines.registry.contest import identities_of
from pipelines.stages.evaluate import compare
from pipelines.upkeep.leftovers import leftovers
from reft.adapters.any_method import load_method
from tests.pipelines.evaluation.conftest import ROWS, small_batches
from tests.pipelines.finished import make_params
from tests.reft.formats import test_adapterhub_directory as theirs

PROJECTS = WantedRows()


def evaluated(
    name: str | None, project: Path, params: Params, wanted: WantedRows = PROJECTS, **naming: Any
) -> Evaluated:
    with opened_systems([name], Naming(project, **naming)) as (system,):
        (found,) = evaluate_adapter(system, every_asked(wanted, [system], params, root=project), params, root=project)
    return found


class Counted:
    """Counts the rows that models are asked, and is stopped after some calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, calls: int = 1000) -> None:
        self.rows: list[str] = []
        self._ask, self._left = asking.ask, calls
        monkeypatch.setattr(asking, "ask", self)

    def __call__(self, model: Any, tokenizer: Any, task: Any, rows: Sequence[Row], **words: Any) -> Any:
        if self._left == 0:
            raise KeyboardInterrupt
        self._left -= 1
        self.rows += [row.id for row in rows]
        return self._ask(model, tokenizer, task, rows, **words)


def test_the_figures_are_those_of_the_stage(project: Path, params: Params) -> None:
    """Worked out by the stage's own path: one model of the adapter, switched off for the base, all rows at once."""
    places = {"base": project / "models" / "base.json", "prepared": project / "data" / "prepared"}
    workspace = open_workspace(params.computation(), root=project, **places)
    model = load_method(project / "models" / "adapter", workspace.base, base_sha256=workspace.base_sha256)
    rows, task = workspace.rows("test"), workspace.family
    said = answers(workspace, task, model, rows, batch_size=2, title="adapter")
    with model.disabled():
        frozen = answers(workspace, task, model, rows, batch_size=2, title="base")
    found = evaluated(None, project, params)
    sha256 = found.evaluation.adapter_sha256
    assert found.evaluation == compare(
        task, rows, said, frozen, params.evaluate, seed=params.seed, adapter_sha256=sha256
    )
    assert found.anew == 2 * ROWS


def test_what_was_stopped_goes_on_and_nothing_is_asked_twice(
    project: Path, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 20 rows, 8 are asked in one go (4 batches of 2): the third goes with the process, 16 are kept."""
    whole = evaluated(None, project, params).evaluation
    shutil.rmtree(project / ".reft" / "answers")
    with monkeypatch.context() as patch:
        stopped = Counted(patch, calls=2)
        with pytest.raises(KeyboardInterrupt):
            evaluated(None, project, params)
        assert len(stopped.rows) == 16
    resumed = Counted(monkeypatch)
    found = evaluated(None, project, params)
    assert resumed.rows[:4] == [f"a:{line}" for line in (17, 18, 19, 20)]  # then the base
    assert (len(resumed.rows), found.anew) == (4 + ROWS, 4 + ROWS)
    assert found.evaluation == whole
    again = evaluated(None, project, params)
    assert (again.anew, again.evaluation) == (0, whole)


def test_more_rows_of_the_same_are_asked_alone_and_another_adapter_shares_the_base(
    project: Path, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated(None, project, params, WantedRows(limit=8))
    counted = Counted(monkeypatch)
    assert evaluated(None, project, params, WantedRows(limit=12)).evaluation.rows == 12
    assert counted.rows == [f"a:{line}" for line in range(9, 13)] * 2
    counted.rows.clear()
    evaluated(str(project / "models" / "other"), project, params, WantedRows(limit=12))
    assert counted.rows == [f"a:{line}" for line in range(1, 13)]  # by the adapter; the base had answered them


def test_answers_that_are_damaged_or_of_other_settings_are_asked_again(
    project: Path, params: Params, caplog: pytest.LogCaptureFixture
) -> None:
    evaluated(None, project, params, WantedRows(limit=8))
    path = sorted((project / ".reft" / "answers").glob("*/*/*.json"))[0]
    raw = read_json(path)
    write_json(path, dict.fromkeys(raw, True))
    assert evaluated(None, project, params, WantedRows(limit=8)).anew == 8
    assert "damaged" in caplog.text or (path.parent / f"{path.name}.damaged").is_file()
    other = params.model_copy(update={"evaluate": params.evaluate.model_copy(update={"batch_size": 4})})
    assert evaluated(None, project, other, WantedRows(limit=8)).anew == 16


def test_adapters_of_other_origins_have_the_figures_of_the_one_that_they_are(
    project: Path, params: Params, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Written by this project as pyreft's directory, and as a hub's repository, which says its base itself."""
    own = evaluated(None, project, params).evaluation
    for layout in ("pyreft", "hub"):
        export_adapter(None, tmp_path / layout, layout=layout, root=project)  # type: ignore[arg-type]
    published = evaluated(str(tmp_path / "hub"), project, params)
    assert (published.evaluation, published.anew) == (own, 0)  # the same content was asked before
    assert published.unknown == ("hub",)  # tests/pipelines/finished says other rows than the project's
    imported = evaluated(str(tmp_path / "pyreft"), project, params, declared=DeclaredSettings(positions="l1"))
    assert imported.adapter == "pyreft (pyreft)"
    assert replace(imported.evaluation, adapter_sha256=own.adapter_sha256) == own
    assert "the activation is taken to be linear" in caplog.text


def test_layouts_are_told_apart_by_their_files(project: Path, tmp_path: Path) -> None:
    export_adapter(None, tmp_path / "pyreft", layout="pyreft", root=project)
    (tmp_path / "trainer").mkdir()
    shutil.copytree(tmp_path / "pyreft", tmp_path / "trainer" / "intervenable_model")
    theirs.make(tmp_path / "hub")
    found = [layout_of(tmp_path / name) for name in ("pyreft", "trainer", "hub")]
    assert found == ["pyreft", "pyreft", "adapterhub"]
    assert layout_of(project / "models" / "adapter") == layout_of(tmp_path) == "own"


def test_an_adapterhub_directory_is_asked(
    project: Path, params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its units are at the two layers of the tiny base, and as wide."""
    monkeypatch.setattr(theirs, "HIDDEN", read_base(project / "models" / "base.json").hidden_size)
    theirs.make(tmp_path / "movies", layers=[0, 1])
    found = evaluated(str(tmp_path / "movies"), project, params)
    assert (found.adapter, found.evaluation.rows, found.anew) == ("movies (adapterhub)", ROWS, 2 * ROWS)


def test_rows_that_a_version_was_made_with_are_left_out(project: Path) -> None:
    prepared, record = project / "data" / "prepared", read_base(project / "models" / "base.json")
    rows = read_rows(prepared, "test")
    known = [replace(one, split="train") for one in identities_of(prepared, rows)[:3]]
    found = rows_of("rows", prepared, record, limit=5, seen=[seen_of(known)])
    assert ([row.id for row in found.rows], found.left_out) == ([f"a:{line}" for line in range(4, 9)], 3)
    every = seen_of(replace(one, split="train") for one in identities_of(prepared, rows))
    with pytest.raises(PipelineError, match="none of 20"):
        rows_of("rows", prepared, record, limit=None, seen=[every])


def test_what_cannot_be_asked_is_refused_before_a_model_is_loaded(
    project: Path, params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "open_workspace", lambda *_, **__: pytest.fail("a base is loaded"))
    foreign = tmp_path / "foreign"
    shutil.copytree(project / "models" / "adapter", foreign)
    config = read_json(foreign / "adapter_config.json")
    config["base"]["sha256"] = "e" * 64
    write_json(foreign / "adapter_config.json", config)
    for name, rule in {
        str(foreign): r"on the base that it was trained on.*\(eeeeeeeeeeee\)",
        str(tmp_path / "nowhere"): "an adapter is a directory, hub:NAME@COMMIT, or a version",
        f"hub:org/films@{'a' * 40}": "fetched only where that is asked for.*--download",
    }.items():
        with pytest.raises(PipelineError, match=rule):
            evaluated(name, project, params)
    with pytest.raises(PipelineError, match="says all of itself"):
        evaluated(None, project, params, declared=DeclaredSettings(positions="l1"))
    with pytest.raises(PipelineError, match="of a family that the project's adapter was trained on: classification"):
        evaluated(None, project, params, WantedRows(tasks=("gsm8k",), data=_gsm8k(tmp_path)))
    monkeypatch.delenv("REFT_BENCH_DATA", raising=False)
    with pytest.raises(PipelineError, match="no --data, and no variable REFT_BENCH_DATA"):
        evaluated(None, project, params, WantedRows(tasks=("sst2",)))


def _gsm8k(folder: Path) -> Path:
    """A folder that has the task's files; what is in them is not looked at."""
    (folder / "gsm8k").mkdir()
    (folder / "gsm8k" / "train.jsonl").write_text("[]")
    (folder / "gsm8k" / "test.jsonl").write_text("[]")
    return folder


def test_a_base_that_is_not_here_is_fetched_only_where_that_is_asked_for(
    project: Path, params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_adapter(None, tmp_path / "films", layout="hub", root=project)
    raw = read_json(tmp_path / "films" / "base.json")
    write_json(tmp_path / "films" / "base.json", raw | {"source": f"hub:org/tiny@{'a' * 40}"})
    assert evaluated(str(tmp_path / "films"), project, params, WantedRows(limit=2)).anew == 4  # the store has it
    monkeypatch.setenv("REFT_HOME", str(tmp_path / "home"))
    with pytest.raises(PipelineError, match=r"the base of films must be on this machine.*--download"):
        evaluated(str(tmp_path / "films"), project, params)


def test_rows_of_another_kind_may_be_named_as_such(project: Path, params: Params, tmp_path: Path) -> None:
    """`--prepared` asks what an adapter does to a task that it was not trained on; unasked it would be a mistake."""
    other = tmp_path / "prepared"
    shutil.copytree(project / "data" / "prepared", other)
    task = library_task("gsm8k")
    write_task(other, replace(task, settings={**task.settings, "max_new_tokens": 2}))
    write_rows(other, "test", [replace(row, references=("7",)) for row in read_rows(other, "test")])
    found = evaluated(None, project, params, WantedRows(prepared=(other,), limit=2))
    assert found.evaluation.measure == "exact_match"


def test_answers_of_other_code_are_no_longer_needed(project: Path, params: Params) -> None:
    evaluated(None, project, params, WantedRows(limit=2))
    older = project / ".reft" / "answers" / "0123456789abcdef"
    older.mkdir()
    found = leftovers(params, project, read_graph(project))
    assert [(one.kind, one.where) for one in found] == [("answers", str(older))]


def _die_after_one(project: Path, home: str) -> None:
    """In a process of its own: ask, and end as `kill -9` does when the first rows are kept."""
    os.environ["REFT_HOME"] = home
    keep = KeptAnswers.keep

    def last(self: KeptAnswers, rows: Sequence[Row], said: Sequence[Any]) -> None:
        keep(self, rows, said)
        os.kill(os.getpid(), signal.SIGKILL)

    KeptAnswers.keep = last  # type: ignore[method-assign]
    evaluated(None, project, small_batches(make_params()))


@pytest.mark.long
def test_a_process_that_is_killed_loses_nothing_that_was_kept(
    project: Path, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight rows are kept, the process dies with the lock in its hands, and the next one asks the other twelve."""
    child = multiprocessing.get_context("spawn").Process(target=_die_after_one, args=(project, os.environ["REFT_HOME"]))
    child.start()
    child.join(300)
    assert child.exitcode == -signal.SIGKILL
    counted = Counted(monkeypatch)
    assert evaluated(None, project, params).anew == 12 + ROWS
    assert counted.rows[0] == "a:9"
