"""The stage search on a real, tiny model: exact counts, failures, confirmation, resumption after kill -9."""

from __future__ import annotations

import dataclasses
import json
import math
import multiprocessing
import os
import random
import signal
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import torch
import yaml
from optuna.trial import TrialState

from pipelines.contracts.prepared import read_rows
from pipelines.errors import PipelineError
from pipelines.model.workspace import open_workspace
from pipelines.project.settings import StudySettings
from pipelines.runtime.process import begin_process
from pipelines.search import trial, worker
from pipelines.search.folds import OF_TRIALS
from pipelines.search.next_step import other_seeds
from pipelines.search.study import ERROR, INTERRUPTED, open_study
from pipelines.search.worker import run_until_target
from pipelines.stages import search
from pipelines.stages.search import SearchResult
from pipelines.tasks.family import open_family
from pipelines.tracking.live import live_run
from pipelines.upkeep.estimate import estimate
from reft import NonFiniteLossError
from reft.cone.keeper import ConeConfig, filling_seconds, set_cone
from tests.searching import Project, make_context, make_params
from tests.servers import wait_for


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project whose base and data are made, with a store of its own."""
    root = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFT_HOME", str(root / "home"))
        yield make_context(root)


@pytest.fixture
def context(made: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The same, with databases and outputs of this test's own."""
    monkeypatch.setenv("REFT_HOME", str(made.root / "home"))
    return dataclasses.replace(made, root=tmp_path)


def run(context: Project, **changes: Any) -> SearchResult:
    params = make_params({f"search.{key}": value for key, value in changes.items()})
    out, metrics = context.root / "search", context.root / "search.json"
    return search.run(params, root=context.root, base=context.base, prepared=context.prepared, out=out, metrics=metrics)


def trials(context: Project) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((context.root / "search" / "trials.json").read_text(encoding="utf-8"))
    return found


def best(context: Project) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((context.root / "search" / "best.yaml").read_text(encoding="utf-8"))
    return found


def test_a_study_has_exactly_the_trials_asked_for_and_grows_by_the_rest(context: Project) -> None:
    assert run(context, trials=2).complete == 2
    first = trials(context)
    result = run(context, trials=3)
    assert (result.complete, result.pruned, result.failed) == (3, 0, 0)
    assert trials(context)[:2] == first
    assert result.first_value == first[0]["value"]
    for record in trials(context):
        assert record["seed"] == 42
        assert record["parameters"] == (2 * 32 + 1) * record["params"]["rank"]
        assert record["tokens"] > 100
        assert record["memory_mb"] > 10
        assert record["seconds"] > 0
        assert set(record["intermediate"]) == {"2"}  # one step has one report, the last
    assert run(context, trials=3) == result  # nothing to do, and nothing is loaded


def test_what_the_trials_share_is_not_charged_to_the_first_of_them(context: Project) -> None:
    """Equal trials but for the rate: the first computes the constants of base and rows, the second finds them."""
    point = {"layers": "upper-third", "positions": "l4", "rank": 2}
    first = [{**point, "learning_rate": rate} for rate in (0.01, 0.02)]
    result = run(context, trials=2, enqueue=first)
    one, two = trials(context)
    assert one["fill_seconds"] > 0
    assert two["fill_seconds"] == 0
    assert one["seconds"] > 0
    assert result.fill_seconds == round(one["fill_seconds"], 1)


@pytest.mark.parametrize("method", ["reft", "lora", "prompt", "lora_then_reft"])
def test_the_base_is_asked_by_the_passes_of_the_trials(context: Project, method: str) -> None:
    """Of these passes the cone's alone compute constants, and ReFT alone has one: in half precision they differ."""
    params = make_params({"method.name": method})
    workspace = open_workspace(params.computation(), root=context.root, base=context.base, prepared=context.prepared)
    set_cone(workspace.base, ConeConfig())
    rows = {split: workspace.rows(split)[:8] for split in worker.SPLITS}
    task = open_family(workspace.task)
    with live_run(params.tracking, context.root, "search", "key", "search") as live:
        given = trial.TrialContext(StudySettings.of(params), workspace, task, rows["train"], rows["validation"], live)
        assert 0 <= trial.base_value(given, OF_TRIALS) <= 1
    assert (filling_seconds(workspace.base) > 0) == (method == "reft")


