"""Cells of a comparison: one training of one contender each, measured, and kept as a JSON file, written whole."""

from __future__ import annotations

import ctypes
import gc
import logging
import re
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

from tqdm import tqdm

from pipelines.compare.untrained import Untrained
from pipelines.contracts.prepared import Row, Split
from pipelines.diagnostics.diagnose import middle_domain
from pipelines.diagnostics.forgetting import neutral_rows, passage_numbers, token_nats
from pipelines.diagnostics.neutral import read_neutral
from pipelines.errors import PipelineError
from pipelines.files import read_kept, sha256_json, write_json
from pipelines.model.cone import cone_config
from pipelines.model.intervals import Ints, group_numbers
from pipelines.model.scores import ScoresError, answers
from pipelines.model.workspace import TrainingRow, Workspace
from pipelines.params.compare import CompareParams
from pipelines.params.whole import Params
from pipelines.project.keys import cells_folder, cells_key
from pipelines.runtime.memory import OutOfMemoryError, memory_errors, peak_memory
from pipelines.tasks.measures import Floats, Measure
from reft import CausalModel, ConeConfig, NonFiniteLossError, ReftConfig, ReftModel, set_cone
from reft.models.limits import BaseLimitError

log = logging.getLogger(__name__)

BASE = "base"
MOST_LETTERS = 300  # of an error that is told
Purpose = Literal["tuning", "test"]


class Contender(ABC):
    """What is compared.

    Args:
        name: in the table.
        method: how it trains.
        learning_rates: of which one is chosen.
        key: all else that decides its numbers, as JSON can hold it.
    """

    def __init__(self, name: str, method: str, learning_rates: tuple[float, ...], key: Mapping[str, Any]) -> None:
        self.name = name
        self.method = method
        self.learning_rates = learning_rates
        self.key = key

    @abstractmethod
    def train(
        self, workspace: Workspace, rows: Sequence[TrainingRow], *, learning_rate: float, seed: int
    ) -> Iterator[tuple[CausalModel, int]]:
        """Yield the model and its number of trained parameters before the first step, and after each."""

    @abstractmethod
    def steps(self, rows: int) -> int:
        """How many steps a training of so many rows takes, for its progress bar."""


@dataclass(frozen=True)
class Budget:
    """The rows that a training has, one that chooses a learning rate and one that is measured, and those it is asked.

    All contenders have the same.
    """

    tuning_rows: int
    train_rows: int
    validation_rows: int
    test_rows: int

    @classmethod
    def of(cls, settings: CompareParams) -> Self:
        """What the section says."""
        return cls(settings.tuning_rows, settings.train_rows, settings.validation_rows, settings.test_rows)


@dataclass(frozen=True)
class Cell:
    """One training, and how it fared.

    Attributes:
        name: of the contender, or ``base`` for the frozen model, which is not trained.
        purpose: ``tuning``: asked the validation rows; ``test``: asked the test rows.
        learning_rate: None of the base.
        seed: None of the base.
        value: of the task's measure; None if it failed.
        scores: of each row, in file order.
        parameters: trained numbers.
        steps: of its training.
        train_seconds: of its steps, with what is computed once a row.
        score_seconds: of asking the rows.
        neutral: nats of each token of neutral text that was predicted, of a cell that was asked the test rows.
        memory_mb: of the process at its height in training, base included, in millions of bytes; on CUDA, of torch.
        error: why it failed.
        others: scores of the rows of each task that was not trained, by its key; of a cell as ``neutral`` is.
    """

    name: str
    purpose: Purpose
    learning_rate: float | None
    seed: int | None
    value: float | None
    scores: tuple[float, ...]
    parameters: int
    steps: int
    train_seconds: float
    score_seconds: float
    memory_mb: float
    error: str | None
    neutral: tuple[float, ...] = ()
    others: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


