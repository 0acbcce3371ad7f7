"""A project that was moved or copied is whole in its new folder: nothing of it is read or written in the old one."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest

from pipelines.contracts.facts import StageFiles
from pipelines.files import read_json
from pipelines.stages import register
from pipelines.tracking.moved import PROJECT, follow_project
from pipelines.tracking.runs import open_store
from pipelines.tracking.store import store_uri
from tests.pipelines.finished import finish_stages, make_params

PARAMS = make_params()
DATABASE = Path("mlflow") / "mlflow.db"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the project ``first place``, with one registered version, and its base store."""
    folder = tmp_path_factory.mktemp("moved")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFT_HOME", str(folder / "home"))
        stage(folder / "first place")
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That folder again, where the project of another test has not been."""
    monkeypatch.setenv("REFT_HOME", str(finished / "home"))
    shutil.copytree(finished / "first place", tmp_path / "copy")
    relabel(tmp_path / "copy", finished / "first place", tmp_path / "first place")
    (tmp_path / "copy").rename(tmp_path / "first place")
    return tmp_path


def relabel(root: Path, old: Path, new: Path) -> None:
    """Make a store say that it is at ``new``, so that a test may move it from there."""
    with closing(sqlite3.connect(root / DATABASE)) as connection:
        text = "\n".join(connection.iterdump()).replace(quote(str(old)), quote(str(new))).replace(str(old), str(new))
    (root / DATABASE).unlink()
    with closing(sqlite3.connect(root / DATABASE)) as connection:
        connection.executescript(text)


def stage(root: Path, *, seed: int = 0) -> int:
    root.mkdir(exist_ok=True)
    return register.run(
        PARAMS, root=root, files=StageFiles(**finish_stages(root, seed=seed)), out=root / "registration.json"
    ).version


def answers(root: Path, version: int) -> list[dict[str, object]]:
    import mlflow

    mlflow.set_tracking_uri(store_uri(PARAMS.tracking, root))
    mlflow.set_registry_uri(store_uri(PARAMS.tracking, root))
    found: list[dict[str, object]] = mlflow.pyfunc.load_model(f"models:/tiny/{version}").predict(["good film"])
    return found


def texts(root: Path) -> list[str]:
    """Every text in the tables of the store."""
    with closing(sqlite3.connect(root / DATABASE)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = [row for table in tables for row in connection.execute(f"SELECT * FROM {table}")]
    return [value for row in rows for value in row if isinstance(value, str)]


def test_a_moved_project_loads_and_registers_where_it_is(folder: Path) -> None:
    old, new = folder / "first place", folder / "second"
    before = answers(old, 1)
    old.rename(new)
    assert stage(new, seed=1) == 2
    assert not old.exists()
    assert answers(new, 1) == before
    assert answers(new, 2) != before
    spelled = (str(old), quote(str(old)))
    assert [
        text for text in texts(new) if text.startswith(("file:", "/")) and any(old in text for old in spelled)
    ] == []


def test_a_copy_leaves_the_original_alone(folder: Path) -> None:
    old, new = folder / "first place", folder / "second"
    shutil.copytree(old, new)
    held, files = texts(old), sorted(old.rglob("*"))
    assert stage(new, seed=1) == 2
    assert (texts(old), sorted(old.rglob("*"))) == (held, files)
    shutil.rmtree(old / "mlflow" / "artifacts")
    assert len(answers(new, 1)) == 1


def test_a_store_without_the_tag_is_told_by_its_artifacts(folder: Path) -> None:
    """As every store of 0.1.0 is."""
    old, new = folder / "first place", folder / "second"
    with closing(sqlite3.connect(old / DATABASE)) as connection, connection:
        connection.execute("DELETE FROM experiment_tags WHERE key = ?", (PROJECT,))
    old.rename(new)
    store = open_store(PARAMS.tracking, new)
    found = store.client.get_experiment(store.experiment_id)
    assert found.artifact_location == (new / "mlflow" / "artifacts").as_uri()
    assert found.tags[PROJECT] == new.as_uri()
    assert len(answers(new, 1)) == 1


def test_artifacts_of_another_folder_stay_where_they_are(folder: Path) -> None:
    """Only what lay in the project moved with it; a folder whose name begins as the project's is another."""
    old, new = folder / "first place", folder / "second"
    other = Path(f"{old}-2") / "mlflow"
    with closing(sqlite3.connect(old / DATABASE)) as connection, connection:
        connection.execute("UPDATE runs SET artifact_uri = ?", (other.as_uri(),))
    old.rename(new)
    follow_project(PARAMS.tracking, new)
    assert other.as_uri() in texts(new)


def test_a_database_outside_the_project_is_not_changed(folder: Path, tmp_path: Path) -> None:
    old = folder / "first place"
    held = texts(old)
    params = make_params(uri=f"sqlite:///{old / DATABASE}")
    (tmp_path / "another").mkdir()
    follow_project(params.tracking, tmp_path / "another")
    assert texts(old) == held


def test_a_version_holds_no_path_of_the_machine(folder: Path) -> None:
    found = list((folder / "first place" / "mlflow").rglob("MLmodel"))
    assert len(found) == 1
    assert "first place" not in found[0].read_text(encoding="utf-8")
    assert "pyfunc.py" in found[0].read_text(encoding="utf-8")
    assert read_json(folder / "first place" / "registration.json")["tracking_uri"] == "sqlite:///mlflow/mlflow.db"
