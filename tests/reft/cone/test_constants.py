"""What is kept: the same bits wherever that is, within the budgets, and never what is damaged or another row's."""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

import reft.cone.compute
import reft.cone.files
from reft.cone.compute import Prompts
from reft.cone.constants import Constants, RowKey, Want
from reft.cone.files import ConstantFiles
from reft.cone.keeper import ConeConfig, keeper_of, set_cone
from reft.cone.window import one_pass
from reft.data import Encoded
from reft.edits.config import ReftConfig
from reft.models.decoder import ReftModel
from reft.training.fit import StepMetrics, fit
from reft.training.schedule import FitConfig
from tests.reft.tiny import build_base, build_rows

ROWS = build_rows(13)
CONFIG = FitConfig(
    epochs=2, batch_size=3, accumulation=2, learning_rate=1e-2, warmup_ratio=0.2, weight_decay=0.1, max_grad_norm=1.0,
    seed=7, checkpoint_every=2,
)  # fmt: skip
SHA = "ab" * 32
BIG = 1 << 30


def trained(cone: ConeConfig, layers: tuple[int, ...] = (0, 2)) -> tuple[ReftModel, list[StepMetrics]]:
    base = build_base()
    set_cone(base, cone)
    model = ReftModel(base, ReftConfig(layers, "l2", 2, init="paper"), seed=1)
    steps = list(fit(model, ROWS, CONFIG, pad_id=0))
    return model, [replace(step, seconds=0.0) for step in steps]


def bits(model: ReftModel) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.trainable_parameters().items()}


