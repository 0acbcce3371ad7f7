"""What docs/results/protocol.md plans, read from its block of YAML: tasks, lines, cells in their order, seconds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from pipelines.errors import PipelineError
from pipelines.files import sha256_file
from pipelines.recipes.methods.table import MethodName
from pipelines.sections import Count, Positive, Section
from pipelines.yaml_file import parse_yaml

Cost = Literal["cone", "plain", "full"]
Purpose = Literal["base", "tuning", "test", "whole", "recipe"]
MIDDLE = 10 ** (1 / 4)  # between two rates of a grid whose steps are half a power of ten


class TaskPlan(Section):
    """A task of the library, how many test rows are asked, and what decides its seconds.

    Attributes:
        words: what answers the labels, where the library's options are longer; None where its keys stay as they are.
        cut: whether the validation rows are cut from the training file, since the library's own are too few.
        tokens: of a training row.
        asked: tokens that are run to ask a row.
    """

    test_rows: Count
    words: dict[str, str] | None
    cut: bool
    tokens: Positive
    asked: Positive


class LinePlan(Section):
    """A line of the tables: a method with its parts, and the learning rates that are tried first."""

    method: MethodName
    parts: dict[str, Any]
    rates: Annotated[list[Positive], Field(min_length=3, max_length=3)]
    cost: Cost
    library: Literal["reft", "pyreft"]


class Comparison(Section):
    """Two lines that are tested against each other on some tasks."""

    lines: Annotated[list[str], Field(min_length=2, max_length=2)]
    tasks: list[str]


class Space(Section):
    """The recipes that are tabulated, each with every other."""

    layers: list[str]
    positions: list[str]
    rank: list[Count]
    learning_rate: list[Positive]


class Seconds(Section):
    """Of one core: for a thousand tokens, and for a text that says what was forgotten."""

    cone: Positive
    plain: Positive
    full: Positive
    ask: Positive
    ask_cone: Positive
    neutral: Positive


class Block(Section):
    """Cells that come one after the other: lines of a task with some seeds, or all recipes of the space.

    Attributes:
        whole: whether the lines are trained once more at their chosen rates, by passes over whole rows.
    """

    task: str
    lines: list[str] | Literal["recipes"]
    seeds: list[int]
    whole: bool


class Plan(Section):
    """The block of YAML."""

    rows: dict[Literal["train", "validation"], Count]
    epochs: Count
    batch_size: Count
    threads: Count
    hours: Positive
    most_trials: Count
    tasks: dict[str, TaskPlan]
    lines: dict[str, LinePlan]
    comparisons: list[Comparison]
    space: Space
    seconds: Seconds
    order: list[Block]

    @property
    def seed(self) -> int:
        """The first of all seeds, with which learning rates are tried."""
        return self.order[0].seeds[0]


@dataclass(frozen=True)
class Step:
    """One cell of the plan.

    Attributes:
        line: of the tables, or ``base``; of a recipe its parts in words.
        trial: which of the line's trials, from 0; the first three are the grid's, and the others follow from them.
        seconds: of one core, about.
    """

    task: str
    line: str
    purpose: Purpose
    seed: int
    trial: int
    seconds: float
    recipe: Mapping[str, Any] | None = None

    @property
    def file(self) -> str:
        """The name of its cell's file."""
        return cell_name(self.task, self.line, self.purpose, seed=self.seed, trial=self.trial)


Figures = tuple[float, float]
"""What a learning rate is chosen by, on validation rows: the task's measure, and of equal ones the lower loss."""

TRIALS = 4  # of each line: the three of its grid, and one beside the best of them
BASE = "base"


