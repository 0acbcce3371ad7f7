"""What the cells of docs/results/protocol.md come to: the lines of its tables, and its comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

import numpy as np
from pydantic import TypeAdapter

from benchmarks.quality.claim_cells import Asked, ClaimCell
from benchmarks.quality.claim_plan import BASE, Protocol, known_lines
from pipelines.contracts.evaluation import Against
from pipelines.contracts.interval import Interval
from pipelines.diagnostics.forgetting import perplexity_change
from pipelines.errors import PipelineError
from pipelines.intake.library import Sources, prepare_keys, read_task_file
from pipelines.model.intervals import Ints, Resampling, against, figure, measured_difference
from pipelines.tasks.family import family_of
from pipelines.tasks.keys.classification import ACCURACY
from pipelines.tasks.keys.table import AnyPrepareParams
from pipelines.tasks.measures import Floats, Measure, Proportion

RESAMPLES = 2000  # for each interval


@dataclass(frozen=True)
class Line:
    """A line of a task.

    Attributes:
        failed: trainings with further seeds that came to no figure, and are in none of these.
        value: of the test rows, with its interval over rows and, of several runs, seeds.
        loss: of the test rows.
        rate: the chosen learning rate; None of the base.
        trials: that chose it.
        validation: the figure that it was chosen by.
        train: seconds of the processor of a training, the mean over seeds.
        tuning: those of all trials.
        forgetting: how much higher the perplexity of neutral text is than the base's; None of the base.
    """

    task: str
    name: str
    value: Interval
    spread: float | None
    seeds: int
    failed: int
    loss: float
    parameters: int
    rate: float | None
    trials: int
    validation: float
    train: float
    tuning: float
    forgetting: Interval | None


@dataclass(frozen=True)
class Compared:
    """A comparison of the plan: the lead of one line over another on the seeds that both have, None where none is."""

    task: str
    lines: tuple[str, str]
    seeds: int
    lead: Against | None
    how: Resampling | None
    measure: Measure | None


@dataclass(frozen=True)
class Found:
    """What the cells come to."""

    lines: Sequence[Line]
    compared: Sequence[Compared]


def measure_of(cell: ClaimCell) -> Measure:
    """What the scores of a cell add up to.

    Raises:
        PipelineError: if the library has another measure for the task now.
    """
    if cell.measure == ACCURACY:
        return Proportion(ACCURACY)
    keys = prepare_keys(read_task_file(cell.task), Sources({"train": "file:data/own/rows"}, {}))
    found: Measure = family_of(TypeAdapter(AnyPrepareParams).validate_python(keys)).measure
    if found.name != cell.measure:
        raise PipelineError(f"the library measures {cell.task} by {found.name}", got=cell.measure, do="Restore it.")
    return found


def find(cells: Mapping[str, ClaimCell], protocol: Protocol, confidence: float) -> Found:
    """The lines that were asked test rows, and the comparisons of the plan.

    Raises:
        PipelineError: if cells of a task are of other rows.
    """
    lines: list[Line] = []
    compared: list[Compared] = []
    for task in protocol.plan.tasks:
        own = [cell for cell in cells.values() if cell.task == task]
        if len({(cell.data, cell.base, cell.measure) for cell in own}) > 1:
            raise PipelineError(
                f"the cells of {task} must be of one base and the same rows", got="others", do="Restore them."
            )
        tests = {
            name: [cell for cell in own if cell.line == name and cell.test is not None]
            for name in known_lines(protocol.plan)
        }
        tests = {name: sorted(found, key=lambda cell: cell.seed) for name, found in tests.items() if found}
        lines += [_line(name, tests[name], own, confidence) for name in tests]
        pairs = [tuple(each.lines) for each in protocol.plan.comparisons if task in each.tasks]
        compared += [_compared(task, (one, other), tests, confidence) for one, other in pairs]
    return Found(lines, compared)


def _line(name: str, tests: Sequence[ClaimCell], own: Sequence[ClaimCell], confidence: float) -> Line:
    first, how = tests[0], _resampling(tests[0], confidence)
    measure, runs = measure_of(first), [scores(cell.test) for cell in tests]
    values = [measure.add_up(run) for run in runs]
    trials = [cell for cell in own if (cell.line, cell.purpose) == (name, "tuning")]
    asked = {cell.learning_rate or 0.0: cell for cell in [*trials, *(cell for cell in tests if name == BASE)]}
    judged = asked[first.learning_rate or 0.0].validation
    base = next((cell for cell in own if cell.purpose == "base"), None)
    return Line(
        task=first.task,
        name=name,
        value=measured_difference(measure, runs, [], how) if len(runs) > 1 else figure(measure, runs[0], how),
        spread=stdev(values) if len(values) > 1 else None,
        seeds=len(runs),
        failed=sum((cell.line, cell.purpose) == (name, "test") and cell.error is not None for cell in own),
        loss=mean(_asked(cell.test).loss for cell in tests),
        parameters=first.parameters,
        rate=first.learning_rate,
        trials=len(trials),
        validation=measure.add_up(scores(judged)),
        train=mean(cell.train_cpu for cell in tests),
        tuning=sum(cell.train_cpu + _asked(cell.validation).cpu for cell in trials if cell.validation),
        forgetting=None if name == BASE or base is None else forgotten(base, tests, confidence),
    )


def _compared(
    task: str, pair: tuple[str, str], tests: Mapping[str, Sequence[ClaimCell]], confidence: float
) -> Compared:
    by_seed = [{cell.seed: cell for cell in tests.get(name, ())} for name in pair]
    seeds = sorted(by_seed[0].keys() & by_seed[1].keys())
    if not seeds:
        return Compared(task, pair, 0, None, None, None)
    sides = [[cells[seed] for seed in seeds] for cells in by_seed]
    measure, how = measure_of(sides[0][0]), _resampling(sides[0][0], confidence)
    ours, theirs = ([scores(cell.test) for cell in side] for side in sides)
    return Compared(task, pair, len(seeds), against(measure, ours, theirs, how), how, measure)


def scores(asked: Asked | None) -> Floats:
    """The scores of rows, [rows, ...]."""
    return np.array(_asked(asked).scores, dtype=np.float64)


def _asked(asked: Asked | None) -> Asked:
    assert asked is not None
    return asked


def _resampling(cell: ClaimCell, confidence: float) -> Resampling:
    return Resampling(confidence, RESAMPLES, 0, np.array(cell.groups, dtype=np.int64))


def forgotten(base: ClaimCell, tests: Sequence[ClaimCell], confidence: float) -> Interval:
    """How much higher the perplexity of neutral text is, as a share; passages and seeds are drawn anew."""
    passages: Ints = np.repeat(np.arange(len(base.neutral)), [tokens for tokens, _ in base.neutral])
    how = Resampling(confidence, RESAMPLES, 0, passages)
    return perplexity_change([_tokens(cell) for cell in tests], _tokens(base), how)


def _tokens(cell: ClaimCell) -> Floats:
    """Nats of each token as its passage's mean, whose sums are what passages are drawn by."""
    found: Floats = np.concatenate([np.full(tokens, nats / tokens) for tokens, nats in cell.neutral])
    return found
