"""Cells of `benchmarks.quality.library`: a task of the library and a method each, trained, asked, and kept as JSON.

Base, rows, trainings and answers are the pipeline's own. Tasks of instructions are measured by how likely the
references are, since nothing says which free answer is right.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from benchmarks.quality.tasks import own_keys, with_task
from pipelines.compare.cells import BASE, Budget, Cell, CellMaker, Contender
from pipelines.compare.contenders import MethodContender
from pipelines.contracts.prepared import SPLITS, Row
from pipelines.diagnostics.forgetting import token_nats
from pipelines.errors import PipelineError
from pipelines.files import read_json, sha256_file, sha256_json, write_text
from pipelines.intake.library import Sources, prepare_keys, read_task_file
from pipelines.model.workspace import Workspace, open_workspace
from pipelines.params.whole import Params, check_params
from pipelines.stages import base as base_stage
from pipelines.stages import prepare as prepare_stage
from pipelines.tasks.family import family_of
from pipelines.tasks.keys.table import AnyPrepareParams
from pipelines.tasks.measures import Floats, Mean, Measure
from reft import CausalModel, Encoded

LOREFT, LORA = "LoReFT", "LoRA"
METHODS = (BASE, LOREFT, LORA)
LIKELIHOOD = Mean("log_likelihood")
"""Of instructions: of each row, the mean over its reference's tokens of their log-probability in nats."""

BATCH = 4  # rows of a step: trainings are short, and fewer rows a step are more steps
LINES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    LOREFT: ("LoReFT, paper", {"positions": "l4"}),
    LORA: ("LoRA", {}),
}
"""Of each method, the line of params.yaml's section `compare` that it is, and what of its parts differs.

LoReFT edits the last four tokens, as the recipe that a search tries first. Each trains at the highest of its line's
learning rates, since trainings are short, whatever the task: nothing is chosen by these rows.
"""


@dataclass(frozen=True)
class Setting:
    """What all cells have in common.

    Attributes:
        rows: of training, validation and test, at most; a task with fewer has what the library gives it. Of
            instructions half as many are trained on, since theirs are several times as long.
        epochs: of every training.
        seed: of splits, initial weights and the order of rows.
        threads: of torch on the CPU; None as params.yaml says.
    """

    rows: tuple[int, int, int] = (64, 8, 100)
    epochs: int = 2
    seed: int = 42
    threads: int | None = None


@dataclass(frozen=True)
class LibraryCell:
    """One task with one method, or with the frozen base.

    Attributes:
        task: its name in the library.
        method: of :data:`METHODS`.
        measure: what the scores add up to.
        rows: of training and test.
        learning_rate: None of the base.
        scores: of each test row, in file order.
        groups: the number of the group of each test row.
        baselines: figures of answers to the test rows that read no prompt, by name.
        neutral: of each passage of neutral text, its predicted tokens and the nats of all of them.
        parameters: trained numbers.
        error: why there are no scores.
        data: the hash of the prepared rows.
        key: of the code, data and settings that it was made from.
    """

    task: str
    method: str
    base: str
    measure: str
    rows: tuple[int, int]
    epochs: int
    seed: int
    learning_rate: float | None
    scores: tuple[Any, ...]
    groups: tuple[int, ...]
    baselines: Mapping[str, float]
    neutral: tuple[tuple[int, float], ...]
    parameters: int
    steps: int
    train_seconds: float
    score_seconds: float
    error: str | None
    data: str
    key: str


class LikelihoodMaker(CellMaker):
    """Makes cells whose rows score how likely their references are."""

    def __init__(self, workspace: Workspace, params: Params, budget: Budget, *, root: Path) -> None:
        super().__init__(workspace, params, budget, root=root)
        self.measure = LIKELIHOOD
        self.folder = self.folder / LIKELIHOOD.name

    def baselines(self) -> dict[str, float]:
        """None: an answer that reads no prompt has no likelihood."""
        return {}

    def scores(self, model: CausalModel, rows: Sequence[Row], title: str) -> Floats:  # noqa: ARG002
        """Minus the nats of a token of the reference, [rows]; nothing is written."""
        encoded = [row for row in self._workspace.training_rows(rows) if isinstance(row, Encoded)]
        nats = token_nats(model, encoded, pad_id=self._workspace.pad_id)
        ends = np.cumsum([row.num_targets for row in encoded])
        found: Floats = -np.array([part.mean() for part in np.split(nats, ends[:-1])])
        return found


