"""The tasks and the contenders of `benchmarks.quality`: what is read, and who is trained on it beside params.yaml's."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmarks.sides.others import copy_weights, pyreft_model, pyreft_training, start_at_identity
from benchmarks.sides.ours import Subject
from benchmarks.sides.rows import Text
from pipelines.compare.cells import Budget, CellMaker, Contender
from pipelines.compare.contenders import contenders
from pipelines.errors import PipelineError
from pipelines.files import sha256_file
from pipelines.model.fitting import fit_config
from pipelines.model.forms import reft_config
from pipelines.model.workspace import TrainingRow, Workspace, open_workspace
from pipelines.params.whole import Params, check_params
from pipelines.project.settings import TrainingSettings
from pipelines.recipes.methods.reft import Recipe
from pipelines.recipes.methods.table import make_recipe
from pipelines.stages import base as base_stage
from pipelines.stages import prepare as prepare_stage
from reft import CausalModel, Encoded, NonFiniteLossError, ReftModel
from reft.edits.methods.forms import Init
from reft.training.schedule import Schedule

VARIABLE = "REFT_BENCH_DATA"
DTYPES = ("float32", "bfloat16", "float16")
ARITHMETIC = tuple("ABCDE")
ANSWERS = tuple(f"answer{place}" for place in range(1, 5))
PYREFT = {
    "pyreft, paper": ("LoReFT, paper", (9.0e-4, 2.0e-3, 4.0e-3)),
    "pyreft, searched": ("LoReFT, searched", (5.0e-4, 1.0e-3, 2.0e-3)),
}
"""pyreft's lines in the table: whose recipe each has, and of which learning rates it has the best. They are its own:
since it starts with random edits, it wants higher ones with the paper's recipe."""

CODE = ("quality/cells.py", "sides/authors.py", "sides/others.py")
"""What of the benchmark's code decides pyreft's figures."""


@dataclass(frozen=True)
class Task:
    """A folder of the data, its files for the splits, and the section `prepare` that reads them.

    ``test_rows`` is how many test rows can be asked; None for as many as anybody wants.
    """

    folder: str
    files: Mapping[str, str]
    prepare: Mapping[str, Any]
    several_seeds: bool = False
    test_rows: int | None = None


def _labels(words: Sequence[str]) -> dict[str, Any]:
    return {word: {"word": f" {word}", "min": None, "max": None, "values": [word]} for word in words}


_JSON = {"format": "json", "columns": None, "label_column": "answer", "max_tokens": 256}
TASKS = {
    "sst2": Task(
        "sst2",
        {"source": "train.tsv", "validation_source": "validation.tsv", "test_source": "test.tsv"},
        {
            "format": "tsv",
            "columns": ["sentence", "label"],
            "quoting": False,
            "template": "Review: {sentence}\nSentiment:",
            "label_column": "label",
            "labels": {
                name: {"word": f" {name}", "min": None, "max": None, "values": [value]}
                for name, value in (("negative", "0"), ("positive", "1"))
            },
        },
        several_seeds=True,
    ),
    "arc": Task(
        "ARC-Easy",
        {"source": "train.json", "validation_source": "validation.json", "test_source": "test.json"},
        {**_JSON, "template": "{instruction}\nthe correct answer is", "labels": _labels(ANSWERS)},
    ),
    "arithmetic": Task(
        "mathqa",
        {"source": "train.json", "validation_source": "validation.json", "test_source": "test.json"},
        {**_JSON, "template": "{instruction}\nthe correct answer is", "labels": {
            name.lower(): {"word": f" {name}", "min": None, "max": None, "values": [name]} for name in ARITHMETIC
        }},
        test_rows=300,
    ),
}  # fmt: skip


