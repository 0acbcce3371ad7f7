"""A version that an earlier release registered loads with this one, and answers what it answered then."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path

import pytest

from pipelines.contracts.base import read_base
from pipelines.files import read_json
from tests.registered import RELEASES, ROOT, imported_names, is_forwarder

SOURCES = [path for room in ("pipelines", "reft", "flows") for path in sorted((ROOT / room).rglob("*.py"))]
FORWARDERS = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in SOURCES if is_forwarder(path)}


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
def test_a_version_of_an_earlier_release_answers_what_it_did(release: Path, reft_home: Path) -> None:
    import mlflow

    record = read_base(release / "model" / "artifacts" / "base.json")
    shutil.copytree(release / "base", reft_home / "bases" / record.sha256)
    expected = read_json(release / "answers.json")
    answers = mlflow.pyfunc.load_model(str(release / "model")).predict([row["text"] for row in expected])
    assert [answer["label"] for answer in answers] == [row["label"] for row in expected]
    for answer, row in zip(answers, expected, strict=True):
        assert answer["probabilities"] == pytest.approx(row["probabilities"], abs=1e-6)


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
def test_every_name_that_its_code_imports_is_there(release: Path) -> None:
    names = [name for file in (release / "model").glob("*.py") for name in imported_names(file)]
    assert names
    missing = [(module, name) for module, name in names if not hasattr(importlib.import_module(module), name)]
    assert missing == []


def test_forwarders_are_for_registered_versions_alone() -> None:
    """One that no version needs is left over; and whoever imports one stands in the way of its end."""
    needed = {
        module for release in RELEASES for file in release.glob("model/*.py") for module, _ in imported_names(file)
    }
    assert FORWARDERS
    assert needed >= FORWARDERS
    ours = {str(path): FORWARDERS & {module for module, _ in imported_names(path)} for path in SOURCES}
    assert {path: found for path, found in ours.items() if found} == {}


def test_a_module_that_does_more_is_no_forwarder(tmp_path: Path) -> None:
    """The order of rooms is held to by every module that is none, so nothing else may pass for one."""
    text = (ROOT / "pipelines" / "device.py").read_text(encoding="utf-8")
    path = tmp_path / "module.py"
    for addition in ("import os\n", "x = 1\n", "def f() -> None: ...\n"):
        path.write_text(text + addition, encoding="utf-8")
        assert not is_forwarder(path)
    path.write_text(text.replace("Kept for", "Holds"), encoding="utf-8")
    assert not is_forwarder(path)
