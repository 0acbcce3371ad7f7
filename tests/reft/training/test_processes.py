"""Two processes on the CPU train what one does, started as a user would."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from reft.training.fit import fit
from tests.reft.processes import CASES, train

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.long

UNDROPPED = sorted(set(CASES) - {"dropped", "twins"})


@dataclass(frozen=True)
class Result:
    """What each of two processes left."""

    steps: list[dict[str, list[dict[str, Any]]]]
    tensors: list[dict[str, Tensor]]

    def values(self, rank: int, case: str) -> dict[str, Tensor]:
        return {
            name.removeprefix(f"{case}/"): value
            for name, value in self.tensors[rank].items()
            if name.startswith(f"{case}/")
        }


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    folder = tmp_path_factory.mktemp("processes")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*command, "-m", "tests.reft.processes", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return Result(
        [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)],
        [safetensors.torch.load_file(folder / f"{rank}.safetensors") for rank in range(2)],
    )


@pytest.mark.parametrize("case", UNDROPPED)
def test_losses_and_adapter_are_those_of_one_process_to_rounding(result: Result, case: str) -> None:
    alone = train(case)
    for name in ("loss", "grad_norm"):
        got, expected = ([step[name] for step in steps] for steps in (result.steps[0][case], alone["steps"]))
        assert got == pytest.approx(expected, rel=1e-5, abs=1e-7), name
    for name in ("step", "learning_rate", "tokens", "epoch"):
        assert [s[name] for s in result.steps[0][case]] == [s[name] for s in alone["steps"]], name
    got = result.values(0, case)
    assert got.keys() == alone["values"].keys()
    for name, value in alone["values"].items():
        torch.testing.assert_close(
            got[name], value, atol=1e-4, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("case", [*CASES, "resumed"])
def test_both_processes_hold_the_same_bits(result: Result, case: str) -> None:
    one, other = result.values(0, case), result.values(1, case)
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert [s["loss"] for s in result.steps[0][case]] == [s["loss"] for s in result.steps[1][case]]


def test_a_resumed_run_of_two_equals_an_uninterrupted_one(result: Result) -> None:
    whole, resumed = result.values(0, "decoder"), result.values(0, "resumed")
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    assert [s["replayed"] for s in result.steps[1]["resumed"]] == [True, True] + 4 * [False]


def test_dropout_draws_for_each_process_of_its_own(result: Result) -> None:
    """Each process has the same row; with one stream of draws, the loss would be that of one process with one row."""
    build, rows, config = CASES["twins"]
    alone = next(fit(build(), rows[:1], config, pad_id=0))
    assert result.steps[0]["twins"][0]["loss"] != pytest.approx(alone.loss, rel=1e-4)
    assert result.steps[0]["twins"][0]["loss"] == pytest.approx(alone.loss, rel=0.5)
