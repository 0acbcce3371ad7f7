"""The parts of the speed benchmark: what each measures, how it is shown, and about how much work it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.sides.ours import Case, Subject
from benchmarks.sides.project import load_subject
from benchmarks.sides.rows import COMPLETION
from benchmarks.speed import tables
from benchmarks.speed.beside import Setting, measure_beside
from benchmarks.speed.counting import count_steps
from benchmarks.speed.inference import measure_generation, measure_scoring
from benchmarks.speed.memory import STEPS, measure_memory
from benchmarks.speed.profiling import profile_pair
from benchmarks.speed.search import Trials, measure_search, recipes
from benchmarks.speed.steps import BATCHES, OURS, PYREFT, measure_steps, measure_training

LONG = 256  # tokens of a prompt above which a step has fewer rows
SHORT = 110  # tokens of a prompt in all parts but the steps
BATCH = 8  # rows at once in all parts but the steps
PROFILED = 3  # steps


@dataclass(frozen=True)
class Options:
    """What is measured.

    Attributes:
        cases: the recipes.
        batches: rows of a step.
        prompts: tokens of a prompt.
        long_batch: rows of a step with prompts of more than ``LONG`` tokens.
        repeats: rounds of each measurement.
        rows: that a whole training runs on.
        epochs: of a whole training.
        scored: prompts that are scored.
        tokens: of a generated text.
        search_train: rows that a trial of the search trains on.
        search_validation: prompts that it is scored on.
        search_positions: of its recipes, each with three choices of layers.
        threads: of torch; None for what params.yaml says.
        beside_threads: of torch, in the part that has one process and two.
        root: folder of params.yaml.
    """

    cases: tuple[Case, ...]
    batches: tuple[int, ...]
    prompts: tuple[int, ...]
    long_batch: int
    repeats: int
    rows: int
    epochs: int
    scored: int
    tokens: int
    search_train: int
    search_validation: int
    search_positions: tuple[str, ...]
    threads: int | None
    beside_threads: tuple[int, ...]
    root: Path

    def sizes(self) -> list[tuple[int, int]]:
        """Return rows of a step and tokens of a prompt, of each measurement of steps."""
        short = [(batch, prompt) for prompt in self.prompts if prompt <= LONG for batch in self.batches]
        return short + [(self.long_batch, prompt) for prompt in self.prompts if prompt > LONG]


@dataclass(frozen=True)
class Part:
    """A part of the benchmark.

    Attributes:
        title: over its table.
        measure: yields figures.
        show: figures and the cases' words to a table.
        work: about how many tokens' worth of plain training of all layers it is, for the estimate of its time.
    """

    title: str
    measure: Callable[[Subject, Options], Iterator[Any]]
    show: Callable[[Sequence[Any], Mapping[str, str]], str]
    work: Callable[[Options], float]


def _steps(subject: Subject, options: Options) -> Iterator[Any]:
    for batch, prompt in options.sizes():
        yield from measure_steps(subject, options.cases, batch=batch, prompt=prompt, repeats=options.repeats)


def _steps_work(options: Options) -> float:
    tokens = sum(batch * (prompt + COMPLETION) for batch, prompt in options.sizes())
    plain = sum(_plain(case) for case in options.cases)
    layers = {case.layers: case for case in options.cases}.values()
    rounds = plain + sum(_ours(case) for case in options.cases) + sum(2 * _plain(case) for case in layers)
    return tokens * (rounds * (options.repeats + 1) + (BATCHES - 1) * plain)


def _operations(subject: Subject, options: Options) -> Iterator[Any]:
    for case in options.cases:
        yield count_steps(subject, case, batch=BATCH, prompt=SHORT)


def _operations_work(options: Options) -> float:
    return BATCH * (SHORT + COMPLETION) * sum(2 * _plain(case) + _ours(case) for case in options.cases)


def _beside(subject: Subject, options: Options) -> Iterator[Any]:
    for case in options.cases:
        for threads in options.beside_threads:
            setting = Setting(case, BATCH, SHORT, threads, options.repeats)
            yield from measure_beside(subject, setting, root=options.root, load=load_subject)


def _beside_work(options: Options) -> float:
    steps = sum(
        (options.repeats + 3) * _plain(case) + (options.repeats + BATCHES) * _ours(case) for case in options.cases
    )
    return 2 * len(options.beside_threads) * BATCH * (SHORT + COMPLETION) * steps


def _trainings(subject: Subject, options: Options) -> Iterator[Any]:
    for case in options.cases:
        yield measure_training(subject, case, rows=options.rows, batch=BATCH, prompt=SHORT, epochs=options.epochs)


def _trainings_work(options: Options) -> float:
    tokens = options.rows * options.epochs * (SHORT + COMPLETION)
    return tokens * sum(_plain(case) + _ours(case) for case in options.cases)


def _scoring(subject: Subject, options: Options) -> Iterator[Any]:
    for case in options.cases:
        yield measure_scoring(subject, case, rows=options.scored, batch=BATCH, prompt=SHORT, repeats=options.repeats)


def _scoring_work(options: Options) -> float:
    passes = sum(0.5 * (1 + _ours(case)) for case in options.cases)
    return options.scored * SHORT * (options.repeats + 1) * passes


def _generation(subject: Subject, options: Options) -> Iterator[Any]:
    for batch in (1, BATCH):
        rounds = 3 * options.repeats  # a difference of 2% is looked for
        yield measure_generation(
            subject, options.cases[0], batch=batch, prompt=SHORT, tokens=options.tokens, repeats=rounds
        )


def _generation_work(options: Options) -> float:
    each = sum(
        0.5 * batch * SHORT + options.tokens * (6 + batch) for batch in (1, BATCH)
    )  # a pass has a cost of its own
    return 3 * each * (3 * options.repeats + 1)


def _memory(_subject: Subject, options: Options) -> Iterator[Any]:
    for side in (OURS, PYREFT):
        yield measure_memory(
            side, options.cases[0].name, batch=BATCH, prompt=SHORT, threads=options.threads, root=options.root
        )


def _memory_work(options: Options) -> float:
    start = 3000  # two processes that load torch and the base
    return start + 2 * STEPS * BATCH * (SHORT + COMPLETION) * _plain(options.cases[0])


def _search(subject: Subject, options: Options) -> Iterator[Any]:
    rows = subject.rows(SHORT, options.search_train)
    asked = subject.rows(SHORT + 1, options.search_validation, completion=0)  # other lengths, so other prompts
    yield from measure_search(subject, Trials(recipes(options.search_positions), rows, asked, batch=2 * BATCH))


def _search_work(options: Options) -> float:
    tokens = options.search_train * (SHORT + COMPLETION) + 0.5 * options.search_validation * SHORT
    return tokens * sum(_plain(case) + _ours(case) for case in recipes(options.search_positions))


def _profile(subject: Subject, options: Options) -> Iterator[Any]:
    for case in options.cases:
        yield case, profile_pair(subject, case, batch=BATCH, prompt=SHORT, steps=PROFILED)


def _profile_work(options: Options) -> float:
    tokens = BATCH * (SHORT + COMPLETION)
    steps = 2 * PROFILED + 1
    return tokens * sum((steps + 2) * _plain(case) + (steps + BATCHES) * _ours(case) for case in options.cases)


def _profile_tables(figures: Sequence[Any], names: Mapping[str, str]) -> str:
    return "\n".join(f"{names[case.name]}\n\n{tables.gap_table(gap)}" for case, gap in figures)


def _search_table(figures: Sequence[Any], _names: Mapping[str, str]) -> str:
    return tables.search_table(figures)


PARTS = {
    "steps": Part("Warm training steps", _steps, tables.step_table, _steps_work),
    "operations": Part("Operations of a step", _operations, tables.operation_table, _operations_work),
    "beside": Part("Operations and times, in one process and in two", _beside, tables.beside_table, _beside_work),
    "trainings": Part("Whole trainings, from nothing", _trainings, tables.training_table, _trainings_work),
    "scoring": Part("Scoring two answers after each prompt", _scoring, tables.scoring_table, _scoring_work),
    "generation": Part("Greedy generation", _generation, tables.generation_table, _generation_work),
    "memory": Part("Peak memory of a process that trains", _memory, tables.memory_table, _memory_work),
    "search": Part("A whole search", _search, _search_table, _search_work),
    "profile": Part(
        "Where a step's time goes, and what lies between operations and times", _profile, _profile_tables, _profile_work
    ),
}
ON_REQUEST = ("operations", "search", "profile")  # the first stands in beside too


def _plain(case: Case) -> float:
    """Return about what share of a step of all layers a plain step is: the backward pass stops at the lowest layer."""
    return 0.75 if case.layers == "upper-half" else 1.0


def _ours(case: Case) -> float:
    """Return about the same of this project's step."""
    return _plain(case) * (0.7 if case.positions.startswith("f") else 0.2)
