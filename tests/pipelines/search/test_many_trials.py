"""Many trials: in one process, whose memory does not grow with them, and of several processes on one SQLite file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml

from pipelines.search.study import OWNER, counted, open_study
from pipelines.search.worker import run_until_target
from tests.searching import FEW, make_context, make_params, raw_params

pytestmark = pytest.mark.long

WARM, TRIALS = 40, 200
GROWTH = 60  # megabytes that 200 trials may add; what the allocators keep differs by ten or so
WORKERS, SHARED = 4, 100
# A worker that begins its work when it is told to: on a busy machine one may have done all before others have loaded.
WORKER = """
import runpy
import pipelines.search.trial
print("loaded", flush=True)
input()
runpy.run_module("pipelines.search.worker", run_name="__main__")
"""


def test_memory_does_not_grow_with_the_trials_of_a_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = make_context(tmp_path, {"search.trials": WARM})
    process = psutil.Process()
    run_until_target(project.search())
    before = process.memory_info().rss
    found = run_until_target(project.search(make_params({"search.trials": WARM + TRIALS})))
    growth = (process.memory_info().rss - before) / 1e6
    with capsys.disabled():
        print(f"\n{TRIALS} trials: {growth:.0f} MB more than after the first {WARM}")
    assert len(found.records) == WARM + TRIALS
    assert growth < GROWTH


def test_workers_on_one_sqlite_file_lose_and_double_no_trial(tmp_path: Path) -> None:
    changes = {"search.trials": SHARED}
    project = make_context(tmp_path, changes)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(raw_params(FEW | changes), sort_keys=False), encoding="utf-8")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, "--place", str(place)],
            cwd=tmp_path, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for place in range(WORKERS)
    ]  # fmt: skip
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "loaded\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    said = [worker.communicate(timeout=1500)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * WORKERS, said
    assert not any("locked" in each or "Traceback" in each for each in said)
    name = run_until_target(project.search()).study  # which finds nothing left to do
    trials = open_study(project.params.search, tmp_path, name=name).trials()
    assert [trial.number for trial in trials] == list(range(SHARED))
    assert len(counted(trials)) == SHARED
    assert {trial.state.name for trial in trials} == {"COMPLETE"}
    assert len({trial.user_attrs[OWNER] for trial in trials}) > 1
