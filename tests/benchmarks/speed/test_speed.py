"""The speed benchmark on a tiny base: that it compares the same work, and what it prints. The times mean nothing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch

from benchmarks.sides import others as peers
from benchmarks.sides.ours import CASES, OurTraining, Subject, fit_config
from benchmarks.sides.random_base import random_subject
from benchmarks.sides.rows import Text, text_rows
from benchmarks.sides.timing import Timing
from benchmarks.speed import __main__ as speed
from benchmarks.speed import agreement, beside, counting, growth, inference, memory, profiling, tables
from benchmarks.speed.agreement import DisagreementError, matched
from benchmarks.speed.parts import PARTS, Options
from benchmarks.speed.peak import peak_memory
from benchmarks.speed.steps import BATCHES, OURS, PYREFT
from benchmarks.speed.tables import Ratio
from tests.tiny import CORPUS, tiny_llama, tiny_tokenizer

OPTIONS = Options(
    cases=(CASES["a"], CASES["d"]),
    batches=(2,),
    prompts=(24,),
    long_batch=1,
    repeats=2,
    rows=4,
    epochs=2,
    scored=3,
    tokens=3,
    search_train=4,
    search_validation=3,
    search_positions=("f1+l1", "l2"),
    threads=1,
    beside_threads=(1, 2),
    root=Path(),
)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def subject() -> Subject:
    """Four layers with weights large enough that an edit shows in the loss."""
    tokenizer = tiny_tokenizer()
    base = tiny_llama(vocab=len(tokenizer), layers=4)
    with torch.no_grad():
        for parameter in base.parameters():
            if parameter.dim() > 1:
                parameter.mul_(5)
    return Subject(base, tokenizer, Text(tuple(CORPUS * 400), "a test"), "tiny")


def tables_of(text: str) -> list[list[list[str]]]:
    """The Markdown tables of a text, as rows of cells."""
    found = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    return [[[cell.strip() for cell in line.strip("|").split("|")] for line in each.splitlines()] for each in found]


@pytest.mark.long
def test_every_part_measures_and_prints_a_table(subject: Subject, capsys: pytest.CaptureFixture[str]) -> None:
    parts = [name for name in PARTS if name not in ("memory", "beside")]  # which start processes
    figures = speed.run(subject, parts, OPTIONS)
    said = capsys.readouterr().out
    assert [line for line in said.splitlines() if line.startswith("## ")] == [
        f"## {PARTS[name].title}" for name in parts
    ]
    for rows in tables_of(said):
        assert len(rows) > 2
        assert {len(row) for row in rows} == {len(rows[0])}
    steps = tables_of(said)[0]
    assert steps[0][3:7] == ["ours, ms", "pyreft, ms", "LoRA, ms", "floor, ms"]
    assert [row[0] for row in steps[2:]] == [str(CASES["a"]), str(CASES["d"])]
    assert all(float(cell) > 0 for row in steps[2:] for cell in row[3:7])
    assert all(re.fullmatch(r"\d+\.\d\d \(\d+\.\d\d–\d+\.\d\d\)", cell) for row in steps[2:] for cell in row[7:])
    assert len(said.split("at equal weights")) == 3  # steps and scoring
    assert len(figures["search"]) == 6
    assert json.loads(json.dumps(figures, default=speed.plain))["steps"][0]["difference"] < agreement.TOLERANCE


def test_losses_agree_where_the_edit_shows(subject: Subject) -> None:
    config, rows = CASES["a"].config(subject.num_layers), subject.rows(24, 2 * BATCHES)
    pair = matched(subject, config, rows, fit_config(2, 2))
    batch = pair.ours.model.collate(rows[:2], subject.pad_id)
    with torch.no_grad():
        edited = pair.ours.model.loss(batch)
        with pair.ours.model.disabled():
            frozen = pair.ours.model.loss(batch)
    assert abs(edited - frozen) > 100 * agreement.TOLERANCE


@pytest.mark.parametrize("case", ["a", "d"])
def test_every_step_is_of_the_same_rows(subject: Subject, case: str) -> None:
    """At a rate that changes nothing, the losses of other rows would be others."""
    config, rows = CASES[case].config(subject.num_layers), subject.rows(24, 8)
    fit = replace(fit_config(2, 2), learning_rate=1e-20)
    peer, model = inference.pair(subject, config)
    ours = OurTraining(model, rows, fit, pad_id=subject.pad_id)
    theirs = peers.pyreft_training(peer, subject, config, rows, fit)
    losses = [(ours.step(), theirs.step()) for _ in range(8)]
    assert all(abs(one - other) < agreement.TOLERANCE for one, other in losses)
    assert len({round(one, 3) for one, _ in losses}) == 4  # batches; in another order in the second epoch


@pytest.mark.parametrize("planted", ["positions", "weights"])
def test_what_does_other_work_is_not_timed(subject: Subject, monkeypatch: pytest.MonkeyPatch, planted: str) -> None:
    if planted == "positions":
        real = peers.locations
        monkeypatch.setattr(
            peers, "locations", lambda *given: [[place + 1 for place in places] for places in real(*given)]
        )
    else:
        monkeypatch.setattr(agreement, "copy_weights", lambda *given: None)
    config = CASES["c"].config(subject.num_layers)
    with pytest.raises(DisagreementError, match="must agree"):
        matched(subject, config, subject.rows(24, 8), fit_config(2, 2))


def test_generation_that_differs_is_refused(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "copy_weights", lambda *given: None)
    with pytest.raises(DisagreementError, match="other tokens"):
        inference.measure_generation(subject, CASES["a"], batch=2, prompt=24, tokens=3, repeats=1)


@pytest.mark.parametrize("side", [OURS, PYREFT])
def test_memory_is_reported_as_json(
    subject: Subject, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], side: str
) -> None:
    """The peak is no less than what was held before, also where the later of two readings is."""
    readings = iter([peak_memory(), peak_memory() - (1 << 20)])
    monkeypatch.setattr(memory, "load_subject", lambda root, threads: subject)
    monkeypatch.setattr(memory, "peak_memory", lambda: next(readings))
    memory.main(["--side", side, "--batch", "2", "--prompt", "24"])
    said = json.loads(capsys.readouterr().out)
    assert said["side"] == side
    assert 50e6 < said["built"] <= said["peak"]  # bytes: a process with torch in it


def test_the_peak_is_of_the_process_that_asks() -> None:
    """A small program that a large one starts has a small peak."""
    held = bytearray(b"x") * 200_000_000
    code = "from benchmarks.speed.peak import peak_memory; print(peak_memory())"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert 1e6 < int(done.stdout) < len(held) < peak_memory()


@pytest.mark.long
def test_growth_has_a_table_and_a_picture(
    subject: Subject, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(growth, "load_subject", lambda root, threads: subject)
    monkeypatch.setattr(growth, "AXES", {"rank": (1, 4), "layers": (4, 5), "prompt": (24,), "rows": (1,)})
    growth.main(["--cases", "c", "--repeats", "2", "--plot", str(tmp_path / "growth.png")])
    (rows,) = tables_of(capsys.readouterr().out)
    assert [row[1:3] for row in rows[2:]] == [
        ["rank", "1"], ["rank", "4"], ["edited layers", "4"], ["tokens of a prompt", "24"], ["rows of a step", "1"],
    ]  # fmt: skip
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")


def loaded(_root: Path, *, threads: int) -> Subject:
    torch.set_num_threads(threads)
    return random_subject("tiny", torch.device("cpu"), torch.float32, texts=2)


@dataclass
class Asking:
    """One end of a pipe whose other end was closed after some questions."""

    questions: list[str]
    answers: list[float] = field(default_factory=list)

    def recv(self) -> str:
        if not self.questions:
            raise EOFError
        return self.questions.pop(0)

    def send(self, answer: float) -> None:
        self.answers.append(answer)


@pytest.mark.long
def test_both_sides_step_in_turn_in_processes_of_their_own() -> None:
    """As many operations as in one process: of the same rows."""
    setting = beside.Setting(CASES["d"], batch=2, prompt=60, threads=1, repeats=2)
    one, two = beside.measure_beside(loaded(Path(), threads=1), setting, root=Path(), load=loaded)
    assert (one.processes, two.processes) == (1, 2)
    assert one.operations == two.operations
    assert all(len(each.seconds) == 2 for each in (*one.seconds.values(), *two.seconds.values()))
    said = tables_of(tables.beside_table([one, two], {"d": "recipe"}))[0]
    assert said[2][3] == said[3][3] == f"{one.operations[PYREFT] / one.operations[OURS]:.2f}"


def test_operations_are_counted_without_a_clock_also_of_the_step_that_fills(subject: Subject) -> None:
    found = counting.count_steps(subject, CASES["d"], batch=2, prompt=60)
    assert found == counting.count_steps(subject, CASES["d"], batch=2, prompt=60)
    assert 4 * found.warm < found.first < found.pyreft, "of 60 tokens four are edited, in half of the layers"
    said = tables_of(tables.operation_table([found], {"d": "recipe"}))[0]
    assert said[2][1:3] == [f"{found.pyreft / found.warm:.2f}", f"{found.pyreft / found.first:.2f}"]


def test_a_process_that_trains_answers_until_it_is_left() -> None:
    """Here without a process: what it was asked before the other end was closed, it answers."""
    setting = beside.Setting(CASES["d"], batch=2, prompt=24, threads=1, repeats=2)
    firsts = {}
    for side in (OURS, PYREFT):
        asking = Asking([beside.COUNT, beside.STEP])
        beside.serve(asking, side, setting, Path(), loaded)  # type: ignore[arg-type]
        firsts[side], operations, seconds = asking.answers
        assert operations > 0
        assert isinstance(operations, int)
        assert 0 < seconds < 60
    assert abs(firsts[OURS] - firsts[PYREFT]) < agreement.TOLERANCE  # both start at pyreft's weights


def test_what_lies_between_operations_and_times_is_told_by_kind() -> None:
    """Ours has 10 operations in a second of products, half of it at pyreft's rate of 20 a second."""

    def side(operations: int, products: float) -> profiling.Profile:
        groups = {
            "matrix products": products,
            "softmax of attention": 0.5,
            profiling.OTHER: 0.25,
            profiling.PYTHON: 0.25,
        }
        own = tuple(profiling.Share(group, seconds, (("aten::mm", seconds),)) for group, seconds in groups.items())
        return profiling.Profile(2.5, products + 1.0, own, operations, 0.1, 3.0)

    gap = profiling.Gap(ours=side(10, 1.0), pyreft=side(40, 2.0))
    assert gap.rate == 20.0
    assert gap.ours.beyond(gap.rate) == {
        "products at a lower rate": 0.5, "softmax of attention": 0.5, profiling.OTHER: 0.25, profiling.PYTHON: 0.25,
    }  # fmt: skip
    assert gap.told == 1 - 0.25 / 1.5
    said = tables.gap_table(gap)
    assert "| operations at 0.0 GFLOP/s | 500.0 | 2000.0 |" in said
    assert "Operations, pyreft / ours: 4.00; time without the profiler: 1.00." in said


