"""What is kept: the same bits wherever that is, within the budgets, and never what is damaged or another row's."""

from __future__ import annotations

import copy
import logging
import multiprocessing
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

import reft.alone
import reft.constant_files
from reft.alone import Prompts
from reft.config import ReftConfig
from reft.constant_files import ConstantFiles
from reft.constants import Constants, ConstantStore, Ids, RowKey, Want
from reft.data import Encoded
from reft.keeper import ConeConfig, keeper_of, set_cone
from reft.model import ReftModel, causal_stack
from reft.schedule import FitConfig
from reft.training import StepMetrics, fit
from tests.reft.families import DECODERS, build
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
    """The prompts whose constants were computed."""
    found: list[tuple[int, ...]] = []
    compute = Prompts.compute

    def noted(self: Prompts, wanted: Mapping[RowKey, Want]) -> list[Constants]:
        found.extend(row[0] for row in wanted)
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
    monkeypatch.setattr(reft.constant_files, "_RESERVE", 1 << 60)
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


def test_two_processes_may_share_a_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_write_and_read, args=(tmp_path, seed)) for seed in (1, 2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors")) <= 60_000 * 1.125
    assert not list(tmp_path.rglob(".writing-*"))


def constants(numbers: int) -> Constants:
    return Constants({(0, ()): torch.zeros(1, numbers)})


def test_what_is_in_use_is_not_pushed_out_of_memory() -> None:
    """Rows read in turns that do not all fit would each push out the next, and none would be found."""
    store = ConstantStore(10_000, None, [], "")
    want = Want(frozenset([(0, ())]))
    made: list[int] = []

    def compute(wanted: Mapping[RowKey, Want]) -> list[Constants]:
        made.extend(row[0][0] for row in wanted)
        return [constants(1000) for _ in wanted]  # 4000 bytes

    def use(*rows: int) -> list[int]:
        made.clear()
        for row in rows:
            store.get(((row,),), want, compute)
        return list(made)

    store.begin()
    assert use(0, 1, 2) == [0, 1, 2]
    assert use(0, 1, 2, 0, 1, 2) == [2, 2]
    store.begin()
    assert use(1, 3) == [3]  # pushes out 0, the oldest
    assert use(1, 3, 0) == [0]
    assert store.nbytes == 8000


def test_rows_to_come_are_computed_beside_one_of_their_shape_while_there_is_room(tmp_path: Path) -> None:
    want, other = Want(frozenset([(0, ())])), Want(frozenset([(1, ())]))
    made: list[list[Ids]] = []

    def compute(wanted: Mapping[RowKey, Want]) -> list[Constants]:
        made.append([row[0] for row in wanted])
        return [Constants({next(iter(each.outputs)): torch.zeros(len(row[0]), 250)}) for row, each in wanted.items()]

    def use(store: ConstantStore, rows: Sequence[Ids]) -> list[list[Ids]]:
        made.clear()
        for row in rows:
            store.get((row,), want, compute)
        return list(made)

    rows: list[Ids] = [(1,), (2,), (3, 4), (5,), (6, 7), (8,)]
    files = ConstantFiles(tmp_path, BIG)
    store = ConstantStore(BIG, files, [], "b")
    store.begin(((row,), other if row == (5,) else want) for row in rows)
    assert use(store, rows) == [[(1,)], [(2,), (8,)], [(3, 4), (6, 7)], [(5,)]]  # the first tells how large they are
    store.begin(((row,), want) for row in rows)
    assert use(store, rows) == []
    again = ConstantStore(BIG, files, [], "b")
    again.begin(((row,), want) for row in [*rows, (9,), (10,)])
    assert use(again, [(9,), (10,), *rows]) == [[(9,)], [(10,)]]
    small = ConstantStore(3000, None, [], "b")
    small.begin(((row,), want) for row in rows)
    assert use(small, rows) == [[(1,)], [(2,), (5,)], [(3, 4)], [(6, 7)], [(8,)]]
    assert small.nbytes == 3000


def wide(family: str = "llama") -> Any:
    """A base whose products are no longer those for tiny matrices."""
    base = build(DECODERS[family])
    config = copy.deepcopy(base.config)
    config.update({"hidden_size": 192, "intermediate_size": 512, "head_dim": 48})
    torch.manual_seed(0)
    return type(base)(config).eval()


def lacking(count: int, tokens: int, after: int = 2) -> dict[RowKey, Want]:
    """Prompts of one length; each is continued by tokens of its own, every other by one less."""
    keys = [(tuple((place * 7 + token * 3) % 30 for token in range(tokens)),) for place in range(count)]
    afters = [tuple((place + token) % 30 for token in range(after - place % 2)) for place in range(count)]
    return {key: Want(frozenset([(0, ()), (1, ()), (1, after)]), 1) for key, after in zip(keys, afters, strict=True)}


def each_alone(base: Any, wanted: Mapping[RowKey, Want]) -> list[Constants]:
    return [Prompts(base, causal_stack(base), {}).compute({key: want})[0] for key, want in wanted.items()]


def same_bits(some: Sequence[Constants], others: Sequence[Constants]) -> bool:
    return all(
        one.record() == other.record()
        and one.tensors().keys() == other.tensors().keys()
        and all(torch.equal(tensor, other.tensors()[name]) for name, tensor in one.tensors().items())
        for one, other in zip(some, others, strict=True)
    )


@pytest.mark.parametrize("family", sorted(DECODERS))
def test_of_any_type_rows_have_the_same_bits_side_by_side_as_alone(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reft.alone, "_FEW", 0)
    base, wanted = build(DECODERS[family]), lacking(5, 8, after=4)
    same: dict[tuple[int, int, int], bool] = {}
    assert same_bits(Prompts(base, causal_stack(base), same).compute(wanted), each_alone(base, wanted))
    assert set(same) == (set() if family in ("gpt_oss", "mixtral") else {(0, 8, 5), (8, 4, 3), (8, 3, 2)})


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_of_any_length_and_number_too_where_they_do_run_side_by_side(family: str) -> None:
    base = wide(family)
    same: dict[tuple[int, int, int], bool] = {}
    for tokens in (8, 13, 31, 32, 47):
        for count in (7, 2, 5, 16):
            wanted = lacking(count, tokens, after=8)
            assert same_bits(Prompts(base, causal_stack(base), same).compute(wanted), each_alone(base, wanted))
    assert {tokens for before, tokens, _ in same if not before} == {8, 13, 31, 32, 47}  # whatever was found of them
    assert (31, 8, 8) in same


def test_experts_run_each_row_alone() -> None:
    """How large their products are follows from what the rows say, so that no row vouches for another."""
    base, wanted = wide("mixtral"), lacking(16, 31)
    skewed = {((5,) * (31 - place) + (7,) * place,): want for place, want in enumerate(wanted.values())}
    same: dict[tuple[int, int, int], bool] = {}
    for each in (wanted, skewed):
        assert same_bits(Prompts(base, causal_stack(base), same).compute(each), each_alone(base, each))
    assert same == {}


def test_many_continuations_of_a_prompt_are_run_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    base = build_base()
    afters = [(place % 30, place // 30) for place in range(50)]
    want = Want(frozenset([(0, ()), *((0, after) for after in afters)]), 1)
    wanted: dict[RowKey, Want] = {((1, 2, 3),): want, ((4, 5, 6),): want}
    largest = 0
    run_behind = reft.alone.run_behind

    def noted(*given: Any) -> Tensor:
        nonlocal largest
        largest = max(largest, *(len(keys) for keys, _ in given[3].frozen.values()), 0)
        assert all(layer == 0 for layer in given[3].frozen)
        return run_behind(*given)

    alone = each_alone(base, wanted)
    monkeypatch.setattr(reft.alone, "run_behind", noted)
    monkeypatch.setattr(reft.alone, "_FEW", 0)
    assert same_bits(Prompts(base, causal_stack(base), {}).compute(wanted), alone)
    assert 1 < largest <= 16


def test_a_machine_that_gives_other_bits_side_by_side_runs_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    base, wanted = wide(), lacking(4, 13)
    alone = each_alone(base, wanted)
    passes: list[int] = []
    run_behind = reft.alone.run_behind

    def noted(*given: Any) -> Tensor:
        passes.append(len(given[1]))
        return run_behind(*given)

    def other_bits(_module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output * (1 + 2**-20) if len(given[0]) > 1 else output

    monkeypatch.setattr(reft.alone, "run_behind", noted)
    base.get_input_embeddings().register_forward_hook(other_bits)
    same: dict[tuple[int, int, int], bool] = {}
    for known in (False, True):
        passes.clear()
        assert same_bits(Prompts(base, causal_stack(base), same).compute(wanted), alone)
        assert same == {(0, 13, 4): False}  # of the continuations there are too few numbers
        assert passes == ([] if known else [4, 1, 1, 1, 1]) + [1] * 8


def test_a_file_that_another_process_removes_meanwhile_loses_no_part(tmp_path: Path) -> None:
    first, both = Want(frozenset([(0, ())])), Want(frozenset([(0, ()), (1, ())]))

    def compute(wanted: Mapping[RowKey, Want]) -> list[Constants]:
        for path in tmp_path.rglob("*.safetensors"):
            path.unlink()
        return [Constants({output: torch.ones(1, 4) for output in want.outputs}) for want in wanted.values()]

    store = ConstantStore(0, ConstantFiles(tmp_path, BIG), [], "b")
    store.get(((1,),), first, compute)
    assert not both.without(store.get(((1,),), both, compute).extent)


def test_rows_of_a_training_are_still_to_come_after_a_report() -> None:
    want = Want(frozenset([(0, ())]))
    made: list[int] = []

    def compute(wanted: Mapping[RowKey, Want]) -> list[Constants]:
        made.append(len(wanted))
        return [constants(4) for _ in wanted]

    store = ConstantStore(BIG, None, [], "")
    store.begin([(((row,),), want) for row in range(40)])
    store.get(((0,),), want, compute)
    store.begin([(((100,),), want)])
    store.get(((100,),), want, compute)
    store.get(((30,),), want, compute)
    assert made == [1, 16, 16]
    store.begin()
    store.begin()
    store.get(((39,),), want, compute)
    assert made[3:] == [1]


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
