"""A run that works is given its time however slow the machine is; one that stands still, or never ends, is told of."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests import progress
from tests.progress import NoEndError, communicate, outliving, wait
from tests.record import Record


def started(code: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-S", "-c", code])


def ended(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "POLL", 0.05)
    monkeypatch.setattr(progress, "LOOK", 0.0)


def test_a_run_that_waits_for_ever_stands_still() -> None:
    process = started("import time; time.sleep(60)")
    with pytest.raises(NoEndError, match="stands still"):
        wait(process, 0.3)
    ended(process)


def test_a_run_that_works_for_ever_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "STANDSTILL", 0.01)
    process = started("while True: pass")
    with pytest.raises(NoEndError, match="s of the processor"):
        wait(process, 0.5)
    ended(process)


def test_the_work_of_those_below_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "STANDSTILL", 0.0)
    process = started("import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', 'while True: pass'])")
    try:
        with pytest.raises(NoEndError, match="no end after"):
            wait(process, 0.5)
    finally:
        for child in psutil.Process(process.pid).children():
            child.kill()
        ended(process)


def test_what_a_run_says_is_kept() -> None:
    code = "import sys, time; print('out'); time.sleep(0.2); print('more'); print('err', file=sys.stderr)"
    words = [sys.executable, "-S", "-c", code]
    with subprocess.Popen(words, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert communicate(process, 30) == ("out\nmore\n", "err\n")


def test_a_process_outlives_when_it_had_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE", 3)
    process, brief = started("import time; time.sleep(60)"), started("")
    at_work = started("while True: pass")
    began = time.monotonic()
    found = outliving([psutil.Process(process.pid), psutil.Process(brief.pid), psutil.Process(at_work.pid)], 0.2)
    assert {one.pid for one in found} == {process.pid, at_work.pid}
    assert time.monotonic() - began >= 0.2
    ended(process)
    ended(at_work)
    brief.wait()


def test_a_record_gives_what_the_same_code_found(tmp_path: Path) -> None:
    path = tmp_path / "found.jsonl"
    record = Record(path)
    assert record.find({"number": 1}) is None
    record.add({"number": 1, "seed": 0, "problems": []})
    record.add({"number": 2, "seed": 0, "problems": ["other"]})
    assert Record(path).find({"number": 1, "seed": 0}) == {"number": 1, "seed": 0, "problems": []}
    assert record.find({"number": 1, "seed": 7}) is None
    of_other_code = json.loads(path.read_text(encoding="utf-8").splitlines()[0]) | {"of_code": "other", "number": 3}
    path.write_text(json.dumps(of_other_code) + "\n" + '{"of_code": "cut', encoding="utf-8")
    assert record.find({"number": 3}) is None


def test_nothing_is_kept_where_no_file_is_named() -> None:
    record = Record(None)
    record.add({"number": 1})
    assert record.find({"number": 1}) is None
