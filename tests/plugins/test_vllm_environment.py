"""The plug-in's own tests, with vLLM's engine, where there is an environment with it: `make vllm-setup` makes one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.arrows import ROOT

HERE = ROOT / "plugins" / "vllm"
PYTHON = Path(os.environ.get("REFT_VLLM_PYTHON", HERE / ".venv" / "bin" / "python"))


@pytest.mark.long
@pytest.mark.timeout(3000)
def test_vllm_answers_as_reft_does() -> None:
    if not PYTHON.is_file():
        pytest.skip(f"vLLM has an environment of its own; there is none at {PYTHON}: `make vllm-setup` makes it")
    command = [str(PYTHON), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not real", str(HERE)]
    done = subprocess.run(
        command, cwd=HERE, env={**os.environ, "REFT_PROJECT_PYTHON": sys.executable}, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stdout[-8000:]
