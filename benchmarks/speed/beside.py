"""Operations and times of our step beside pyreft's: in one process, and in turn with each in a process of its own.

Two trainings in one process share its threads, its allocator and the processor's caches. Whether that moves the ratio
of their times is seen where each has a process to itself, and steps while the other waits.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.sides.operations import Counted
from benchmarks.sides.others import copy_weights, pyreft_model, pyreft_training
from benchmarks.sides.ours import Case, OurTraining, Subject, Training, fit_config
from benchmarks.sides.timing import Timing, interleaved
from benchmarks.speed.agreement import agree, matched
from benchmarks.speed.steps import BATCHES, EPOCHS, OURS, PYREFT, once
from pipelines.runtime.device import torch_threads

STEP, COUNT = "step", "count"
Load = Callable[..., Subject]
"""Loads what is measured from a project's root, with ``threads``, as :func:`benchmarks.sides.project.load_subject`."""


@dataclass(frozen=True)
class Setting:
    """How a recipe's steps are measured.

    Attributes:
        case: the recipe.
        batch: rows of a step.
        prompt: nominal tokens of a prompt.
        threads: of torch.
        repeats: rounds.
    """

    case: Case
    batch: int
    prompt: int
    threads: int
    repeats: int


@dataclass(frozen=True)
class BesideFigures:
    """Warm steps of one recipe, ours beside pyreft's.

    Attributes:
        case: the recipe's letter.
        threads: of torch.
        processes: how many: one for both, or two.
        operations: of matrix products in a step, by contender, of the same rows.
        seconds: of a step, by contender.
        difference: of our loss and pyreft's before the timing, in nats.
    """

    case: str
    threads: int
    processes: int
    operations: dict[str, int]
    seconds: dict[str, Timing]
    difference: float


def measure_beside(subject: Subject, setting: Setting, *, root: Path, load: Load) -> Iterator[BesideFigures]:
    """Time warm steps of both in one process, then in two.

    Args:
        subject: of this process.
        setting: recipe, rows, threads and rounds.
        root: the project's root, that each process loads its own subject from.
        load: what loads it.

    Raises:
        DisagreementError: if losses at equal weights are others.
    """
    yield _in_one(subject, setting)
    yield _in_two(setting, root, load)


def _in_one(subject: Subject, setting: Setting) -> BesideFigures:
    config, rows = setting.case.config(subject.num_layers), subject.rows(setting.prompt, setting.batch * BATCHES)
    with torch_threads(setting.threads):
        pair = matched(subject, config, rows, fit_config(setting.batch, EPOCHS))
        both: dict[str, Training] = {OURS: pair.ours, PYREFT: pair.pyreft}
        operations = {who: counted(training) for who, training in both.items()}
        seconds = interleaved({who: once(each) for who, each in both.items()}, repeats=setting.repeats, warmup=0)
    return BesideFigures(setting.case.name, setting.threads, 1, operations, seconds, pair.difference)


def _in_two(setting: Setting, root: Path, load: Load) -> BesideFigures:
    with ExitStack() as undo:
        both = {who: undo.enter_context(_Process(who, setting, root, load)) for who in (OURS, PYREFT)}
        difference = agree(both[OURS].loss, both[PYREFT].loss, "first loss beside pyreft in a process of its own")
        operations = {who: int(each.ask(COUNT)) for who, each in both.items()}
        seconds: dict[str, list[float]] = {who: [] for who in both}
        for _ in range(setting.repeats):
            for who, each in both.items():
                seconds[who].append(each.ask(STEP))
    timed = {who: Timing(tuple(taken)) for who, taken in seconds.items()}
    return BesideFigures(setting.case.name, setting.threads, 2, operations, timed, difference)


class _Process:
    """A process that trains one side, warm, and takes a step when it is asked; it ends with the context.

    Attributes:
        loss: of its first step.
    """

    def __init__(self, side: str, setting: Setting, root: Path, load: Load) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, side, setting, root, load), daemon=True)
        self._process.start()
        theirs.close()
        self.loss = self._answer()

    def ask(self, what: str) -> float:
        """Return the seconds of a step, or the operations of one."""
        self._connection.send(what)
        return self._answer()

    def _answer(self) -> float:
        try:
            found: float = self._connection.recv()
        except EOFError:
            self._process.join()
            raise RuntimeError(
                f"a process that trains must answer; got exit status {self._process.exitcode}; see what it said above"
            ) from None
        return found

    def __enter__(self) -> _Process:
        return self

    def __exit__(self, *_error: object) -> None:
        self._connection.close()
        self._process.join()


def serve(connection: Connection, side: str, setting: Setting, root: Path, load: Load) -> None:
    """Build a side's training, send its first loss, and then answer until the other end is closed."""
    subject = load(root, threads=setting.threads)
    training, first = warm(side, subject, setting)
    connection.send(first)
    while True:
        try:
            asked = connection.recv()
        except EOFError:
            return
        if asked == COUNT:
            connection.send(counted(training))
            continue
        started = time.perf_counter()
        training.step()
        connection.send(time.perf_counter() - started)


def warm(side: str, subject: Subject, setting: Setting) -> tuple[Training, float]:
    """Return a side's training when every batch's constants are kept, and the loss of its first step.

    Both sides start at the weights that pyreft draws, and have taken the same batches' steps as far as it matters.
    """
    config, rows = setting.case.config(subject.num_layers), subject.rows(setting.prompt, setting.batch * BATCHES)
    fit, peer = fit_config(setting.batch, EPOCHS), pyreft_model(subject, config)
    if side == PYREFT:
        theirs = pyreft_training(peer, subject, config, rows, fit)
        first = theirs.step()
        theirs.number = BATCHES + 1  # as after benchmarks.speed.agreement.matched
        return theirs, first
    model = subject.model(config)
    copy_weights(peer, model)
    del peer
    ours = OurTraining(model, rows, fit, pad_id=subject.pad_id)
    first = ours.step()
    for _ in range(BATCHES):
        ours.step()
    return ours, first


def counted(training: Training) -> int:
    """Return the operations of a training's next step."""
    with Counted() as count:
        training.step()
    return count.operations
