"""A project of each file of tests whose stages before the search have run, with a base store of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.searching import Project, make_context


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    root = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFT_HOME", str(root / "home"))
        yield make_context(root)


@pytest.fixture(autouse=True)
def own_home(made: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFT_HOME", str(made.root / "home"))
