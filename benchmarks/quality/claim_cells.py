"""The cells of docs/results/protocol.md as JSON files, and what makes them: models trained and asked on one thread."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.quality.claim_plan import Purpose, cell_name
from pipelines.compare.cells import Cell, CellMaker, Contender
from pipelines.contracts.prepared import Row, Split
from pipelines.diagnostics.forgetting import token_nats
from pipelines.files import read_json
from pipelines.model.scores import answers
from reft import CausalModel, ConeConfig, ReftConfig, ReftModel, set_cone

LEAST = 1e-300  # of a probability, whose logarithm is a number
Passages = tuple[tuple[int, float], ...]
Pass = Literal["whole", "cone"]


@dataclass(frozen=True)
class Asked:
    """What rows say of a model.

    Attributes:
        scores: of each row, in file order; the task's measure adds them up.
        nats: of each row, minus the logarithm of the probability of its right answer among its answers.
        seconds: that asking them took.
        cpu: seconds of the processor.
    """

    scores: tuple[Any, ...]
    nats: tuple[float, ...]
    seconds: float
    cpu: float

    @property
    def loss(self) -> float:
        """The mean of the rows' nats."""
        return float(np.mean(self.nats))


@dataclass(frozen=True)
class ClaimCell:
    """One training, or the frozen base, and how it fared.

    Attributes:
        line: of the tables; of a tabulated recipe its parts in words.
        purpose: of the step of the plan.
        trial: which of its line's.
        rows: that it was trained on.
        validation: rows that it was asked; None where it was not.
        early: the validation rows after half of the steps, of a tabulated recipe.
        test: rows; each cell asks them once at most.
        groups: the number of the group of each test row.
        baselines: figures of answers to the test rows that read no prompt, by name.
        neutral: of each passage of neutral text, its predicted tokens and the nats of all of them.
        parameters: trained numbers.
        train_seconds: of the steps, with what is computed once a row.
        train_cpu: seconds of the processor, with the building of the model. A test that took the model of the trial
            that chose its rate has those of that trial; of tabulated recipes the first of those with the same layers
            and positions computes what the others find.
        error: why there are no figures.
        data: the hash of the prepared rows.
        code: the hash of code, base, rows and settings.
        protocol: the sha256 of the page that planned it.
    """

    task: str
    line: str
    purpose: Purpose
    trial: int
    base: str
    measure: str
    seed: int
    learning_rate: float | None
    rows: int
    epochs: int
    validation: Asked | None
    early: Asked | None
    test: Asked | None
    groups: tuple[int, ...]
    baselines: Mapping[str, float]
    neutral: Passages
    parameters: int
    steps: int
    train_seconds: float
    train_cpu: float
    error: str | None
    data: str
    code: str
    protocol: str

    def every_asked(self) -> list[Asked]:
        """What all rows said that it was asked."""
        return [asked for asked in (self.validation, self.early, self.test) if asked is not None]

    @property
    def name(self) -> str:
        """That of its file."""
        return cell_name(self.task, self.line, self.purpose, seed=self.seed, trial=self.trial)


def read_cells(folder: Path, protocol: str | None = None) -> dict[str, ClaimCell]:
    """The cells of a folder by the names of their files; those of a protocol, if one is given."""
    found = {path.name: read_claim(path) for path in sorted(folder.glob("*.json"))}
    return {name: cell for name, cell in found.items() if protocol in (None, cell.protocol)}


def read_claim(path: Path) -> ClaimCell:
    """Read a cell's file."""
    raw = read_json(path)
    asked = {key: _asked(raw[key]) for key in ("validation", "early", "test")}
    neutral = tuple((tokens, nats) for tokens, nats in raw["neutral"])
    return ClaimCell(**{**raw, **asked, "groups": tuple(raw["groups"]), "neutral": neutral})


def _asked(raw: Mapping[str, Any] | None) -> Asked | None:
    if raw is None:
        return None
    return Asked(**{**raw, "scores": tuple(raw["scores"]), "nats": tuple(raw["nats"])})


@dataclass(frozen=True)
class Trained:
    """A model after its last step, what that took, and what it said to the validation rows half-way."""

    model: CausalModel
    cell: Cell
    cpu: float
    early: Asked | None = None


class ClaimMaker(CellMaker):
    """Trains and asks, and says what that took of the processor."""

    def trained(self, contender: Contender, rate: float, seed: int, *, by: Pass) -> Trained:
        """A training on all training rows; by the cone what no edit can change is computed once."""
        self._begin()
        if by == "whole":
            self._whole_passes()
        rows = self._workspace.training_rows(self._rows["train"][: self._budget.train_rows])
        started = time.process_time()
        model, cell = self._trained(contender, rows, _new(contender, rate, seed))
        return Trained(model, cell, time.process_time() - started)

    def tabulated(self, contender: Contender, rate: float, seed: int) -> Trained:
        """A training whose constants stay for the next one's, asked the validation rows after half of its steps."""
        rows = self._workspace.training_rows(self._rows["train"][: self._budget.train_rows])
        started, wall, total = time.process_time(), time.perf_counter(), contender.steps(len(rows))
        early, aside, model, parameters = None, (0.0, 0.0), None, 0
        training = contender.train(self._workspace, rows, learning_rate=rate, seed=seed)
        for place, (model, parameters) in enumerate(training):  # noqa: B007  # the last one counts
            if place == total // 2:
                early = self.asked(model, "validation", by="cone")
                aside = early.seconds, early.cpu
        assert model is not None
        seconds, cpu = time.perf_counter() - wall - aside[0], time.process_time() - started - aside[1]
        cell = replace(_new(contender, rate, seed), parameters=parameters, steps=total, train_seconds=seconds)
        return Trained(model, cell, cpu, early)

    def frozen(self) -> ReftModel:
        """The base, with an edit that is to be switched off."""
        self._begin()
        return ReftModel(self._workspace.base, ReftConfig((0,), "l1", 1), seed=0)

    def asked(self, model: CausalModel, split: Split, *, by: Pass) -> Asked:
        """The rows of a split; every line is asked them by passes over whole rows."""
        if by == "whole":
            self._whole_passes()
        count = self._budget.test_rows if split == "test" else self._budget.validation_rows
        rows: list[Row] = self._rows[split][:count]
        wall, cpu = time.perf_counter(), time.process_time()
        size = self._params.evaluate.batch_size
        said = answers(self._workspace, self._task, model, rows, batch_size=size, title=split)
        seconds, spent = time.perf_counter() - wall, time.process_time() - cpu
        nats = -np.log(np.maximum(self._task.fine_scores(rows, said), LEAST))
        scores = np.round(self._task.scores(rows, said), 6).tolist()
        return Asked(tuple(scores), tuple(np.round(nats, 6).tolist()), round(seconds, 2), round(spent, 2))

    def remembered(self, model: CausalModel) -> Passages:
        """Of each passage of neutral text, its predicted tokens and their nats, by passes over whole rows."""
        self._whole_passes()
        nats, passages = token_nats(model, self._neutral, pad_id=self._workspace.pad_id), self.passages()
        sums = np.bincount(passages, nats).round(4).tolist()
        return tuple(zip(np.bincount(passages).tolist(), sums, strict=True))

    def begin_table(self) -> None:
        """Let go of what earlier cells left; what recipes have in common is kept from now on."""
        self._begin()

    def _whole_passes(self) -> None:
        set_cone(self._workspace.base, ConeConfig(enabled=False))


def _new(contender: Contender, rate: float, seed: int) -> Cell:
    return Cell(contender.name, "test", rate, seed, None, (), 0, 0, 0.0, 0.0, 0.0, None)
