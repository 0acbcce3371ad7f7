"""What a search shows beside its figures: progress while it runs, its report in MLflow, the study in a dashboard."""

from __future__ import annotations

import io
import json
import logging
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import optuna
import pytest
from rich.console import Console

from flows.commands.search_tables import estimate_table
from flows.runs.cards import search_card
from pipelines.contracts.search import read_search
from pipelines.contracts.trials import read_trials
from pipelines.errors import PipelineError
from pipelines.project.settings import StudySettings
from pipelines.stages import search
from pipelines.stages.search import SearchResult
from pipelines.tracking.live import live_run, log_report
from pipelines.tracking.runs import child_tags, find_run, open_store
from pipelines.tracking.store import trials_uri
from pipelines.upkeep import dashboard
from pipelines.upkeep.estimate import estimate
from tests.searching import Project, make_context, make_params
from tests.servers import free_port, wait_for

CHANGES: dict[str, Any] = {"trials": 2, "train_rows": 16, "epochs": 2, "confirm": {"top": 1, "seeds": 1}}
STORE = {"tracking.uri": "sqlite:///mlflow/mlflow.db"}


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Project, SearchResult, str]]:
    """A project after its search, what the stage returned, and what it wrote on the terminal."""
    root = tmp_path_factory.mktemp("searched")
    with pytest.MonkeyPatch.context() as patch, (root / "said").open("w+") as said:
        patch.setenv("REFT_HOME", str(root / "home"))
        patch.setattr(sys, "stderr", said)
        context = make_context(root)
        params = make_params({**STORE, **{f"search.{key}": value for key, value in CHANGES.items()}})
        out, metrics = root / "search", root / "metrics" / "search.json"
        result = search.run(params, root=root, base=context.base, prepared=context.prepared, out=out, metrics=metrics)
        said.seek(0)
        yield Project(params, root, context.base, context.prepared), result, said.read()


def test_progress_tells_the_best_so_far_with_its_recipe(searched: tuple[Project, SearchResult, str]) -> None:
    _, result, said = searched
    lines = re.split(r"[\r\n]+", said)  # a bar is drawn again after a carriage return
    trials = [line for line in lines if re.fullmatch(r"trial-\d: layers .*: accuracy [\d.]+", line)]
    assert len(trials) == 2
    best = max(float(line.rpartition(" ")[2]) for line in trials)
    assert f"best {best:.3f} by trial-{result.best_trial}: layers upper-third, positions " in said


def test_the_stage_leaves_a_report_with_the_frozen_base_in_it(
    searched: tuple[Project, SearchResult, str],
) -> None:
    context, result, _ = searched
    page = (context.root / "search" / "report.html").read_text(encoding="utf-8")
    assert f"Trial {result.best_trial} won" in page
    assert result.base_value is not None
    assert f"frozen base {100 * result.base_value:.1f} %" in page
    assert result.confirm_seconds > 0


def test_the_report_and_the_learning_curves_are_in_mlflow(searched: tuple[Project, SearchResult, str]) -> None:
    context, result, _ = searched
    store = open_store(context.params.tracking, context.root)
    (run,) = store.client.search_runs(
        [store.experiment_id], filter_string=f"tags.`reft.input_hash` = '{result.input_hash}'"
    )
    assert [item.path for item in store.client.list_artifacts(run.info.run_id, "search")] == ["search/report.html"]
    assert (run.info.status, run.info.run_name) == ("FINISHED", f"{context.root.name} {result.study}")
    study = optuna.load_study(study_name=result.study, storage=trials_uri(context.params.search.storage, context.root))
    assert study.user_attrs["project"] == context.root.name
    kept = json.loads((context.root / "search" / "trials.json").read_text(encoding="utf-8"))
    parent = find_run(store, {"reft.input_hash": result.input_hash})
    assert parent is not None
    for trial in kept:
        child = find_run(store, child_tags(parent, f"trial-{trial['number']}"))
        assert child is not None
        curve = store.client.get_metric_history(child.id, "validation_accuracy")
        assert [point.value for point in curve] == list(trial["intermediate"].values())
        logged = store.client.get_run(child.id).data
        assert logged.tags["reft.state"] == "complete"
        for cost in ("parameters", "seconds", "tokens"):
            assert logged.metrics[cost] == trial[cost]