def test_best_yaml_says_where_its_recipe_came_from(context: Project) -> None:
    run(context, trials=1)
    assert best(context)["origin"].startswith("written by hand: ")
    run(context, trials=1, enqueue=[])
    assert best(context)["origin"].startswith("taken from search.space by chance")


def test_a_failed_trial_keeps_its_error_and_is_never_chosen(context: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch raises where memory is not enough is turned into ours, on the CPU too, and the search goes on."""
    real, sizes = trial.build_model, iter(["memory", "allocator"])

    def broken(workspace: Any, recipe: Any, *, seed: int) -> Any:
        if recipe.rank == 4:
            if next(sizes) == "memory":
                raise MemoryError("too large")
            torch.empty(2**44)  # 64 TiB, which torch's allocator refuses with a RuntimeError
        return real(workspace, recipe, seed=seed)

    monkeypatch.setattr(trial, "build_model", broken)
    result = run(context, trials=4, **{"space.rank": [2, 4], "space.learning_rate": [0.01], "enqueue": []})
    assert (result.complete, result.failed) == (2, 2)
    failed = [record for record in trials(context) if record["state"] == "fail"]
    assert all(record["error"].startswith("OutOfMemoryError: there must be enough memory. Got: ") for record in failed)
    assert ["MemoryError: too large" in record["error"] for record in failed] == [True, False]
    assert "can't allocate memory" in failed[1]["error"]
    assert {record["value"] for record in failed} == {None}
    assert best(context)["chosen"]["rank"] == 2


@pytest.mark.parametrize("bug", [IndexError("out of range"), ValueError("bad"), RuntimeError("odd"), KeyError("none")])
def test_an_error_out_of_our_own_code_ends_the_search_and_its_trial_keeps_it(
    context: Project, monkeypatch: pytest.MonkeyPatch, bug: Exception
) -> None:
    def broken(*_args: Any, **_kwargs: Any) -> Any:
        raise bug

    monkeypatch.setattr(trial, "build_model", broken)
    with pytest.raises(type(bug)) as raised:
        run(context, trials=3)
    assert raised.value is bug
    with closing(sqlite3.connect(context.root / ".reft" / "optuna.db")) as database:
        [(name,)] = database.execute("select study_name from studies").fetchall()
    [begun] = open_study(context.params.search, context.root, name=name).trials()
    assert begun.state is TrialState.FAIL
    assert begun.user_attrs[ERROR] == f"{type(bug).__name__}: {bug}"


@pytest.mark.parametrize("spoiled", ["suggest", "build_model"])
def test_a_value_error_of_a_trial_is_told_from_one_of_a_trial_that_others_closed(
    context: Project, monkeypatch: pytest.MonkeyPatch, spoiled: str
) -> None:
    """Optuna raises a ValueError too, for a trial that another machine gave up; before a trial's first note as well."""

    def broken(*_args: Any, **_kwargs: Any) -> Any:
        raise ValueError("a bug")

    monkeypatch.setattr(trial, spoiled, broken)
    with pytest.raises(ValueError, match="a bug"):
        run(context, trials=1)


def test_a_loss_that_is_no_number_fails_its_trial(context: Project) -> None:
    """A learning rate beyond what float32 holds makes the second step's loss NaN, without any help."""
    rates = [1e38, 0.01]
    changes = {"space.learning_rate": rates, "space.rank": [2], "space.positions": ["l1"], "enqueue": []}
    result = run(context, trials=2, train_rows=16, epochs=6, sampler="grid", **changes)
    assert (result.complete, result.failed) == (1, 1)
    failed = next(record for record in trials(context) if record["state"] == "fail")
    assert failed["error"].startswith(NonFiniteLossError.__name__)
    assert best(context)["chosen"]["learning_rate"] == 0.01


def test_scores_that_are_no_numbers_fail_their_trial(context: Project) -> None:
    """A single step at such a rate has a loss, and leaves weights that overflow when the validation rows are run."""
    changes = {"space.learning_rate": [1e38, 0.01], "space.rank": [2], "space.positions": ["l1"], "enqueue": []}
    result = run(context, trials=2, train_rows=16, sampler="grid", **changes)
    assert (result.complete, result.failed) == (1, 1)
    failed = next(record for record in trials(context) if record["state"] == "fail")
    assert "must be numbers. Got: NaN or infinity for 8 of 8 rows" in failed["error"]
    assert best(context)["chosen"]["learning_rate"] == 0.01


def test_a_trial_is_stopped_as_soon_as_it_is_over_a_limit(context: Project) -> None:
    limits = {"parameters": None, "seconds": 1e-3, "memory_mb": None}
    with pytest.raises(PipelineError, match=r"at least one trial must be complete and within search\.limits"):
        run(context, trials=1, limits=limits, epochs=4)
    params = make_params({"search.trials": 1, "search.epochs": 4, "search.limits": limits})
    [record] = run_until_target(context.search(params)).records
    assert (record.state, record.over) == ("pruned", ("seconds",))
    assert list(record.intermediate) == [1]  # of two reports


def test_a_search_begins_with_the_best_recipe_of_an_earlier_one_on_the_base(context: Project) -> None:
    run(context, trials=3)
    found = best(context)["chosen"]
    run(context, trials=1, earlier=1, enqueue=[], **{"space.rank": [2, 4, 8]})  # another space is another study
    assert trials(context)[0]["params"] == found
    run(context, trials=1, earlier=1, enqueue=[], **{"space.rank": [8, 16]})  # in which that recipe does not lie
    assert trials(context)[0]["params"]["rank"] in (8, 16)


def test_a_space_that_has_fewer_recipes_than_trials_is_tried_whole(
    context: Project, caplog: pytest.LogCaptureFixture
) -> None:
    changes = {"space.learning_rate": [0.01], "space.rank": [2], "enqueue": []}
    assert run(context, trials=9, **changes).complete == 2
    assert "the search ends after 2 of 9 trials: no other recipe of search.space was found" in caplog.text
    assert {record["params"]["positions"] for record in trials(context)} == {"l1", "l4"}


def test_the_best_are_run_with_other_seeds_and_chosen_by_the_mean(context: Project) -> None:
    run(context, trials=3, confirm={"top": 2, "seeds": 2}, train_rows=16)
    confirmed = json.loads((context.root / "search" / "confirmed.json").read_text(encoding="utf-8"))
    assert len(confirmed) == 2
    values = {record["number"]: record["value"] for record in trials(context)}
    for one in confirmed:
        assert one["seeds"] == [42, 43, 44]
        assert one["values"][0] == values[one["trial"]]
        assert one["mean"] == pytest.approx(sum(one["values"][1:]) / 2)
    assert best(context)["value"] == max(one["mean"] for one in confirmed)
    assert other_seeds(make_params()) == []


def test_judged_by_the_loss_the_study_has_the_measure_and_its_pruner_the_loss(context: Project) -> None:
    """A p this low stops nothing, and keeps the probability of each row's right answer."""
    found = run(context, judge="loss", pruner={"name": "wilcoxon", "p": 1e-9, "warmup_reports": 0}, trials=3)
    ended = open_study(context.params.search, context.root, name=found.study).trials()
    for one in ended:
        losses, measured = one.user_attrs["losses"], one.user_attrs["curve"]
        assert one.intermediate_values == {int(report): -value for report, value in losses.items()}
        assert one.values == [measured["2"]]
        assert all(float(8 * share).is_integer() for share in measured.values()), "of eight rows"
        for report in losses:
            nats = [-math.log(likely) for likely in one.user_attrs[f"scores:{report}"]]
            assert losses[report] == pytest.approx(mean(nats), rel=1e-2)
    lowest = min(ended, key=lambda one: one.user_attrs["losses"]["2"])
    assert (found.best_trial, found.best_value) == (lowest.number, lowest.values[0])
    assert [each["loss"] for each in trials(context)] == [one.user_attrs["losses"]["2"] for one in ended]


def test_of_several_objectives_there_is_a_front_and_one_is_chosen(context: Project) -> None:
    objectives = ["accuracy", "parameters", "seconds", "memory_mb"]
    run(context, trials=3, objectives=objectives, choose="smallest")
    for record in trials(context):
        assert record["values"][:3] == [record["value"], record["parameters"], record["seconds"]]
        assert record["values"][3] == pytest.approx(record["memory_mb"], rel=0.01)
        assert record["intermediate"]
    fewest = min(record["parameters"] for record in trials(context))
    assert next(r for r in trials(context) if r["number"] == best(context)["trial"])["parameters"] == fewest


def test_a_trial_over_a_limit_is_noted_and_not_chosen(context: Project) -> None:
    result = run(context, trials=2, limits={"parameters": 200, "seconds": None, "memory_mb": 1e6}, seconds=1e-3)
    assert result.complete == 1  # the budget of a thousandth of a second is spent by one
    assert trials(context)[0]["parameters"] == 130
    assert trials(context)[0]["over"] == []


def test_an_estimate_says_what_there_is_to_try_and_how_long_it_takes(context: Project) -> None:
    changes = {"search.space.learning_rate": [0.01, 0.02, 0.03], "search.enqueue": [], "search.trials": 99}
    settings = StudySettings.of(make_params({**changes, "search.confirm": {"top": 3, "seeds": 2}}))
    found = estimate(settings, root=context.root, base=context.base, prepared=context.prepared)
    assert list(found.space) == ["layers", "positions", "rank", "learning_rate"]
    assert list(found.space.values()) == ["upper-third", "l1 | l4", "2 | 4", "0.01 | 0.02 | 0.03"]
    assert (found.points, found.trials, found.confirmations, found.missing) == (12, 12, 6, None)
    assert found.smallest is not None
    assert found.largest is not None
    assert (found.smallest.parameters, found.largest.parameters) == ((2 * 32 + 1) * 2, (2 * 32 + 1) * 4)
    assert found.seconds is not None
    ends = (found.smallest, found.largest, found.quickest, found.slowest)
    each = [18 * (end.trial_seconds or 0.0) for end in ends if end is not None]
    assert found.seconds == pytest.approx((min(each), max(each)))
    assert 0 < found.seconds[0] < 600
    assert not (context.root / ".reft" / "optuna.db").exists()
    unprepared = estimate(settings, root=context.root, base=context.base, prepared=context.root / "nowhere")
    assert unprepared.missing == "the data: dvc repro prepare"
    assert unprepared.largest is not None
    assert (unprepared.largest.parameters, unprepared.seconds) == (260, None)
    nothing = estimate(settings, root=context.root, base=context.root / "nowhere.json", prepared=context.prepared)
    assert (nothing.missing, nothing.smallest) == ("the base: dvc repro base", None)


def test_no_trial_depends_on_a_test_row(context: Project, tmp_path: Path) -> None:
    """Other test rows, and then none that can be read, change no trial; other validation rows do."""

    def outcome(name: str, split: str, spoil: Any) -> list[Any]:
        folder = tmp_path / name
        folder.mkdir()
        for file in context.prepared.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        spoil(folder / f"{split}.jsonl")
        changes = {"search.trials": 2, "search.confirm": {"top": 1, "seeds": 2}}
        found = run_until_target(dataclasses.replace(context.search(make_params(changes)), prepared=folder))
        runs = [(one.trial, one.values) for one in found.confirmations]
        return [(r.params, r.value, r.intermediate) for r in found.records] + runs + [found.base_confirmed]

    def flip(path: Path) -> None:
        other = {"negative": "positive", "positive": "negative"}
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        rows[0]["label"] = other[rows[0]["label"]]  # one row, since all of them may leave a share of one half as it is
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    plain = outcome("plain", "test", lambda path: None)
    assert outcome("flipped", "test", flip) == plain
    assert outcome("unreadable", "test", lambda path: path.write_bytes(random.Random(0).randbytes(99))) == plain
    assert outcome("validation", "validation", flip) != plain
    assert len(read_rows(context.prepared, "test")) == 8


def test_a_trial_that_another_machine_took_for_dead_is_repeated_and_counts_once(
    context: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a network was away for longer than a heartbeat may be: its process goes on, and finds it closed."""
    real, closed = trial.build_model, []

    def taken_away(workspace: Any, recipe: Any, *, seed: int) -> Any:
        study = open_study(context.params.search, context.root, name=names[0]).study
        if not closed:
            closed.append(study.get_trials()[0].number)
            study.tell(closed[0], state=TrialState.FAIL)
        return real(workspace, recipe, seed=seed)

    names: list[str] = []
    real_open = worker.open_study
    monkeypatch.setattr(worker, "open_study", lambda *a, name: names.append(name) or real_open(*a, name=name))
    monkeypatch.setattr(trial, "build_model", taken_away)
    assert run(context, trials=2).complete == 2
    states = [(record["state"], record["error"]) for record in trials(context)]
    assert states == [("fail", "killed with its process"), ("complete", None), ("complete", None)]
    assert trials(context)[1]["params"] == trials(context)[0]["params"]


def _search_in_a_child(context: Project, changes: dict[str, Any]) -> None:
    run(context, **changes)


def test_a_search_killed_in_a_trial_ends_as_if_nobody_had(context: Project, tmp_path: Path) -> None:
    changes = {"trials": 3, "epochs": 12}
    whole = dataclasses.replace(context, root=tmp_path / "whole")
    run(whole, **changes)
    child = multiprocessing.get_context("fork").Process(target=_search_in_a_child, args=(context, changes))
    child.start()
    database = context.root / ".reft" / "optuna.db"
    reports = "select count(*) from trial_intermediate_values"
    wait_for("report", lambda: _count(database, reports) >= 3, seconds=120, every=0.005)  # the second trial's first
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    result = run(context, **changes)
    assert result.complete == 3
    records = trials(context)
    [killed] = [record for record in records if record["error"] == "killed with its process"]
    assert killed["seconds"] > 0  # which the budget counts
    kept = [(r["params"], r["value"]) for r in records if r is not killed]
    assert kept == [(r["params"], r["value"]) for r in trials(whole)]


def test_a_search_that_is_told_to_stop_does_not_hold_it_against_the_recipe(context: Project) -> None:
    child = multiprocessing.get_context("fork").Process(target=_stage_in_a_child, args=(context, {"epochs": 400}))
    child.start()
    database = context.root / ".reft" / "optuna.db"
    reports = "select count(*) from trial_intermediate_values"
    wait_for("report", lambda: _count(database, reports) >= 1, seconds=120, every=0.05)
    child.terminate()
    child.join(timeout=60)
    assert child.exitcode == 130
    assert _count(database, "select count(*) from trials where state = 'FAIL'") == 1
    assert _count(database, f"select count(*) from trial_user_attributes where key = '{INTERRUPTED}'") == 1


def test_a_trial_that_is_stopped_before_its_first_note_is_no_kill_either(
    context: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(worker, "run_trial", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(context)
    noted = f"select count(*) from trial_user_attributes where key = '{INTERRUPTED}'"
    assert _count(context.root / ".reft" / "optuna.db", noted) == 1


def _stage_in_a_child(context: Project, changes: dict[str, Any]) -> None:
    begin_process()
    try:
        run(context, **changes)
    except KeyboardInterrupt:
        sys.exit(130)


def _count(database: Path, query: str) -> int:
    if not database.is_file():
        return 0
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)) as connection:
        try:
            return int(connection.execute(query).fetchone()[0])
        except sqlite3.OperationalError:  # not made yet
            return 0
