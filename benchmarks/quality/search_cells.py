"""The cells of `benchmarks.quality.search`: a recipe each, found, trained and measured by the project's own stages.

A cell is a JSON file. What is there is not done again; a cell that was stopped half-way goes on, since its study is in
a database and its training has checkpoints. The constants of the base are kept on disk for all cells of a task.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.quality.cells import Task, copy_files
from pipelines.contracts.best import Best, write_best
from pipelines.files import read_json, sha256_json, write_json
from pipelines.model.scores import answers
from pipelines.model.workspace import open_workspace
from pipelines.params.whole import Params, check_params
from pipelines.stages import base, prepare, search, train
from pipelines.tasks.family import open_family
from reft import load_adapter

Contender = Literal["published", "paper", "searched", "random", "unpruned", "pruned"]


@dataclass(frozen=True)
class Setting:
    """What all cells have in common.

    Attributes:
        rows: of the training, validation and test splits; the same ones for every seed.
        trials: of a search; each is trained on all training rows, to its end.
        trial_epochs: of a trial.
        epochs: of the training of each cell's recipe.
        threads: of torch on the CPU; None as params.yaml says.
        dtype: of the base; None as params.yaml says.
    """

    rows: tuple[int, int, int] = (400, 200, 400)
    trials: int = 12
    trial_epochs: int = 1
    epochs: int = 1
    threads: int | None = None
    dtype: str | None = None


@dataclass(frozen=True)
class Cell:
    """One outcome.

    Attributes:
        recipe: what of it the search chose, or the paper's authors.
        chosen_by: the accuracy that it was chosen by; None for the paper's.
        search_seconds: of all trials that ended.
        confirm_seconds: of the runs that confirmed the best.
        trials: how many were complete, pruned and failed.
        parameters: that were trained.
        right: for each test row whether the trained adapter judges it as its label says; no trial read one.
        key: of the parameters that it came from.
    """

    task: str
    seed: int
    contender: Contender
    recipe: dict[str, Any]
    chosen_by: float | None
    search_seconds: float
    confirm_seconds: float
    trials: tuple[int, int, int]
    parameters: int
    train_seconds: float
    right: tuple[bool, ...]
    key: str

    @property
    def accuracy(self) -> float:
        """The share of test rows that it judges right."""
        return sum(self.right) / len(self.right)


class CellMaker:
    """Where the cells of one task are made: base, rows and constants are shared."""

    def __init__(self, task: Task, setting: Setting, *, raw: Mapping[str, Any], root: Path, data: Path, out: Path):
        """Prepare the rows; ``raw`` is the params.yaml of ``root``, ``data`` the folder of data sets."""
        self._task, self._setting, self._raw = task, setting, raw
        self._out, self._root = out, out / task.folder
        self._base, self._rows = self._root / "base.json", self._root / "prepared"
        copy_files(task, data, self._root / "data" / "own")
        params = self.params()
        base.run(params, root=root, out=self._base)
        prepare.run(params, root=self._root, base=self._base, out=self._rows, card=self._root / "card.json")

    def params(self, **changes: Any) -> Params:
        """params.yaml with the task's rows; changes are of section `search`, and the seed, and `train` are of that."""
        raw, setting = copy.deepcopy(dict(self._raw)), self._setting
        raw["seed"] = changes.pop("seed", raw["seed"])
        given = changes.pop("train", {})
        raw["run"]["threads"] = setting.threads or raw["run"]["threads"]
        raw["base"]["dtype"] = setting.dtype or raw["base"]["dtype"]
        counts = dict(zip(("train_rows", "validation_rows", "test_rows"), setting.rows, strict=True))
        sources = {key: f"file:data/own/{file}" for key, file in self._task.files.items()}
        raw["prepare"] |= {"validation_source": None, **self._task.prepare, **sources, **counts, "sha256": None}
        whole = {"train_rows": setting.rows[0], "epochs": setting.trial_epochs, "pruner": {"name": "none"}}
        raw["search"] |= {"trials": setting.trials, **whole, **changes}
        raw["train"] |= {"epochs": setting.epochs, **given}
        return check_params(raw, "params.yaml")

    def cell(self, contender: Contender, seed: int, **changes: Any) -> Cell:
        """The cell as its file has it, or made."""
        params = self.params(seed=seed, **changes)
        key = sha256_json(params.model_dump(mode="json", exclude={"tracking", "notify"}))[:16]
        path = self._out / f"{self._task.folder}-{_name(contender, params)}.json"
        if path.is_file() and read_json(path)["key"] == key:
            return read_cell(path)
        made = self._make(contender, params, key)
        write_json(path, asdict(made))
        return made

    def _make(self, contender: Contender, params: Params, key: str) -> Cell:
        folder = self._root / "cells" / _name(contender, params)
        found = None
        if contender in ("published", "paper"):
            self._write_paper(params, folder / "search")
        else:
            found = search.run(
                params, root=self._root, base=self._base, prepared=self._rows, out=folder / "search",
                metrics=folder / "search.json",
            )  # fmt: skip
        started = time.monotonic()
        trained = train.run(
            params, root=self._root, base=self._base, prepared=self._rows, search=folder / "search",
            out=folder / "adapter", metrics=folder / "train.json", plots=folder / "plots",
        )  # fmt: skip
        return Cell(
            task=self._task.folder,
            seed=params.seed,
            contender=contender,
            recipe=trained.chosen,
            chosen_by=None if found is None else found.best_value,
            search_seconds=0.0 if found is None else found.seconds,
            confirm_seconds=0.0 if found is None else found.confirm_seconds,
            trials=(0, 0, 0) if found is None else (found.complete, found.pruned, found.failed),
            parameters=trained.trainable_parameters,
            train_seconds=round(time.monotonic() - started, 1),
            right=self._right(params, folder / "adapter"),
            key=key,
        )

    def _write_paper(self, params: Params, folder: Path) -> None:
        """What a search would leave that chose the first recipe of search.enqueue, which is the paper's."""
        folder.mkdir(parents=True, exist_ok=True)
        recipes = params.recipe_space()
        chosen = recipes.space.complete(recipes.first[0])
        write_best(folder / "best.yaml", Best(dict(chosen), "the paper", 0, "published", None, None))

    def _right(self, params: Params, adapter: Path) -> tuple[bool, ...]:
        workspace = open_workspace(params.computation(), root=self._root, base=self._base, prepared=self._rows)
        model = load_adapter(adapter, workspace.base, base_sha256=workspace.base_sha256)
        rows = workspace.rows("test")
        task = open_family(workspace.task)
        said = answers(workspace, task, model, rows, batch_size=params.evaluate.batch_size, title="test rows")
        return tuple(bool(score) for score in task.scores(rows, said))


def _name(contender: Contender, params: Params) -> str:
    return f"{params.seed}-{contender}-{params.train.epochs}"


def read_cell(path: Path) -> Cell:
    """Read a cell's file."""
    raw = read_json(path)
    return Cell(**{**raw, "trials": tuple(raw["trials"]), "right": tuple(raw["right"])})
