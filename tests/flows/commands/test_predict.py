"""`reft predict`: the adapter of the project, of a folder or of the registry answers a file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from flows.cli import app
from pipelines.contracts.facts import StageFiles
from pipelines.errors import PipelineError
from pipelines.exchange.named import Naming, named_adapter
from pipelines.registry.aliases import CHAMPION
from pipelines.stages import register
from pipelines.tracking.runs import open_store
from tests.pipelines.finished import PROJECT, finish_stages, make_params


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the adapter that its last training left, and another one that is its champion."""
    folder = tmp_path_factory.mktemp("predict")
    root = folder / "project"
    root.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFT_HOME", str(folder / "home"))
        for name in ("DVC_EXP_BASELINE_REV", "DVC_EXP_NAME"):
            patch.delenv(name, raising=False)
        register.run(make_params(), root=root, files=StageFiles(**finish_stages(root)), out=root / "registration.json")
        store = open_store(make_params().tracking, root)
        store.client.set_registered_model_alias("tiny", CHAMPION, "1")  # which the gate gives
        latest = finish_stages(root, seed=1)
    shutil.copytree(latest["adapter"], root / "models" / "adapter")
    shutil.copy(latest["base"], root / "models" / "base.json")
    shutil.copy(PROJECT / "dvc.yaml", root)
    (root / "params.yaml").write_text(yaml.safe_dump(make_params().model_dump(by_alias=True)), encoding="utf-8")
    (root / "rows.csv").write_text("id,text\na,good film\nb,bad film\n", encoding="utf-8")
    return root


@pytest.fixture(autouse=True)
def own_home(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFT_HOME", str(project.parent / "home"))


def answers(project: Path, *words: str) -> list[dict[str, object]]:
    done = CliRunner().invoke(app, ["predict", str(project / "rows.csv"), "-p", str(project), *words])
    if done.exception is not None:
        raise done.exception
    assert "2 rows answered" in done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_adapter_is_the_projects_or_the_one_that_is_named(project: Path) -> None:
    latest, champion = answers(project), answers(project, "--adapter", "models:/tiny@champion")
    assert [answer["line"] for answer in latest] == [2, 3]
    assert latest != champion
    assert answers(project, "--adapter", str(project / "models" / "adapter")) == latest
    for name in ("models:/tiny/1", "1", "@champion"):
        assert answers(project, "--adapter", name) == champion
    with named_adapter("@champion", Naming(project)) as named:
        assert (named.title, named.layout) == ("version 1 (@champion)", "own")
        assert named.seen is not None


def test_a_folder_with_its_base_needs_no_project(project: Path, tmp_path: Path) -> None:
    published = tmp_path / "published"
    shutil.copytree(project / "models" / "adapter", published)
    shutil.copy(project / "models" / "base.json", published)
    (tmp_path / "rows.csv").write_text((project / "rows.csv").read_text(encoding="utf-8"), encoding="utf-8")
    assert answers(tmp_path, "--adapter", str(published)) == answers(project)


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (["--adapter", "models:/tiny@nobody"], "no version of tiny has the alias nobody"),
        (["--adapter", "models:/none@champion"], "must be in the registry"),
        (["--adapter", "9"], "must be in the registry"),
        (["--adapter", "nowhere"], "nowhere"),
    ],
)
def test_an_adapter_that_is_not_there_is_told(project: Path, words: list[str], rule: str) -> None:
    with pytest.raises(PipelineError, match=rule):
        answers(project, *words)


def test_without_a_project_an_adapter_must_be_named(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text\nfilm\n", encoding="utf-8")
    with pytest.raises(PipelineError, match="Run `reft run` in a project, or name an adapter"):
        answers(tmp_path)
