"""One store of bases for a module whose tests share a project."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The base store of a module's tests."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFT_HOME", str(folder))
        yield folder


@pytest.fixture
def same_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a test that store in place of its own empty one."""
    monkeypatch.setenv("REFT_HOME", str(home))