@dataclass(frozen=True)
class Protocol:
    """The page and its plan."""

    plan: Plan
    sha256: str

    @classmethod
    def read(cls, path: Path) -> Protocol:
        """Read the page.

        Raises:
            PipelineError: if it has no block of YAML, or the block breaks a rule.
        """
        found = re.search(r"^```yaml\n(.*?)^```$", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
        if found is None:
            raise PipelineError("the protocol must have a block of YAML", got="none", do=f"Restore {path}.")
        try:
            plan = Plan.model_validate(parse_yaml(found[1], path.name))
        except ValidationError as error:
            raise PipelineError(f"the block of {path} must be a plan", got=error) from None
        return cls(plan, sha256_file(path))

    def steps(self) -> list[Step]:
        """Every cell, in the order of the plan; of a line the trials stand before its test."""
        found: list[Step] = []
        for block in self.plan.order:
            made = self._recipes(block) if block.lines == "recipes" else self._lines(block)
            found += [step for step in made if step not in found]
        return found

    def promised(self) -> int:
        """How many of the first cells take no more than the hours of the plan."""
        total, hours = 0.0, self.plan.hours
        for place, step in enumerate(self.steps()):
            total += step.seconds
            if total > 3600 * hours:
                return place
        return len(self.steps())

    def _lines(self, block: Block) -> Iterator[Step]:
        plan, task = self.plan, self.plan.tasks[block.task]
        asked = {split: rows * task.asked * plan.seconds.ask / 1000 for split, rows in
                 (("validation", plan.rows["validation"]), ("test", task.test_rows))}  # fmt: skip
        test = asked["test"] + plan.seconds.neutral
        for name in block.lines:
            if block.whole:
                whole = plan.rows["train"] * plan.epochs * task.tokens * plan.seconds.plain / 1000
                yield Step(block.task, name, "whole", plan.seed, 0, whole + asked["validation"])
                continue
            if name == BASE:
                yield Step(block.task, BASE, "base", plan.seed, 0, test)
                continue
            line = plan.lines[name]
            each = plan.rows["train"] * plan.epochs * task.tokens / 1000
            train = each * getattr(plan.seconds, line.cost)
            for seed in block.seeds:
                first = seed == plan.seed
                if first:
                    for trial in range(TRIALS):
                        yield Step(block.task, name, "tuning", seed, trial, train + asked["validation"])
                yield Step(block.task, name, "test", seed, 0, test + train * (not first))

    def _recipes(self, block: Block) -> Iterator[Step]:
        plan, task = self.plan, self.plan.tasks[block.task]
        train = plan.rows["train"] * plan.epochs * task.tokens * plan.seconds.cone / 1000
        asked = (2 * plan.rows["validation"] + task.test_rows) * task.asked * plan.seconds.ask_cone / 1000
        for seed, recipe in product(block.seeds, points(plan.space)):
            yield Step(block.task, recipe_name(recipe), "recipe", seed, 0, train + asked, recipe)


def cell_name(task: str, line: str, purpose: Purpose, *, seed: int, trial: int) -> str:
    """The name of a cell's file."""
    words = [task, line, purpose, str(seed), *([str(trial)] if purpose == "tuning" else [])]
    return re.sub(r"[^a-z0-9.]+", "-", "-".join(words).lower()).strip("-") + ".json"


def points(space: Space) -> list[dict[str, Any]]:
    """The recipes of the space, each with every other: rates change first."""
    parts = space.model_dump()
    return [dict(zip(parts, values, strict=True)) for values in product(*parts.values())]


def recipe_name(recipe: Mapping[str, Any]) -> str:
    """A recipe of the space in words."""
    return f"{recipe['layers']} {recipe['positions']} r{recipe['rank']} {recipe['learning_rate']:g}"


def next_rate(line: LinePlan, tried: Mapping[float, Figures | None], most: int) -> float | None:
    """The learning rate of a line's next trial, by the values of those that were tried; None where it has its trials.

    After the grid comes the rate beyond its end, where the best stands there; else the one between the best and the
    better of its neighbours. Where the best is still at an end, the next one follows there, up to the most trials.

    Args:
        line: with its grid.
        tried: of each rate the figures that it is chosen by; None where its training failed.
        most: trials of a line.
    """
    for rate in line.rates:
        if rate not in tried:
            return rate
    best = chosen(tried)
    if best is None or len(tried) >= most:
        return None
    rates = sorted(tried)
    at_end = best in (rates[0], rates[-1])
    if at_end:
        return rounded(best * 10**0.5 if best == rates[-1] else best / 10**0.5)
    if len(tried) >= TRIALS:
        return None
    place = rates.index(best)
    lower, higher = (_order(tried[rates[place + step]]) for step in (-1, 1))
    return rounded(best * MIDDLE if higher > lower else best / MIDDLE)


def chosen(tried: Mapping[float, Figures | None]) -> float | None:
    """The rate with the best figures, of equal ones the lowest; None where every training failed."""
    able = {rate: figures for rate, figures in tried.items() if figures is not None}
    return min(able, key=lambda rate: (-able[rate][0], able[rate][1], rate)) if able else None


def rounded(rate: float) -> float:
    """A learning rate in two digits, as the grids have them."""
    return float(f"{rate:.1e}")


def _order(figures: Figures | None) -> Figures:
    return (float("-inf"), 0.0) if figures is None else (figures[0], -figures[1])


def known_lines(plan: Plan) -> Sequence[str]:
    """The lines of the tables, the frozen base first."""
    return (BASE, *plan.lines)