class PyreftContender(Contender):
    """pyreft with one of our recipes.

    Args:
        name: in the table.
        recipe: LoReFT, one intervention a layer.
        learning_rates: of which one is chosen.
        params: all of params.yaml.
        start: ``paper`` as pyreft starts, or ``identity``: its W and b are set so that its edits do nothing at first.
    """

    def __init__(
        self, name: str, recipe: Recipe, learning_rates: tuple[float, ...], params: Params, *, start: Init = "paper"
    ) -> None:
        self._recipe = recipe.model_copy(update={"init": start})
        self._training = TrainingSettings.of(params.train)
        key = {part: value for part, value in self._recipe.model_dump().items() if part != "learning_rate"}
        key |= {package: version(package) for package in ("pyreft", "pyvene")}
        key |= {file: sha256_file(Path(__file__).parents[1] / file) for file in CODE}
        super().__init__(name, "pyreft", learning_rates, key)

    def train(
        self, workspace: Workspace, rows: Sequence[TrainingRow], *, learning_rate: float, seed: int
    ) -> Iterator[tuple[CausalModel, int]]:
        """Train pyreft's model; what is yielded has its numbers after the last step."""
        subject = subject_of(workspace, Text((), ""))
        subject.tokenizer.padding_side = "right"  # pyreft's places count from the first column
        recipe = self._recipe.model_copy(update={"learning_rate": learning_rate})
        config, fit = reft_config(recipe, workspace.base), fit_config(recipe, self._training, seed=seed)
        source = pyreft_model(subject, config, seed=seed)
        if self._recipe.init == "identity":
            start_at_identity(source)
        plain = [row for row in rows if isinstance(row, Encoded)]
        assert len(plain) == len(rows), "pyreft trains no row against its other options"
        training = pyreft_training(source, subject, config, plain, fit, sink=True)
        model = ReftModel(workspace.base, config, seed=seed)
        yield model, training.num_trainable
        schedule = Schedule(tuple(row.num_tokens for row in rows), fit)
        for step in range(schedule.total_steps):
            training.set_rate(schedule.learning_rate(step))
            loss = training.step()
            if not torch.isfinite(torch.tensor(loss)):
                raise NonFiniteLossError(f"the loss must be finite; got {loss} at step {step + 1}")
            yield model, training.num_trainable
        copy_weights(source, model)

    def steps(self, rows: int) -> int:
        """How many steps a training of so many rows takes."""
        return self._recipe.epochs * -(-rows // self._recipe.batch_size)


def every_contender(params: Params, only: Sequence[str] = ()) -> list[Contender]:
    """The lines of params.yaml, and pyreft's; some ``only``, if any are named.

    Raises:
        PipelineError: for a name that is not there, or if params.yaml has not the recipes that pyreft's lines take.
    """
    known = [*params.compare.methods, *PYREFT]
    if strangers := [name for name in only if name not in known]:
        raise PipelineError(f"--methods knows {'; '.join(known)}", got="; ".join(strangers), do="Name some of those.")
    ours = [name for name in params.compare.methods if not only or name in only]
    made = contenders(params, best=Path("none"), only=ours) if ours else []
    return [*made, *(_pyreft(name, params) for name in PYREFT if not only or name in only)]


def _pyreft(name: str, params: Params) -> Contender:
    ours, rates = PYREFT[name]
    settings = params.compare.methods.get(ours)
    if settings is None or settings.method != "reft":
        raise PipelineError(f"pyreft has the recipe of compare.methods.{ours}", got="none", do="Add it.")
    values = {**params.recipe_space().fixed, **settings.values(), "epochs": params.compare.epochs, "learning_rate": 1.0}
    recipe = make_recipe("reft", values)
    if not isinstance(recipe, Recipe) or recipe.method != "loreft" or recipe.accumulation != 1:
        raise PipelineError("pyreft is compared with LoReFT, without accumulation", got=recipe, do="Correct it.")
    return PyreftContender(name, recipe, rates, params)


def open_task(
    task: Task, raw: Mapping[str, Any], data: Path, place: Path, *, again: bool = False
) -> tuple[Params, CellMaker, Workspace]:
    """Copy a task's files to a folder of its own, make base and data there, and open them.

    Args:
        task: which.
        raw: params.yaml.
        data: the folder of data sets.
        place: the task's own folder.
        again: whether another process has just made them, which only need to be opened.

    Raises:
        PipelineError: for a file that is missing, or rows that break a rule.
    """
    asked = raw["compare"]["test_rows"]
    compared = {**raw["compare"], "test_rows": asked if task.test_rows is None else min(asked, task.test_rows)}
    counts = {f"{split}_rows": compared[f"{split}_rows"] for split in ("train", "validation", "test")}
    sources = {key: f"file:data/own/{file}" for key, file in task.files.items()}
    section = {**raw["prepare"], **task.prepare, **sources, **counts, "sha256": None}
    searched = {**raw["search"], "train_rows": min(raw["search"]["train_rows"], counts["train_rows"])}
    params = check_params({**raw, "prepare": section, "search": searched, "compare": compared}, "params.yaml")
    base, prepared = place / "base.json", place / "prepared"
    if not again:
        copy_files(task, data, place / "data" / "own")
        base_stage.run(params, root=place, out=base)
        prepare_stage.run(params, root=place, base=base, out=prepared, card=place / "data.json")
    workspace = open_workspace(params.computation(), root=place, base=base, prepared=prepared)
    return params, CellMaker(workspace, params, Budget.of(params.compare), root=place), workspace


def copy_files(task: Task, data: Path, own: Path) -> None:
    """Copy a task's files from the folder of data sets to a project's own.

    Raises:
        PipelineError: for a file that is missing.
    """
    own.mkdir(parents=True, exist_ok=True)
    for file in task.files.values():
        try:
            shutil.copyfile(data / task.folder / file, own / file)
        except OSError as error:
            rule = f"the folder of {VARIABLE} must hold {task.folder}/{file}"
            raise PipelineError(rule, got=error, do=f"Correct {VARIABLE}.") from None


def subject_of(workspace: Workspace, text: Text) -> Subject:
    """Base and tokenizer as the other benchmarks take them."""
    if workspace.tokenizer.pad_token_id is None:
        workspace.tokenizer.pad_token = workspace.tokenizer.eos_token
    return Subject(workspace.base, workspace.tokenizer, text, workspace.base_source)
