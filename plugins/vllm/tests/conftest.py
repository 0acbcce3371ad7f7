"""What the tests share: reft's own answers, from the environment that reft is installed in, and an engine's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[2]
PYTHON = Path(os.environ.get("REFT_PROJECT_PYTHON", PROJECT / ".venv" / "bin" / "python"))
ALONE = {"OMP_NUM_THREADS": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}


def run(python: Path | str, script: str, *words: object, **more: str) -> str:
    """Run a script of this folder; return what it printed, or fail with it."""
    done = subprocess.run(
        [str(python), str(HERE / script), *map(str, words)], env={**os.environ, **ALONE, **more}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that reft's environment leaves: a tiny base, sixteen adapters and what they answer."""
    if not PYTHON.is_file():
        pytest.skip(f"reft's own environment is wanted; there is none at {PYTHON}: set REFT_PROJECT_PYTHON")
    folder = tmp_path_factory.mktemp("reference") / "made"
    run(PYTHON, "reference.py", folder, PYTHONPATH=str(PROJECT))
    return folder


Scenario = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def scenario(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Scenario:
    """Asks an engine, in a process of its own, what ``reference`` holds."""

    def ask(*words: object) -> dict[str, Any]:
        out = tmp_path_factory.mktemp("answers") / "answers.json"
        run(sys.executable, "scenario.py", reference, out, *words)
        return dict(json.loads(out.read_text(encoding="utf-8")))

    return ask
