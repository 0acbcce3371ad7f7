"""The wheel alone makes a project: its files are those of the clone, and its stages' code has the same hashes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.project.code import installed_code, project_graph
from tests.project import ROOT

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the built wheel was unpacked in; built from a copy, which a build of an older tree had left."""
    clone, site = tmp_path_factory.mktemp("clone"), tmp_path_factory.mktemp("site")
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in names.splitlines():
        if (ROOT / name).is_file() and not name.startswith(("tests/", "docs/")):
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, clone / name)
    stale = clone / "build/lib/pipelines/gone.py"
    stale.parent.mkdir(parents=True)
    stale.write_text("", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "."]
    subprocess.run([*command, "--wheel-dir", str(site / "dist")], cwd=clone, check=True)
    (wheel,) = (site / "dist").glob("*.whl")
    shutil.unpack_archive(wheel, site, "zip")
    return site


def test_a_folder_made_by_the_wheel_is_the_one_that_the_clone_makes(installed: Path, tmp_path: Path) -> None:
    project = tmp_path / ("a-folder-with-a-name-of-more-characters-than-a-terminal-of-eighty-columns-has" * 2)
    said = _run(installed, tmp_path, ["-m", "flows.cli", "init", str(project)])
    assert f"  cd {project}\n" in said  # a command to copy stands on one line
    assert (project / "dvc.yaml").read_text(encoding="utf-8") == project_graph()
    for name in ("params.yaml", ".gitignore", ".dvcignore", "prefect.yaml", "data/own/README.md"):
        assert (project / name).read_bytes() == (ROOT / name).read_bytes()
    assert json.loads((project / "code.json").read_text(encoding="utf-8")) == installed_code()
    said = _run(installed, project, ["-m", "flows.cli", "upgrade", "--check"])
    assert "up to date" in said


def test_the_wheel_holds_the_modules_of_the_clone_and_no_others(installed: Path) -> None:
    for room in ("pipelines", "flows", "reft"):
        found = {path.relative_to(installed).as_posix() for path in (installed / room).rglob("*.py")}
        assert found == {path.relative_to(ROOT).as_posix() for path in (ROOT / room).rglob("*.py")}


def test_the_wheel_holds_what_modules_read_beside_them(installed: Path) -> None:
    command = ["git", "ls-files", "--", "reft", "pipelines", "flows", ":!*.py"]
    kept = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert "reft/formats/load_reft.template" in kept
    assert [name for name in kept if not (installed / name).is_file()] == []


def _run(installed: Path, folder: Path, command: list[str]) -> str:
    """Run Python with the unpacked wheel before any other installation, and return what it printed."""
    env = os.environ | {"PYTHONPATH": str(installed), "GIT_CEILING_DIRECTORIES": str(folder)}
    where = [sys.executable, "-c", "import pipelines; print(pipelines.__file__)"]
    place = subprocess.run(where, cwd=folder, env=env, capture_output=True, text=True, check=True).stdout
    assert Path(place.strip()).is_relative_to(installed)
    done = subprocess.run([sys.executable, *command], cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
