"""The user's own files under DVC: seen, kept, pushed, and fetched where they are missing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from prefect.logging import disable_run_logger

from flows.runs import dvc
from flows.runs.tasks import pull
from tests.project import Project, make_tiny_project

OWN = ("data/own/reviews.csv", "models/own/tiny/config.json")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_tiny_project(tmp_path / "project", tmp_path / "home")


def lose(project: Project) -> None:
    (project.root / "data/own/reviews.csv").unlink()
    shutil.rmtree(project.root / "models/own/tiny")


def test_dvc_sees_own_files_and_a_checkout_keeps_them(project: Project) -> None:
    assert dvc.recorded(project.root) == ["data/own/reviews.csv.dvc", "models/own/tiny.dvc"]
    assert dvc.unchanged(project.root) == set()  # no stage has run
    project.run("dvc", "checkout", check=False)  # it fails over stages that have never run
    assert all((project.root / name).is_file() for name in OWN)


def test_own_files_are_pushed_and_come_back_on_another_machine(project: Project) -> None:
    project.run("dvc", "push")
    lose(project)
    shutil.rmtree(project.root / ".dvc" / "cache")
    pull.fn(project.root)
    assert all((project.root / name).is_file() for name in OWN)


def test_what_the_remote_lacks_stops_nothing_and_loses_nothing(project: Project) -> None:
    kept = (project.root / OWN[0]).read_bytes()
    shutil.rmtree(project.root / ".dvc" / "cache")
    shutil.rmtree(project.root / "models/own/tiny")
    pull.fn(project.root)
    assert (project.root / OWN[0]).read_bytes() == kept


def test_a_change_that_dvc_does_not_know_is_not_written_over(project: Project) -> None:
    data = project.root / OWN[0]
    data.write_bytes(data.read_bytes() + b"One more.,good\n")
    with disable_run_logger():  # there is no run here
        pull.fn(project.root)
    assert data.read_bytes().endswith(b"One more.,good\n")


def test_without_a_remote_there_is_nothing_to_pull_from(project: Project) -> None:
    assert dvc.has_remote(project.root)
    (project.root / ".dvc" / "config.local").unlink()
    assert not dvc.has_remote(project.root)
