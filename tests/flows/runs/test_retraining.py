"""Rows arrive while a schedule runs on a real server: trained and promoted, trained and refused, nothing new; then
a rollback, and the next tick."""

from __future__ import annotations

import csv
import itertools
import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pipelines.contracts.prepared import SPLITS, read_rows
from pipelines.contracts.verdict import read_decision
from pipelines.params.whole import load_params
from pipelines.registry.aliases import CHAMPION, PREVIOUS
from pipelines.tracking.runs import open_store
from tests.project import Project, make_tiny_project
from tests.scheduled import Scheduled
from tests.servers import kill, prefect_server

# Four runs of a schedule that is due each minute, on cores that others use as well, are more than 900 seconds.
pytestmark = [pytest.mark.slow, pytest.mark.long]

FOLDER = "data/own/reviews"
WORDS = {"good": ["good", "warm", "bright", "lovely"], "bad": ["bad", "cold", "dull", "awful"]}
KEYS: dict[str, Any] = {
    "prepare.source": f"file:{FOLDER}",
    "prepare.growing": {"validation": 0.2, "test": 0.3},
    "prepare.train_rows": 32,
    "prepare.validation_rows": 8,
    "prepare.test_rows": 8,
    "refresh.search": "last",
    # All weights of the tiny model, which learn the rows whole in 12 epochs, and in one epoch a constant answer.
    "method.name": "full",
    "method.full": {"layers": "all", "embeddings": True, "learning_rate": "searched"},
    "search.space.full": {"learning_rate": {"low": 5.0e-3, "high": 1.0e-2, "log": True}},
    "search.enqueue": [],
    "search.trials": 1,
    "train.epochs": 1,
    # One look of the year may spend 0.245, so that a few rows decide.
    "gate.false_promotions": 0.49,
    "gate.looks": 1,
    "gate.least_rows": 8,
}


def write_week(root: Path, week: int, nouns: list[str]) -> None:
    """A file of rows whose label is the tone of their adjectives; no text stands in two weeks."""
    making = root / FOLDER / f".week-{week}.csv"  # so that no tick takes half of it
    making.parent.mkdir(exist_ok=True)
    with making.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["text", "label"])
        for one, other, place in itertools.product(nouns, nouns, range(4)):
            for label, adjectives in WORDS.items():
                table.writerow([f"The {one} is {adjectives[place]}, the {other} is {adjectives[place - 1]}.", label])
    making.rename(making.with_name(f"week-{week}.csv"))


@pytest.fixture(scope="module")
def scheduled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scheduled]:
    """Version 1, which one epoch made and a person promoted; from then on there are more epochs, and a schedule."""
    folder = tmp_path_factory.mktemp("retraining")
    project = make_tiny_project(folder / "project", folder / "home", KEYS)
    (project.root / "data/own/reviews.csv").unlink()
    (project.root / "data/own/reviews.csv.dvc").unlink()
    write_week(project.root, 1, ["film", "plot", "cast", "song", "scene"])
    project.run("reft", "run", "--refresh")
    project.run("reft", "promote", "1", "--reason", "the first one", check=False)
    assert aliases(project)[CHAMPION] == 1
    project.params({"train.epochs": 12, "refresh.scheduled": True})
    write_week(project.root, 2, ["hero", "end", "start"])
    with prefect_server(project, folder / "server.log") as api:
        said = project.run("reft", "schedule", "--cron", "* * * * *").stdout
        worker = project.start("prefect", "worker", "start", "--pool", "reft", log=folder / "worker.log")
        try:
            yield Scheduled(project, api, said, folder / "worker.log", worker)
        finally:
            kill(worker)


def aliases(project: Project) -> dict[str, int]:
    params = load_params(project.root / "params.yaml")
    store = open_store(params.tracking, project.root)
    found = store.client.get_registered_model(params.register_.model).aliases
    return {alias: int(version) for alias, version in found.items()}


def splits(project: Project) -> dict[str, str]:
    """The split of each text."""
    return {row.prompt: split for split in SPLITS for row in read_rows(project.root / "data/prepared", split)}


def test_rows_arrive_and_each_tick_does_what_is_to_be_done(scheduled: Scheduled) -> None:
    project = scheduled.project
    first = scheduled.wait_for_run("Completed", f"New rows in file:{FOLDER}: 1 file new (week-2.csv)", seconds=600)
    assert "ran prepare, train, evaluate, register" in first["state"]["message"].casefold()  # and not search
    assert (aliases(project)[CHAMPION], aliases(project)[PREVIOUS]) == (2, 1)
    assert {"gate", "drift"} <= set(scheduled.artifacts(first))
    before = splits(project)

    idle = scheduled.wait_for_run("Completed", f"Nothing new in file:{FOLDER}", seconds=600, after=first["end_time"])
    assert "Nothing was stale" in idle["state"]["message"]
    assert idle["total_run_time"] < first["total_run_time"] / 2  # most of it is what begins a process, however busy

    write_week(project.root, 3, ["joke", "light"])
    second = scheduled.wait_for_run("Completed", "1 file new (week-3.csv)", seconds=600)
    assert (aliases(project)[CHAMPION], aliases(project)[PREVIOUS]) == (2, 1)
    decision = read_decision(project.root / "reports/gate.json")
    assert (decision.version, decision.champion, decision.promoted) == (3, 2, False)
    assert decision.verdict.reasons[0] in " ".join(str(scheduled.artifacts(second)["gate"]).replace("\\", "").split())
    after = splits(project)
    assert before.items() <= after.items()
    assert len(after) > len(before)
    drift = (project.root / "reports/drift.md").read_text(encoding="utf-8")
    assert all(f"week-{week}.csv" in drift for week in (1, 2, 3))
    assert json.loads(project.run("dvc", "status", "--json").stdout) == {}  # `dvc repro` agrees: nothing is to be done

    back = project.run("reft", "rollback", "--reason", "users complained").stdout
    assert "version 1" in back
    rolled_back = datetime.now(UTC).isoformat()
    assert aliases(project)[CHAMPION] == 1
    scheduled.wait_for_run("Completed", f"Nothing new in file:{FOLDER}", seconds=600, after=rolled_back)
    assert aliases(project)[CHAMPION] == 1  # and not the version that was refused beside the one that went back
    write_week(project.root, 4, ["sound", "text"])
    scheduled.wait_for_run("Completed", "1 file new (week-4.csv)", seconds=600)
    decision = read_decision(project.root / "reports/gate.json")
    compared = (decision.version, decision.champion, decision.promoted)
    assert compared == (4, 1, True)  # with the one that is live
    assert aliases(project)[CHAMPION] == 4


def test_a_second_clone_has_the_same_splits(scheduled: Scheduled, tmp_path: Path) -> None:
    """There is no list of splits to hand on: the same rows and parameters give the same ones."""
    own = scheduled.project
    other = Project(shutil.copytree(own.root, tmp_path / "other", symlinks=True), own.env)
    shutil.rmtree(other.root / "data/prepared")
    other.run("python", "-m", "pipelines", "prepare", "--base", "models/base.json", "--out", "data/prepared",
        "--card", "metrics/data.json")  # fmt: skip
    assert splits(other) == splits(own)