def same(one: ReftModel, other: ReftModel) -> bool:
    return all(torch.equal(value, bits(other)[name]) for name, value in bits(one).items())


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The prompts whose constants were computed, without those of the rows that a base is tried with."""
    known = {one_pass(row)[0] for row in ROWS}
    found: list[tuple[int, ...]] = []
    compute = Prompts.compute

    def noted(self: Prompts, wanted: Mapping[RowKey, Want]) -> list[Constants]:
        found.extend(row[0] for row in wanted if row[0] in known)
        return compute(self, wanted)

    monkeypatch.setattr(Prompts, "compute", noted)
    return found


def test_every_budget_gives_the_same_bits(tmp_path: Path, computed: list[tuple[int, ...]]) -> None:
    """Kept in memory, on disk, partly, or computed anew each time."""
    whole, expected = trained(ConeConfig())
    assert len(computed) == len(ROWS)
    kept = keeper_of(whole.base).store(whole.base)
    assert kept is not None
    for memory, disk in ((0, 0), (kept.nbytes // 2, 0), (0, BIG), (kept.nbytes // 3, 12_000)):
        folder = tmp_path / f"{memory}-{disk}"
        before = len(computed)
        model, steps = trained(ConeConfig(memory_bytes=memory, disk_bytes=disk, folder=folder, base_sha256=SHA))
        assert same(model, whole)
        assert steps == expected
        again = len(computed) - before
        assert again == len(ROWS) if disk == BIG else len(ROWS) < again <= 2 * len(ROWS)
        store = keeper_of(model.base).store(model.base)
        assert store is not None
        assert store.nbytes <= memory
        assert sum(path.stat().st_size for path in folder.rglob("*.safetensors")) <= disk


def test_another_process_computes_nothing_again(tmp_path: Path, computed: list[tuple[int, ...]]) -> None:
    cone = ConeConfig(disk_bytes=BIG, folder=tmp_path, base_sha256=SHA)
    one, _ = trained(cone)
    assert len(computed) == len(ROWS)
    other, _ = trained(cone)  # another base object, so what is in memory is not found
    assert len(computed) == len(ROWS)
    assert same(one, other)
    trained(cone, layers=(1, 2))  # another lowest layer: the keys are there, its output is not
    trained(replace(cone, base_sha256="cd" * 32))
    assert len(computed) == 3 * len(ROWS)


def damage_of(name: str) -> Callable[[Path], None]:
    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[-40] ^= 1
        path.write_bytes(bytes(content))

    def rename(path: Path) -> None:
        others = [other for other in path.parent.iterdir() if other != path]
        path.write_bytes(others[0].read_bytes())

    def header(path: Path) -> None:
        path.write_bytes(path.read_bytes().replace(b"output/0", b"output/1", 1))

    return {
        "flipped": flip,
        "cut": lambda path: path.write_bytes(path.read_bytes()[:-9]) and None,
        "empty": lambda path: path.write_bytes(b"") and None,
        "noise": lambda path: path.write_bytes(b"\xff" * 300) and None,
        "another row's": rename,
        "header": header,
    }[name]


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "noise", "another row's", "header"])
def test_a_damaged_file_is_found_out_and_made_again(
    tmp_path: Path, computed: list[tuple[int, ...]], caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    cone = ConeConfig(disk_bytes=BIG, folder=tmp_path, base_sha256=SHA)
    whole, _ = trained(cone)
    files = sorted(tmp_path.rglob("*.safetensors"))
    content = files[3].read_bytes()
    damage_of(damage)(files[3])
    computed.clear()
    with caplog.at_level(logging.WARNING):
        model, _ = trained(cone)
    assert "damaged" in caplog.text
    assert len(computed) == 1
    assert same(model, whole)
    assert files[3].read_bytes() == content


def test_a_file_says_what_it_holds_and_half_written_ones_are_no_such_files(tmp_path: Path) -> None:
    cone = ConeConfig(disk_bytes=BIG, folder=tmp_path, base_sha256=SHA)
    trained(cone)
    files = list(tmp_path.rglob("*"))
    assert {path.parent for path in files if path.is_file()} == {tmp_path / SHA[:16]}
    assert len([path for path in files if path.is_file()]) == len(ROWS)
    with safe_open(next(path for path in files if path.is_file()), framework="pt") as file:
        assert list(file.metadata()) == ["sha256 and record"]


def write(files: ConstantFiles, name: str, *, numbers: int = 50_000, value: float = 1.5) -> None:
    files.write(name, "base", {"output/0": torch.full((numbers,), value)}, {"lowest": None, "outputs": [[0, []]]})


def names(folder: Path) -> set[str]:
    return {path.stem for path in folder.rglob("*.safetensors")}


def test_the_oldest_files_go_first_and_none_that_is_in_use(tmp_path: Path) -> None:
    files = ConstantFiles(tmp_path, 1_000_000)  # of files of 200 kB
    for name in "abcd":
        write(files, name)
    for age, path in enumerate(sorted(tmp_path.rglob("*.safetensors"), reverse=True)):
        os.utime(path, (time.time() - 100 - age,) * 2)
    files.begin()
    assert files.read("a", "base") is not None  # its last use is now
    write(files, "e")
    write(files, "f")
    assert names(tmp_path) == {"a", "d", "e", "f"}
    write(files, "g")
    write(files, "h")  # all the others are in use
    assert names(tmp_path) == {"a", "e", "f", "g"}
    files.begin()
    time.sleep(0.05)
    files.begin()
    write(files, "i")
    assert "i" in names(tmp_path)


def test_a_full_disk_stops_the_writing_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole, _ = trained(ConeConfig())
    replaced = Path.replace

    def full(path: Path, target: Path) -> Path:
        if path.suffix == ".safetensors":
            raise OSError(28, "No space left on device")
        return replaced(path, target)

    monkeypatch.setattr(Path, "replace", full)
    model, _ = trained(ConeConfig(disk_bytes=BIG, folder=tmp_path, base_sha256=SHA))
    assert same(model, whole)
    assert caplog.text.count("no space is left") == 1
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_the_last_of_a_disk_is_left_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reft.cone.files, "_RESERVE", 1 << 60)
    files = ConstantFiles(tmp_path, BIG)
    write(files, "a")
    assert names(tmp_path) == set()


def _write_and_read(folder: Path, seed: int) -> None:
    """Write, read and push out files that another process does the same with."""
    files = ConstantFiles(folder, 60_000)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(120):
        number = int(torch.randint(0, 12, (), generator=generator))
        if number == 0:
            files.begin()
        found = files.read(str(number), "base")
        if found is None:
            write(files, str(number), numbers=1000, value=float(number))
        elif not bool((found[0]["output/0"] == number).all()):
            raise AssertionError(number)


@pytest.mark.long
def test_two_processes_may_share_a_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_write_and_read, args=(tmp_path, seed)) for seed in (1, 2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(300)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors")) <= 60_000 * 1.125
    assert not list(tmp_path.rglob(".writing-*"))


def test_a_completion_longer_than_its_prompt_keeps_no_keys() -> None:
    base = build_base()
    long, short = Encoded(tuple(range(12)), 3), Encoded(tuple(range(6)), 3)
    model = ReftModel(base, ReftConfig((0,), "l1", 2), seed=1)
    for row, tokens in ((long, 3 - 1), (short, 5 - 1)):
        set_cone(base, ConeConfig())
        model.row_losses([row], 0)
        store = keeper_of(base).store(base)
        assert store is not None
        [entry] = store._kept.values()
        assert entry.constants.keys_values is not None
        assert entry.constants.keys_values.shape[3] == tokens


def test_a_resumed_training_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole, expected = trained(ConeConfig())
    for stop in (1, 3):
        cone = ConeConfig(memory_bytes=3_000, disk_bytes=BIG, folder=tmp_path / f"cone-{stop}", base_sha256=SHA)
        for last in (stop, None):
            base = build_base()
            set_cone(base, cone)
            model = ReftModel(base, ReftConfig((0, 2), "l2", 2, init="paper"), seed=1)
            steps = []
            for step in fit(model, ROWS, CONFIG, pad_id=0, checkpoint=tmp_path / f"run-{stop}"):
                steps.append(step)
                if step.step == last:
                    break
        assert same(model, whole)
        assert [replace(step, seconds=0.0, replayed=False) for step in steps] == expected


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        ({"memory_bytes": -1}, "not negative; got -1"),
        ({"folder": Path("x")}, "need the base's sha256"),
        ({"layers": frozenset([-1, 2])}, r"counted from 0; got \[-1, 2\]"),
    ],
)
def test_a_config_checks_itself(wrong: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        ConeConfig(**wrong)