class CellMaker:
    """Makes cells, or finds them where an earlier comparison of the same inputs left them.

    Args:
        workspace: base and data.
        params: all of params.yaml.
        budget: rows of each cell.
        root: the project's root; cells are in its work folder.
        others: tasks that are not trained, which every model that is asked the test rows is asked as well.

    Raises:
        PipelineError: if the data have fewer rows than the budget.
    """

    def __init__(
        self, workspace: Workspace, params: Params, budget: Budget, *, root: Path, others: Sequence[Untrained] = ()
    ) -> None:
        self._workspace, self._params, self._budget, self._root = workspace, params, budget, root
        self.others = tuple(others)
        self._rows = {split: workspace.rows(split) for split in ("train", "validation", "test")}
        wanted: dict[Split, int] = {
            "train": budget.train_rows, "validation": budget.validation_rows, "test": budget.test_rows
        }  # fmt: skip
        for split, count in wanted.items():
            if len(self._rows[split]) < count:
                raise PipelineError(
                    f"compare.{split}_rows must not be above the rows that there are, {len(self._rows[split])}",
                    got=count,
                    do=f"Lower it, or raise prepare.{split}_rows.",
                )
        self._task = workspace.family
        self.measure: Measure = self._task.measure
        text, domain = read_neutral(params.evaluate.neutral, root), middle_domain(self._rows["test"])
        self._neutral = neutral_rows(text, workspace.tokenizer, workspace.base, domain=domain)
        self.folder = cells_folder(root) / cells_key(
            workspace, params.computation(), score_batch=params.evaluate.batch_size, neutral=text.sha256
        )

    def base(self) -> Cell:
        """The frozen model on the test rows."""
        rows = self._rows["test"][: self._budget.test_rows]
        path = self._path(BASE, [BASE, len(rows)])
        kept = read_kept(path, _cell)
        if kept is not None and not self._unasked(kept):
            return kept
        self._begin()
        model = ReftModel(self._workspace.base, ReftConfig((0,), "l1", 1), seed=0)
        with peak_memory(self._workspace.base.device) as peak, model.disabled():
            cell = Cell(BASE, "test", None, None, None, (), 0, 0, 0.0, 0.0, 0.0, None)
            cell = replace(self._scored(cell, model, rows, BASE, kept), memory_mb=peak())
        return _written(path, cell)

    def baselines(self) -> dict[str, float]:
        """The figures on the test rows of answers that read no prompt, by name."""
        rows = self._rows["test"][: self._budget.test_rows]
        return {name: self.measure.add_up(scores) for name, scores in self._task.baselines(rows).items()}

    def groups(self) -> Ints:
        """The numbers of the test rows' groups."""
        return group_numbers(self._rows["test"][: self._budget.test_rows])

    def scores(self, model: CausalModel, rows: Sequence[Row], title: str) -> Floats:
        """How good the model's answers are, [rows, ...]; :attr:`measure` adds them up."""
        size = self._params.evaluate.batch_size
        said = answers(self._workspace, self._task, model, rows, batch_size=size, title=title)
        return self._task.scores(rows, said)

    def _other_scores(self, model: CausalModel, other: Untrained, title: str) -> Floats:
        """The same of a task that was not trained."""
        size, title = self._params.evaluate.batch_size, f"{title}, {other.title}"
        said = answers(self._workspace, other.family, model, other.rows, batch_size=size, title=title)
        return other.family.scores(other.rows, said)

    def passages(self) -> Ints:
        """The number of the passage of each token of neutral text that is predicted."""
        return passage_numbers(self._neutral)

    def tuned(self, contender: Contender, learning_rate: float, seed: int) -> Cell:
        """A short training, asked the validation rows."""
        asked = self._rows["validation"][: self._budget.validation_rows]
        return self._cell(contender, "tuning", learning_rate, seed, self._budget.tuning_rows, asked)

    def measured(self, contender: Contender, learning_rate: float, seed: int) -> Cell:
        """A whole training, asked the test rows."""
        asked = self._rows["test"][: self._budget.test_rows]
        return self._cell(contender, "test", learning_rate, seed, self._budget.train_rows, asked)

    def _cell(
        self, contender: Contender, purpose: Purpose, learning_rate: float, seed: int, count: int, asked: list[Row]
    ) -> Cell:
        decides = [contender.method, dict(contender.key), purpose, learning_rate, seed, count, len(asked)]
        path = self._path(f"{contender.name}-{purpose}-{learning_rate:g}-{seed}", decides)
        kept = read_kept(path, _cell)
        if kept is not None and not self._unasked(kept):
            return replace(kept, name=contender.name)
        self._begin()
        rows = self._workspace.training_rows(self._rows["train"][:count])
        found = Cell(contender.name, purpose, learning_rate, seed, None, (), 0, 0, 0.0, 0.0, 0.0, None)
        try:
            with memory_errors():
                model, found = self._trained(contender, rows, found)
                found = self._scored(found, model, asked, contender.name, kept)
        except (NonFiniteLossError, ScoresError, BaseLimitError) as error:
            found = replace(found, error=str(error))
        except OutOfMemoryError as error:
            log.warning("%s failed", contender.name, exc_info=True)
            return replace(found, error=str(error.got)[:MOST_LETTERS])  # not kept: there may be more the next time
        return _written(path, found)

    def _trained(self, contender: Contender, rows: Sequence[TrainingRow], cell: Cell) -> tuple[CausalModel, Cell]:
        """Take every step; the model, and the cell with what that took."""
        assert cell.learning_rate is not None
        assert cell.seed is not None
        training = contender.train(self._workspace, rows, learning_rate=cell.learning_rate, seed=cell.seed)
        total = contender.steps(len(rows))
        title = f"{cell.name}, learning rate {cell.learning_rate:g}, seed {cell.seed}"
        with (
            peak_memory(self._workspace.base.device) as peak,
            tqdm(total=total, desc=title, unit="step", leave=False) as bar,
        ):
            model, parameters = next(training)
            started, steps = time.perf_counter(), 0
            for model, parameters in training:  # noqa: B007  # the last one counts
                bar.update()
                steps += 1
            seconds = time.perf_counter() - started
            return model, replace(cell, parameters=parameters, steps=steps, train_seconds=seconds, memory_mb=peak())

    def _unasked(self, cell: Cell) -> list[Untrained]:
        """The tasks that the model of a kept cell was not asked, so that it is to be trained anew."""
        if cell.purpose == "tuning" or cell.error is not None:
            return []
        return [other for other in self.others if other.key not in cell.others]

    def _scored(self, cell: Cell, model: CausalModel, rows: Sequence[Row], title: str, kept: Cell | None) -> Cell:
        """The cell with what these rows say of the model, of every method and of the base by passes over whole rows.

        The rivals of ReFT have no cone, and in half precision its passes differ from theirs by tenths of a nat. What
        the same training was asked before of tasks that were not trained, as ``kept`` has it, is not asked again.
        """
        set_cone(self._workspace.base, ConeConfig(enabled=False))
        started = time.perf_counter()
        scores = self.scores(model, rows, title)
        seconds = time.perf_counter() - started
        found = replace(cell, value=self.measure.add_up(scores), scores=tuple(scores.tolist()), score_seconds=seconds)
        if cell.purpose == "tuning":
            return found
        nats = token_nats(model, self._neutral, pad_id=self._workspace.pad_id)
        others = {} if kept is None else dict(kept.others)
        for other in self.others:
            if other.key not in others:
                others[other.key] = tuple(self._other_scores(model, other, title).tolist())
        return replace(found, neutral=tuple(nats.tolist()), others=others)

    def _begin(self) -> None:
        """Let go of what earlier cells left, so that each computes its own constants and takes its own memory."""
        cone = cone_config(self._params.cone, self._root, self._workspace.base_sha256)
        set_cone(self._workspace.base, replace(cone, folder=None, disk_bytes=0, base_sha256=None))
        gc.collect()
        if sys.platform == "linux":
            trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; musl has none
            if trim is not None:
                trim(0)

    def _path(self, title: str, decides: Sequence[object]) -> Path:
        name = re.sub(r"[^a-z0-9.]+", "-", title.lower()).strip("-")
        return self.folder / f"{name}-{sha256_json(list(decides))[:8]}.json"


def _written(path: Path, cell: Cell) -> Cell:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, asdict(cell))
    return cell


def _cell(raw: Any) -> Cell:
    others = {title: tuple(scores) for title, scores in raw.get("others", {}).items()}
    return Cell(**{**raw, "scores": tuple(raw["scores"]), "neutral": tuple(raw["neutral"]), "others": others})