def test_a_profile_is_of_a_step_with_constants(subject: Subject, caplog: pytest.LogCaptureFixture) -> None:
    """A hook on the base, to tell where it begins, would take them away; that is said once."""
    gap = profiling.profile_pair(subject, CASES["d"], batch=2, prompt=24, steps=1)
    assert "kept" not in caplog.text
    assert gap.ours.operations < gap.pyreft.operations / 2
    assert gap.told > 0.5


@dataclass(frozen=True)
class Event:
    name: str
    start: float
    end: float
    self_cpu_time_total: float
    cpu_parent: Event | None = None

    @property
    def time_range(self) -> Event:
        return self


def test_all_before_a_base_begins_is_one_group() -> None:
    """In microseconds: 300 before the embedding, then a product and a sum; 100 of the step are Python's."""
    step = Event(profiling.STEP, 0, 1000, 400)
    events = [
        step,
        Event("aten::copy_", 100, 200, 100, step),
        Event(profiling.FIRST, 300, 350, 50, step),
        Event("aten::mm", 350, 850, 500, step),
        Event("aten::add", 850, 900, 50, step),
    ]
    found = {each.group: each.seconds for each in profiling.shares(events, wall=1e-3, steps=1, on_device=False)}
    assert found[profiling.COLLATION] == pytest.approx(300e-6)
    assert found["matrix products"] == pytest.approx(500e-6)
    assert found["norms, rotary embeddings, gates and sums"] == pytest.approx(50e-6)
    assert found[profiling.PYTHON] == pytest.approx(100e-6)
    assert "copies, joins and zeros" not in found
    assert sum(found.values()) == pytest.approx(1e-3)


