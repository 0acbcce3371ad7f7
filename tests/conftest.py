"""Every test has its own REFT_HOME and no server of the user's."""

from __future__ import annotations

import gc
import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from absl import logging as absl_logging

from tests.shared import SHARED, made_once

if TYPE_CHECKING:
    from sqlalchemy import Engine

# Four processes of tests on two cores are enough: threads of their own would wait for each other. To be set before
# torch is imported; what is set outside stays.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# What takes longest begins first: a file is one process's work, and none is to be left over when the others are done.
LONGEST = (
    "tests/test_pipeline.py",
    "tests/flows/runs/test_schedule.py",
    "tests/test_kills.py",
    "tests/test_own_project.py",
    "tests/test_bad_inputs.py",
    "tests/test_fuzz.py",
    "tests/test_after_a_run.py",
    "tests/test_damage.py",
    "tests/test_ten_commands.py",
    "tests/flows/runs/test_retraining.py",
    "tests/test_surroundings.py",
)
LONG_SECONDS = 2400  # of a long test, with what its fixtures take, on a machine with much else to do
FOREIGN = ("PREFECT_API_URL", "PREFECT_API_KEY", "MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME")


@pytest.fixture(autouse=True, scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Let the processes of one run of pytest share what is made once; pytest removes the folder with its own."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    folder.mkdir(exist_ok=True)
    os.environ[SHARED] = str(folder)


@pytest.fixture(autouse=True, scope="session")
def mlflow_tables(shared_folder: None) -> Iterator[None]:
    """Let a new sqlite store of MLflow begin as a copy of an empty one, which MLflow itself made.

    Its tables are made in two seconds of work, for each of the many stores of the tests.
    """
    from mlflow.store.db import utils

    make_tables = utils._initialize_tables

    def make(folder: Path) -> None:
        engine = utils.create_sqlalchemy_engine(f"sqlite:///{folder / 'mlflow.db'}")
        make_tables(engine)
        engine.dispose()

    def copy_tables(engine: Engine) -> None:
        file = engine.url.database
        if engine.dialect.name != "sqlite" or file in (None, "", ":memory:"):
            make_tables(engine)
            return
        empty = made_once("mlflow", make) / "mlflow.db"
        with closing(sqlite3.connect(empty)) as source, closing(sqlite3.connect(str(file))) as target:
            source.backup(target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, "_initialize_tables", copy_tables)
        yield


@pytest.fixture(autouse=True)
def reft_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store of bases and downloads; returns its folder."""
    home = tmp_path_factory.mktemp("reft-home")
    monkeypatch.setenv("REFT_HOME", str(home))
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    for variable in FOREIGN:
        monkeypatch.delenv(variable, raising=False)
    return home


def pytest_configure() -> None:
    """Give absl's handler the stderr that stays.

    rouge-score loads absl, whose handler keeps the stderr of that moment: a test's own, which pytest closes. Whoever
    configures logging afterwards, as Prefect does, flushes every handler and would fail, and all tests after it.
    """
    absl_logging.get_absl_handler().python_handler.setStream(sys.__stderr__)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Keep the garbage collector out while all that the tests need is imported, and then out of that.

    It is a million objects of torch and its like, and a third of the time that a process of pytest takes to begin.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_unconfigure() -> None:
    """Nor is it to look for garbage as the process ends."""
    gc.freeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the files of ``LONGEST`` first, where the others keep their order; give the long tests longer to end.

    These wait for processes, each of which has a limit of its own that is told better than that of a test.
    """
    for item in items:
        if item.get_closest_marker("long") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(LONG_SECONDS))
    places = {config.rootpath / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))
