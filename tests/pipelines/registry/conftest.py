"""A registry with three versions that tests of promotion and rollback share; each begins with the same aliases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.params.whole import Params
from pipelines.tracking.runs import Store
from tests.pipelines.finished import make_params
from tests.promoting import MODEL, begin, three_versions


@pytest.fixture(scope="package")
def lives_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base store of that project."""
    return tmp_path_factory.mktemp("lives-home")


@pytest.fixture(scope="package")
def lives_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project whose registry it is."""
    return tmp_path_factory.mktemp("lives")


@pytest.fixture(scope="package")
def registry(lives_root: Path, lives_home: Path) -> Iterator[Store]:
    """The registry."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFT_HOME", str(lives_home))
        yield three_versions(lives_root, MODEL, make_params().tracking.uri)


@pytest.fixture
def lives(registry: Store) -> Store:
    """Version 1 is champion, version 3 challenges, and nothing was decided yet."""
    begin(registry)
    return registry


@pytest.fixture
def lives_params() -> Params:
    """The project's parameters."""
    return make_params(MODEL)