def test_rows_are_windows_of_the_text() -> None:
    tokenizer = tiny_tokenizer()
    rows = text_rows(tokenizer, CORPUS * 40, prompt=24, count=8)
    assert {row.num_targets for row in rows} == {10}
    assert len({row.prompt_length for row in rows}) > 1
    assert all(17 <= row.prompt_length <= 31 for row in rows)
    joined = [token for row in rows for token in row.input_ids]
    assert joined == tokenizer("\n\n".join(CORPUS * 40) + "\n\n")["input_ids"][: len(joined)]
    with pytest.raises(ValueError, match="needs as much text"):
        text_rows(tokenizer, CORPUS, prompt=24, count=8)


def test_a_ratio_is_of_neighbours_in_time() -> None:
    """Twice the work on a machine that slows down tenfold is twice the work."""
    ratio = Ratio.of(Timing((2.0, 20.0, 2.0)), Timing((1.0, 10.0, 1.0)))
    assert (ratio.median, ratio.low, ratio.high) == (2.0, 2.0, 2.0)


@pytest.mark.parametrize("words", [["--cases", "e"], ["--batch", "0"], ["--parts", "step"], ["--repeats", "x"]])
def test_a_wrong_word_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        speed.main(words)
    assert "must be" in capsys.readouterr().err
