"""Which edits of the code make which stages stale, by DVC's own word: `dvc status` on a project with all its files."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipelines.project.graph import read_graph
from tests.arrows import ROOT

OWN_FOLDERS = ("models/own", "data/own")


def dvc(root: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout


def stale(root: Path) -> set[str]:
    """The stages whose code or other deps DVC finds changed."""
    return {stage.removesuffix(":") for stage in json.loads(dvc(root, "status", "--json"))}


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone's code, dvc.yaml and params.yaml with outputs of a few bytes, and dvc.lock as if all stages had run."""
    root = tmp_path_factory.mktemp("clone")
    for package in ("reft", "pipelines"):
        shutil.copytree(ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", "params.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, root)
    for name in OWN_FOLDERS:
        (root / name).mkdir(parents=True)
    read = {dep for stage in read_graph(root).stages for dep in stage.deps}
    for out in (out for stage in read_graph(root).stages for out in stage.outs):
        path = root / out
        if any(Path(out) in Path(dep).parents for dep in read) or not path.suffix:
            path.mkdir(parents=True, exist_ok=True)
            names = [Path(dep).name for dep in read if Path(out) in Path(dep).parents]
            for name in names or ["file"]:
                (path / name).write_text(out)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(out)
    dvc(root, "init", "--no-scm", "--quiet")
    dvc(root, "commit", "--force", "--quiet")
    return root


@pytest.fixture
def edited(committed: Path) -> Iterator[Callable[[str], None]]:
    """Adds a line to a file of the code; it is as it was after the test."""
    before: dict[Path, bytes] = {}

    def edit(file: str) -> None:
        path = committed / file
        before[path] = path.read_bytes()
        path.write_bytes(before[path] + b"\n# edited\n")

    yield edit
    for path, content in before.items():
        path.write_bytes(content)


def test_nothing_is_stale_before_an_edit(committed: Path) -> None:
    assert stale(committed) == set()


SHOWN_OR_CONVERTED = (
    "reft/causal/das.py",
    "reft/formats/pyreft.py",
    "pipelines/reports/search/page.py",
    "pipelines/align/run.py",
    "pipelines/compare/cells.py",
    "pipelines/exchange/export.py",
    "pipelines/errors.py",
)


def test_what_only_shows_converts_or_explains_makes_no_stage_stale(
    committed: Path, edited: Callable[[str], None]
) -> None:
    for file in SHOWN_OR_CONVERTED:
        edited(file)
    assert stale(committed) == set()


@pytest.mark.parametrize(
    ("file", "stages"),
    [
        ("pipelines/recipes/space.py", {"search", "train", "evaluate"}),
        ("pipelines/recipes/published.py", {"search", "train", "evaluate"}),
        ("pipelines/search/sizes.py", {"search"}),
        ("pipelines/runtime/memory.py", {"search"}),
        ("pipelines/contracts/prepared.py", {"prepare", "search", "train", "evaluate", "register"}),
        ("pipelines/contracts/registration.py", {"register"}),
        ("reft/edits/interventions.py", {"search", "train", "evaluate", "register"}),
    ],
)
def test_what_decides_a_figure_makes_the_stages_stale_that_run_it(
    committed: Path, edited: Callable[[str], None], file: str, stages: set[str]
) -> None:
    edited(file)
    assert stale(committed) == stages
