"""The benchmark of an accelerator, on the CPU and tiny bases: all its parts, planted faults, errors and time limits."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import reft.cone.decoder
import reft.edits.hooks
from benchmarks.cost import check
from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import processes
from benchmarks.gpu.bench import Bench, Figure, Part
from benchmarks.gpu.limit import OutOfTimeError, within
from benchmarks.gpu.run import FAILED, LATE, OK
from tests.arrows import reached


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def ask(out: Path, *more: str) -> int:
    return gpu.main(["--out", str(out), "--device", "cpu", "--tiny", "--minutes", "60", *more])


def outcome(out: Path, part: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((out / f"{part}.json").read_text(encoding="utf-8"))
    return read


@pytest.mark.parametrize("others", [False, pytest.param(True, marks=pytest.mark.long)])
def test_every_part_is_ok_on_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, others: bool
) -> None:
    if not others:  # they may be missing where a GPU is
        monkeypatch.setattr(check, "find_spec", lambda _name: None)
    assert ask(tmp_path) == 0
    found = {part: outcome(tmp_path, part) for part in gpu.PARTS}
    assert {part: each["error"] for part, each in found.items() if each["status"] != OK} == {}
    assert all(each["figures"] for each in found.values())
    assert "13 of 13 parts are ok." in capsys.readouterr().out
    assert {path.stem for path in tmp_path.iterdir()} == {*gpu.PARTS, "setting"}
    timed = {each.get("contender") for each in found["steps"]["figures"]} - {None}
    assert timed == {"ours", "floor", *(("pyreft", "LoRA") if others else ())}
    left_out = [each["left out"] for each in found["steps"]["figures"] if "left out" in each]
    assert left_out == ([] if others else [{"pyreft": "pyreft is not here", "LoRA": "peft is not here"}] * 2)


def test_what_a_part_could_not_ask_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(tmp_path, "--parts", "waits,processes") == 0
    said = capsys.readouterr().out
    assert "a program does not wait for its own CPU" in said
    assert "two processes need 2 CUDA devices; there are 0" in said


def test_a_wrong_mask_fails_the_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    laid_out = reft.cone.decoder.lay_out

    def wrong(*given: Any) -> Any:
        window = laid_out(*given)
        mask = window.mask.clone()
        mask[:, :1] = 0  # each row's first column is hidden from the others
        return replace(window, mask=mask)

    monkeypatch.setattr(reft.cone.decoder, "lay_out", wrong)
    assert ask(tmp_path, "--parts", "cone,padding") == 1
    assert "the base has a cone" in outcome(tmp_path, "cone")["error"]  # which its own trial denies


def test_edits_one_token_off_fail_the_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    laid_out = reft.cone.decoder.lay_out

    def wrong(*given: Any) -> Any:  # of which the cone's own trial, on unedited rows, sees nothing
        window = laid_out(*given)
        return replace(window, prompt_lengths=window.prompt_lengths - 1)

    monkeypatch.setattr(reft.cone.decoder, "lay_out", wrong)
    assert ask(tmp_path, "--parts", "cone,resume") == 1
    assert "by the cone are whole rows' in fp32" in outcome(tmp_path, "cone")["error"]
    assert outcome(tmp_path, "resume")["status"] == OK


def test_edits_that_the_cache_loses_fail_the_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = reft.edits.hooks._flat_places

    def wrong(mask: torch.Tensor, past: int, rows: int, columns: int) -> torch.Tensor:
        return places(mask, past, rows, columns)[:0] if past else places(mask, past, rows, columns)

    monkeypatch.setattr(reft.edits.hooks, "_flat_places", wrong)
    assert ask(tmp_path, "--parts", "generation") == 1
    assert "the likeliest of its row alone" in outcome(tmp_path, "generation")["error"]


def test_an_error_or_a_lack_of_time_does_not_end_the_other_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def slow(_bench: Bench) -> Iterator[Figure]:
        yield {"seen": 1}
        try:
            time.sleep(60)
        except Exception as error:  # noqa: BLE001  as of a library that is measured beside ours
            yield {"seen": str(error)}
        yield {"seen": 2}

    def broken(_bench: Bench) -> Iterator[Figure]:
        yield {"seen": 1}
        raise RuntimeError("out of memory")

    def fine(_bench: Bench) -> Iterator[Figure]:
        yield {"seen": 1}

    parts = [Part("slow", "", 1.0, slow), Part("broken", "", 1.0, broken), Part("fine", "", 1.0, fine)]
    monkeypatch.setattr(gpu, "PARTS", {part.name: part for part in parts})
    status = gpu.main(["--out", str(tmp_path), "--device", "cpu", "--tiny", "--minutes", "0.01"])
    assert status == 1
    found = {part.name: outcome(tmp_path, part.name) for part in parts}
    assert {name: each["status"] for name, each in found.items()} == {"slow": LATE, "broken": FAILED, "fine": OK}
    assert all(each["figures"] == [{"seen": 1}] for each in found.values())
    assert "out of memory" in found["broken"]["error"]
    assert "1 of 3 parts are ok: not slow, broken." in capsys.readouterr().out


def test_a_limit_leaves_an_alarm_of_others_as_it_was() -> None:
    import signal

    rung: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _frame: rung.append(number))
    earlier = signal.setitimer(signal.ITIMER_REAL, 30)
    try:
        with pytest.raises(OutOfTimeError), within(0.05):
            time.sleep(10)
        left, _ = signal.setitimer(signal.ITIMER_REAL, 0)
        assert 0 < left < 30
        signal.raise_signal(signal.SIGALRM)
        assert rung == [signal.SIGALRM]
    finally:
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *earlier)


def test_the_benchmark_needs_no_pipeline() -> None:
    rooms = {module.partition(".")[0] for module in reached("benchmarks.gpu.__main__")}
    assert rooms == {"benchmarks", "reft"}


@pytest.mark.long
def test_two_processes_have_the_losses_of_one() -> None:
    figure = processes.beside_one("cpu", tiny=True)
    assert len(figure["two"]["losses"]) == 12
    assert figure["apart"] <= 1e-5
