"""What an accelerator would show, on one that is simulated: the CPU's figures, no tensor left behind, and no waiting.

A child process asks, since torch knows such a device for as long as a process lives.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
CASES = (
    "edits at the prompts' ends",
    "edits behind kept keys",
    "prompts above what attention keeps scores of",
    "questions",
    "whole rows",
    "LoRA",
    "an encoder",
    "an encoder-decoder",
)


@cache
def seen(*words: str) -> dict[str, Any]:
    """What the child saw."""
    surroundings = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    child = subprocess.run(
        [sys.executable, "-m", "tests.simulated", *words],
        cwd=ROOT,
        env=surroundings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    found: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
    return found


def test_every_case_is_seen() -> None:
    assert set(seen()["trainings"]["cases"]) == set(CASES)


@pytest.mark.parametrize("case", CASES)
def test_a_training_on_a_device_has_the_losses_of_the_cpu(case: str) -> None:
    found = seen()["trainings"]["cases"][case]
    assert found["device"]["losses"] == pytest.approx(found["cpu"]["losses"], abs=2e-5)


@pytest.mark.parametrize("case", CASES)
def test_a_warm_step_waits_for_its_loss_alone(case: str) -> None:
    waits = seen()["trainings"]["cases"][case]["device"]["waits"]
    theirs = [each for each in waits if "masking_utils.py" in each]
    assert len(theirs) == (2 if case == "an encoder-decoder" else 0), waits  # T5 itself looks at its masks
    (own,) = [each for each in waits if each not in theirs]
    assert "copy of (2,) from sim to cpu from fit.py" in own


def test_kept_constants_stay_on_the_device_while_they_fit() -> None:
    there, full = seen()["trainings"]["cases"]["edits behind kept keys"]["device"], seen()["trainings"]["no room"]
    assert there["copied"] > 0
    assert full["copied"] == 0
    assert full["losses"] == there["losses"]


def test_a_change_through_data_of_weights_on_a_device_is_seen_when_a_use_begins() -> None:
    assert seen()["trainings"]["seen change"]


@pytest.mark.long
def test_the_benchmark_finds_everything_right_on_the_device() -> None:
    found = seen("all")["asked"]
    errors = {name: each["error"] for name, each in found["outcomes"].items() if each["status"] != "ok"}
    assert errors == {}
    assert found["status"] == 0
    assert [each["case"] for each in found["outcomes"]["waits"]["figures"]] == ["a", "d"]


def test_a_constant_left_on_the_cpu_fails_the_benchmark() -> None:
    found = seen()["left on the CPU"]
    assert found["status"] == 1
    assert "same device" in found["outcomes"]["cone"]["error"]


def test_a_step_that_reads_the_device_fails_the_benchmark() -> None:
    found = seen()["waiting"]
    assert found["status"] == 1
    assert "a warm step waits for its loss alone" in found["outcomes"]["waits"]["error"]
