"""The base that reft-pipeline comes with, on vLLM: `REFT_VLLM_BASE` names its folder."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from conftest import PROJECT, PYTHON, run
from test_answers import right


@pytest.mark.real
def test_sixteen_adapters_on_the_real_base_answer_as_reft_does(tmp_path: Path) -> None:
    base = os.environ.get("REFT_VLLM_BASE")
    if base is None or not PYTHON.is_file():
        pytest.skip("the real base and reft's own environment are wanted: set REFT_VLLM_BASE and REFT_PROJECT_PYTHON")
    made = tmp_path / "made"
    run(PYTHON, "reference.py", made, "--base", base, PYTHONPATH=str(PROJECT))
    run(sys.executable, "scenario.py", made, tmp_path / "answers.json")
    found = json.loads((tmp_path / "answers.json").read_text(encoding="utf-8"))
    right(found["right"])
    assert found["engine"]["cached_tokens"] > 0
