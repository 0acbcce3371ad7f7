"""The hashes of the installed code, which a folder without code depends on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipelines.project import code
from pipelines.project.graph import read_graph

ROOT = Path(__file__).parents[3]
DATA = "pipelines/diagnostics/neutral.txt"  # decides a figure of evaluate, and is no code


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package, which may be changed."""
    for room in code.ROOMS:
        shutil.copytree(ROOT / room, tmp_path / room)
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.setattr(code, "PACKAGE", tmp_path)
    monkeypatch.setattr(code, "SHIPPED", (tmp_path,))
    return tmp_path


def test_data_beside_the_code_decide_as_the_code_does(package: Path) -> None:
    before = code.installed_code()
    (package / DATA).write_text("Another text.", encoding="utf-8")
    after = code.installed_code()
    deps = {stage.name: stage.deps for stage in read_graph(package).stages}
    reading = {name for name in deps if any(Path(dep) in (Path(DATA), *Path(DATA).parents) for dep in deps[name])}
    assert {name for name in after if after[name] != before[name]} == reading != set()


def test_what_dvc_leaves_out_decides_nothing(package: Path) -> None:
    before = code.installed_code()
    for name in ("tasks/library/another.yaml", "tasks/__pycache__/rows.cpython-311.pyc", "tasks/left.pyc"):
        (package / "pipelines" / name).parent.mkdir(exist_ok=True)
        (package / "pipelines" / name).write_text("left out", encoding="utf-8")
    assert code.installed_code() == before