class LibraryTask:
    """A task of the library, opened.

    Args:
        name: in the library.
        setting: rows and epochs.
        raw: params.yaml.
        data: the folder of data sets.
        place: the task's own folder, of data and of what trainings leave.
    """

    def __init__(self, name: str, setting: Setting, *, raw: Mapping[str, Any], data: Path, place: Path) -> None:
        self.name, self._setting = name, setting
        self._long = read_task_file(name).kind == "instructions"
        self.params = self._params(raw, own_keys(name, data, place))
        base, prepared = place / "base.json", place / "prepared"
        base_stage.run(self.params, root=place, out=base)
        prepare_stage.run(self.params, root=place, base=base, out=prepared, card=place / "data.json")
        self._workspace = open_workspace(self.params.computation(), root=place, base=base, prepared=prepared)
        made = LikelihoodMaker if self._long else CellMaker
        self._maker = made(self._workspace, self.params, Budget.of(self.params.compare), root=place)

    def _params(self, raw: Mapping[str, Any], keys: dict[str, Any]) -> Params:
        """params.yaml with the task, as many rows as the setting says, and its epochs and steps."""
        setting, names = self._setting, [f"{split}_rows" for split in SPLITS]
        train, validation, test = setting.rows
        most = (train // 2 if self._long else train, validation, test)
        counts = {name: min(count, keys[name]) for name, count in zip(names, most, strict=True)}
        compared = {**counts, "tuning_rows": counts["train_rows"], "epochs": setting.epochs}
        whole = with_task({**raw, "seed": setting.seed}, {**keys, **counts}).model_dump(mode="json", by_alias=True)
        whole["run"]["threads"] = setting.threads or whole["run"]["threads"]
        whole["train"]["batch_size"] = BATCH
        whole["compare"] |= compared
        return check_params(whole, "params.yaml")

    def cell(self, method: str, folder: Path) -> LibraryCell:
        """The cell as the folder has it, or made and written there."""
        contender = None if method == BASE else self._contender(method)
        decides = None if contender is None else [contender.key, contender.learning_rates]
        key = sha256_json([self._maker.folder.name, decides, asdict(self._setting), sha256_file(Path(__file__))])
        path = cell_path(folder, self.name, method)
        if path.is_file() and (kept := read_cell(path)).key == key[:16]:
            return kept
        found = self._maker.base() if contender is None else self._measured(contender)
        made = self._written(found, method, key[:16])
        write_cell(path, made)
        return made

    def _measured(self, contender: Contender) -> Cell:
        return self._maker.measured(contender, contender.learning_rates[0], self._setting.seed)

    def _contender(self, method: str) -> Contender:
        name, parts = LINES[method]
        line = self.params.compare.methods[name]
        settings = line.model_copy(
            update={"parts": {**line.parts, **parts}, "learning_rates": [max(line.learning_rates)]}
        )
        return MethodContender(method, settings, self.params, {})

    def _written(self, found: Cell, method: str, key: str) -> LibraryCell:
        compared, passages = self.params.compare, self._maker.passages()
        nats = np.bincount(passages, found.neutral).round(4).tolist() if found.neutral else []
        return LibraryCell(
            task=self.name,
            method=method,
            base=f"{self._workspace.base_source.partition('#')[0]} in {self.params.base.dtype}",
            measure=self._maker.measure.name,
            rows=(compared.train_rows, compared.test_rows),
            epochs=compared.epochs,
            seed=self._setting.seed,
            learning_rate=found.learning_rate,
            scores=tuple(np.round(found.scores, 6).tolist()),
            groups=tuple(self._maker.groups().tolist()),
            baselines=self._maker.baselines(),
            neutral=tuple(zip(np.bincount(passages).tolist(), nats, strict=True)) if nats else (),
            parameters=found.parameters,
            steps=found.steps,
            train_seconds=round(found.train_seconds, 1),
            score_seconds=round(found.score_seconds, 1),
            error=found.error,
            data=self._workspace.data_sha256[:16],
            key=key,
        )


def cell_path(folder: Path, task: str, method: str) -> Path:
    """Where a cell is."""
    return folder / f"{task}-{method.lower()}.json"


def write_cell(path: Path, cell: Any) -> None:
    """Write a cell whole: a dataclass as JSON with a line for each field, however many rows there are."""
    lines = (f"{json.dumps(name)}: {json.dumps(value)}" for name, value in asdict(cell).items())
    write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")


def read_cell(path: Path) -> LibraryCell:
    """Read a cell's file."""
    raw = read_json(path)
    tuples = {name: tuple(raw[name]) for name in ("rows", "scores", "groups")}
    return LibraryCell(**{**raw, **tuples, "neutral": tuple((n, nats) for n, nats in raw["neutral"])})


def measure_of(cell: LibraryCell) -> Measure:
    """What the scores of a cell add up to.

    Raises:
        PipelineError: if the library has another measure for the task now.
    """
    if cell.measure == LIKELIHOOD.name:
        return LIKELIHOOD
    keys = prepare_keys(read_task_file(cell.task), Sources({"train": "file:data/own/rows"}, {}))
    found: Measure = family_of(TypeAdapter(AnyPrepareParams).validate_python(keys)).measure
    if found.name != cell.measure:
        raise PipelineError(f"the library measures {cell.task} by {found.name}", got=cell.measure, do="Make it anew.")
    return found