def test_a_report_goes_to_the_run_of_its_trials_and_waits_for_a_store_that_is_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, searched: tuple[Project, SearchResult, str]
) -> None:
    context, _, _ = searched
    report = tmp_path / "report.html"
    report.write_text("<!doctype html>", encoding="utf-8")
    with live_run(context.params.tracking, context.root, "search", "0123", "search-0123") as live:
        live.log_params({"trials": 1})
    log_report(context.params.tracking, context.root, study="search-0123", input_hash="0123", report=report)
    store = open_store(context.params.tracking, context.root)
    (run,) = store.client.search_runs([store.experiment_id], filter_string="tags.`reft.input_hash` = '0123'")
    assert run.data.params == {"trials": "1"}
    assert [item.path for item in store.client.list_artifacts(run.info.run_id, "search")] == ["search/report.html"]
    with caplog.at_level(logging.WARNING):
        log_report(make_params().tracking, context.root, study="search-0123", input_hash="0123", report=report)
    assert "register logs it later" in caplog.text


def test_the_card_on_the_runs_page_says_what_won_and_links_the_report(
    searched: tuple[Project, SearchResult, str],
) -> None:
    context, result, _ = searched
    figures = read_search(context.root / "metrics" / "search.json")
    trials = read_trials(context.root / "search" / "trials.json")
    page = context.root / "search" / "report.html"
    card = search_card(figures, trials, page=page)
    assert f"# Search: trial {result.best_trial} won" in card
    assert figures.base_value is not None
    assert f"| the frozen base | {100 * figures.base_value:.1f} % |" in card
    assert f"[report.html]({page.as_uri()})" in card
    assert "2 trials (2 complete, 0 pruned, 0 failed) in " in card


def test_the_plan_tells_what_is_small_and_what_is_slow(searched: tuple[Project, SearchResult, str]) -> None:
    """`reft search --dry-run`: a recipe that is two things at once stands there once, with its measured step."""
    context, _, _ = searched
    changes = {**STORE, "search.space.positions": ["l1", "f1+l1"], "search.space.rank": [2], "search.enqueue": []}
    settings = StudySettings.of(make_params({**changes, "search.space.learning_rate": [0.01, 0.02]}))
    console = Console(record=True, width=200, file=io.StringIO())
    console.print(estimate_table(estimate(settings, root=context.root, base=context.base, prepared=context.prepared)))
    said = console.export_text()
    assert re.search(r"points of the space +\S+ 4 ", said)
    assert re.search(
        r"smallest and largest and quickest recipe +\S+ 130 parameters \(.*positions l1,.* s a step, ", said
    )
    assert re.search(r"slowest recipe +\S+ 130 parameters \(.*positions f1\+l1,.* s a step, ", said)
    assert "on one process, without what the pruner saves" in said


def test_without_the_package_the_dashboard_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, searched: tuple[Project, SearchResult, str]
) -> None:
    context, _, _ = searched
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)
    with pytest.raises(PipelineError, match=r"pip install 'WHEEL\[dashboard\]'"):
        dashboard.serve(context.params, context.root, port=8080)


needs_dashboard = pytest.mark.skipif(find_spec("optuna_dashboard") is None, reason="optuna-dashboard is not installed")


@needs_dashboard
def test_a_taken_port_and_a_storage_without_a_study_are_told(
    tmp_path: Path, searched: tuple[Project, SearchResult, str]
) -> None:
    context, _, _ = searched
    with pytest.raises(PipelineError, match="must hold a study"):
        dashboard.serve(context.params, tmp_path, port=8080)
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(PipelineError, match="must be free"):
        dashboard.serve(context.params, context.root, port=server.getsockname()[1])


def _studies(port: int) -> set[str] | None:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/studies", timeout=60) as answer:
            return {study["study_name"] for study in json.load(answer)["study_summaries"]}
    except urllib.error.URLError:
        return None


@needs_dashboard
@pytest.mark.slow
def test_the_dashboard_shows_the_study(searched: tuple[Project, SearchResult, str]) -> None:
    context, result, _ = searched
    port = free_port()
    code = (
        "import sys; from pathlib import Path; from pipelines.upkeep.dashboard import serve; "
        "from pipelines.params.whole import load_params; root = Path(sys.argv[1]); "
        "serve(load_params(root / 'params.yaml'), root, port=int(sys.argv[2]))"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(context.root), str(port)]) as process:
        try:
            names = wait_for("dashboard", lambda: _studies(port), seconds=120, every=0.2)
            assert {result.study, f"{result.study}-confirm"} <= names
        finally:
            process.terminate()
