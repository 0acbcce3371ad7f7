"""A version in a second clone: fetched, verified, traced to its rows, and made again with the same bits."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass

import pytest

from pipelines.contracts.prepared import data_sha256
from reft.adapters.files import adapter_sha256
from tests.project import Project, environment, make_tiny_project

pytestmark = [pytest.mark.slow, pytest.mark.long]


@dataclass(frozen=True)
class Clones:
    """The project that made version 1, and another that has git, the DVC remote and the registry in common with it."""

    first: Project
    second: Project


@pytest.fixture(scope="module")
def clones(tmp_path_factory: pytest.TempPathFactory) -> Clones:
    folder = tmp_path_factory.mktemp("clones")
    shared = {"tracking.uri": f"sqlite:///{folder}/registry/mlflow.db", "tracking.artifacts": f"{folder}/artifacts"}
    first = make_tiny_project(folder / "first", folder / "home", shared)
    first.run("dvc", "remote", "add", "--default", "team", str(folder / "team"))
    first.run("dvc", "config", "--local", "--unset", "core.remote")
    first.run("git", "add", ".dvc/config")
    first.run("git", "commit", "--quiet", "--message", "The team's remote")
    first.run("reft", "run")
    first.run("git", "add", "dvc.lock", "metrics")
    first.run("git", "commit", "--quiet", "--message", "Version 1")
    first.run("git", "clone", "--quiet", "--bare", ".", str(folder / "origin.git"))
    (folder / "other").mkdir()
    shutil.copy2(folder / "home" / "gitconfig", folder / "other" / "gitconfig")
    second = Project(folder / "second", environment(folder / "other"))  # of a machine that has no base yet
    Project(folder, second.env).run("git", "clone", "--quiet", str(folder / "origin.git"), "second")
    second.run("reft", "setup")
    second.run("dvc", "pull")
    return Clones(first, second)


def table(said: str) -> dict[str, str]:
    """The second column of a table in a terminal by the first."""
    lines = (line.split("│") for line in said.splitlines() if line.count("│") >= 3)
    return {cells[1].strip(): cells[2].strip() for cells in lines}


def test_it_is_verified(clones: Clones) -> None:
    states = table(clones.second.run("reft", "verify", "1").stdout)
    base = states.pop("base in the store")
    assert set(states.values()) == {"right"}
    assert {"adapter in the registry", "commit in git", "dvc.lock", "adapter in dvc.lock"} <= set(states)
    assert base == "unknown"  # which is fetched when it is needed, and has to have its hash then


def test_its_lineage_leads_to_the_rows(clones: Clones) -> None:
    said = clones.second.run("reft", "lineage", "1").stdout
    root = clones.second.root
    rows = data_sha256(root / "data/prepared")
    assert rows == data_sha256(clones.first.root / "data/prepared")
    assert rows in said
    assert "file:data/own/reviews.csv" in said
    own = [project.root / "data/own/reviews.csv" for project in (clones.first, clones.second)]
    assert own[0].read_bytes() == own[1].read_bytes()
    assert adapter_sha256(root / "models/adapter") in said
    (commit,) = {word for word in said.split() if len(word) == 40}
    status = json.loads(clones.second.run("dvc", "status", "--json").stdout)
    assert set(status) == {"register"}  # each clone says by itself which version it has
    assert clones.second.run("git", "cat-file", "-t", commit).stdout.strip() == "commit"


def test_it_is_made_again_with_the_same_bits(clones: Clones) -> None:
    """Every stage runs once more, from the rows and the base's own files alone."""
    second = clones.second
    adapter = second.root / "models/adapter"
    made = adapter_sha256(adapter)
    assert made == adapter_sha256(clones.first.root / "models/adapter")
    shutil.rmtree(adapter)
    shutil.rmtree(second.root / "search")
    shutil.rmtree(second.root / "data/prepared")
    before = second.markers()
    second.run("dvc", "repro", "--force", "--no-run-cache", "train")
    assert second.ran_since(before) == {"base", "prepare", "search", "train"}
    assert adapter_sha256(adapter) == made
    assert made in second.run("reft", "lineage", "1").stdout
