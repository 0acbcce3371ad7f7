"""How good LoReFT is beside its rivals and beside pyreft, on three tasks of real data.

Rows are SST-2, ARC-Easy and MathQA (arithmetic, five answers to choose from) of the folder that the variable
REFT_BENCH_DATA names; base, methods, learning rates and budgets are those of params.yaml (section compare), as `reft
compare-methods` takes them. Beside them stand pyreft's own training and classes, with the recipes of the two LoReFTs:
its loss, its modules, its start, and the same rows in the same batches with the same schedule; what it trained is asked
the test rows by this project's scoring, whose logits are pyreft's to 1e-6 (tests/reft/test_parity.py).

Each training is a file in --out. Stopped and started again with the same words, it goes on. Each method has a process
of its own, whose messages are in --out, and --workers says how many there are at once.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.arguments import names, number, numbers, parser
from benchmarks.models import Subject
from benchmarks.peers import copy_weights, pyreft_model, pyreft_training
from benchmarks.rows import Text
from benchmarks.setting import announce
from pipelines import base as base_stage
from pipelines import prepare as prepare_stage
from pipelines.cells import Budget, Contender, Workshop
from pipelines.compare import compare, contenders
from pipelines.comparison import Comparison, Line, lines_of, markdown, write_comparison
from pipelines.errors import PipelineError
from pipelines.methods import make_recipe
from pipelines.params import Params, check_params
from pipelines.recipe import Recipe
from pipelines.training import Bench, fit_config, open_bench, reft_config
from pipelines.yaml_file import read_yaml
from reft import CausalModel, Encoded, NonFiniteLossError, ReftModel
from reft.schedule import Schedule

VARIABLE = "REFT_BENCH_DATA"
ARITHMETIC = tuple("ABCDE")
ANSWERS = tuple(f"answer{place}" for place in range(1, 5))
PYREFT = {"pyreft, paper": "LoReFT, paper", "pyreft, last 4": "LoReFT, last 4"}
"""pyreft's lines in the table, and whose recipe each has."""

ROWS = ("tuning", "train", "validation", "test")
DTYPES = ("float32", "bfloat16", "float16")

OURS, RIVAL = "LoReFT, paper", "LoRA"
"""What the sentence below a table compares."""


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
    """

    def __init__(self, name: str, recipe: Recipe, learning_rates: tuple[float, ...], params: Params) -> None:
        self._recipe = recipe.model_copy(update={"init": "paper"})
        self._params = params
        key = {part: value for part, value in self._recipe.model_dump().items() if part != "learning_rate"}
        super().__init__(name, "pyreft", learning_rates, key)

    def train(
        self, bench: Bench, rows: Sequence[Encoded], *, learning_rate: float, seed: int
    ) -> Iterator[tuple[CausalModel, int]]:
        """Train pyreft's model; what is yielded has its numbers after the last step."""
        subject = subject_of(bench, Text((), ""))
        subject.tokenizer.padding_side = "right"  # pyreft's places count from the first column
        recipe = self._recipe.model_copy(update={"learning_rate": learning_rate})
        config, fit = reft_config(recipe, bench.base), fit_config(recipe, self._params, seed=seed)
        source = pyreft_model(subject, config, seed=seed)
        training = pyreft_training(source, subject, config, rows, fit, sink=True)
        model = ReftModel(bench.base, config, seed=seed)
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
    ours = PYREFT[name]
    settings = params.compare.methods.get(ours)
    if settings is None or settings.method != "reft":
        raise PipelineError(f"pyreft has the recipe of compare.methods.{ours}", got="none", do="Add it.")
    values = {**params.fixed(), **settings.values(), "epochs": params.compare.epochs, "learning_rate": 1.0}
    recipe = make_recipe("reft", values)
    if not isinstance(recipe, Recipe) or recipe.method != "loreft" or recipe.accumulation != 1:
        raise PipelineError("pyreft is compared with LoReFT, without accumulation", got=recipe, do="Correct it.")
    return PyreftContender(name, recipe, tuple(settings.learning_rates), params)


def open_task(
    task: Task, raw: Mapping[str, Any], data: Path, place: Path, *, again: bool = False
) -> tuple[Params, Workshop, Bench]:
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
        _copy(task, data, place / "data" / "own")
        base_stage.run(params, root=place, out=base)
        prepare_stage.run(params, root=place, base=base, out=prepared, card=place / "data.json")
    bench = open_bench(params, root=place, base=base, prepared=prepared)
    return params, Workshop(bench, params, Budget.of(params.compare), root=place), bench


def _copy(task: Task, data: Path, own: Path) -> None:
    own.mkdir(parents=True, exist_ok=True)
    for file in task.files.values():
        try:
            shutil.copyfile(data / task.folder / file, own / file)
        except OSError as error:
            rule = f"the folder of {VARIABLE} must hold {task.folder}/{file}"
            raise PipelineError(rule, got=error, do=f"Correct {VARIABLE}.") from None


def level(lines: Sequence[Line]) -> str:
    """One sentence: at what share of LoRA's trained numbers LoReFT is level with it, or not, by the paired interval."""
    found = {line.name: line for line in lines}
    ours, rival = found.get(OURS), found.get(RIVAL)
    if ours is None or rival is None or ours.accuracy is None or rival.accuracy is None:
        return f"{OURS} and {RIVAL} were not both measured.\n"
    share = f"{ours.parameters / rival.parameters:.0%} of its trained numbers"
    if rival.difference is None:
        return f"{OURS} answers every test row as {RIVAL} does, with {share}.\n"
    low, value, high = (-100 * each for each in (rival.difference.high, rival.difference.value, rival.difference.low))
    said = "is level with" if low <= 0 <= high else "is above" if low > 0 else "is below"
    return f"With {share}, {OURS} {said} {RIVAL} here: {value:+.1f} points ({low:+.1f} to {high:+.1f}).\n"


def measure(
    name: str, raw: Mapping[str, Any], data: Path, out: Path, *, only: Sequence[str] = (), again: bool = False
) -> str:
    """Make the cells of a task that are not there; return its table and its sentence.

    Args:
        name: of the task.
        raw: params.yaml.
        data: the folder of data sets.
        out: where cells are, and the task's data.
        only: names of the methods; none for all.
        again: see :func:`open_task`.

    Raises:
        PipelineError: for a method that is not there, or as :func:`open_task` does.
    """
    task, place = TASKS[name], out / name
    params, shop, bench = open_task(task, raw, data, place, again=again)
    methods = every_contender(params, only)
    seeds = params.compare.seeds if task.several_seeds else params.compare.seeds[:1]
    found = compare(shop, methods, seeds)
    if not again:
        write_comparison(found, params.evaluate, place / "compare", title=task.folder)
    return report(task, found, params, bench)


def report(task: Task, found: Comparison, params: Params, bench: Bench) -> str:
    """The table of a task in Markdown, and what it says of LoReFT and LoRA."""
    lines = lines_of(found, params.evaluate)
    rows = f"{params.compare.train_rows} training rows, {params.compare.epochs} epoch(s)"
    base = f"{bench.base_source.partition('#')[0]} in {params.base.dtype}"
    heading = f"{task.folder}: {len(found.base.right)} test rows, {rows}, {base}"
    return f"{heading}\n\n{markdown(lines)}\n{level(lines)}"


def _work(raw: Mapping[str, Any], tasks: Sequence[str], methods: int) -> float:
    """About how many tokens' worth of plain training is ahead, if no cell is there; a third of it is a forward pass."""
    compared, tokens = raw["compare"], {"sst2": 31, "arc": 100, "arithmetic": 70}
    total = 0.0
    for name in tasks:
        seeds = len(compared["seeds"]) if TASKS[name].several_seeds else 1
        tuning = 3 * (compared["tuning_rows"] * compared["epochs"] + compared["validation_rows"] / 3)
        measured = seeds * (compared["train_rows"] * compared["epochs"] + compared["test_rows"] / 3)
        total += methods * (tuning + measured) * tokens[name]
    return total


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; 2 if there are no data or none can be read."""
    words = parser("benchmarks.quality", __doc__, out="folder of data, trainings and tables (default: plots/quality)")
    words.set_defaults(out=Path("plots/quality"))
    words.add_argument("--tasks", type=names(TASKS), default=list(TASKS), help=f"some of {','.join(TASKS)}")
    words.add_argument("--seeds", type=numbers, help="of sst2, the others have the first (default: as params.yaml)")
    words.add_argument("--rows", type=numbers, help="of tuning, training, validation and test")
    words.add_argument("--epochs", type=number, help="of each training")
    words.add_argument(
        "--methods", type=lambda text: text.split(";"), default=[], help="some of the table's, with ; between"
    )
    words.add_argument("--dtype", choices=DTYPES, help="of the base (default: base.dtype of params.yaml)")
    words.add_argument("--workers", type=number, default=1, help="processes that train at once (default: 1)")
    words.add_argument("--again", action="store_true", help=argparse.SUPPRESS)
    given = words.parse_args(arguments)
    try:
        data = os.environ.get(VARIABLE)
        if not data:
            raise PipelineError(f"the rows are in the folder that {VARIABLE} names", got="nothing", do="Set it.")
        raw: Any = read_yaml(given.root / "params.yaml")
        _say(raw, given)
        if given.again:
            measure(given.tasks[0], raw, Path(data), given.out, only=given.methods, again=True)
            return 0
        _announce(raw, given, Path(data))
        _share(raw, given, Path(data))
        for name in given.tasks:
            print(measure(name, raw, Path(data), given.out, only=given.methods), flush=True)
    except PipelineError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _say(raw: Any, given: Any) -> None:
    """Put what the command line says into the parameters."""
    compared = raw["compare"]
    if given.rows is not None:
        if len(given.rows) != len(ROWS):
            raise PipelineError("--rows needs four numbers", got=len(given.rows), do="Give all of them.")
        compared |= {f"{kind}_rows": count for kind, count in zip(ROWS, given.rows, strict=True)}
    if given.seeds is not None:
        compared["seeds"] = given.seeds
    if given.epochs is not None:
        compared["epochs"] = given.epochs
    if given.threads is not None:
        raw["run"]["threads"] = given.threads
    if given.dtype is not None:
        raw["base"]["dtype"] = given.dtype


def _announce(raw: Mapping[str, Any], given: Any, data: Path) -> None:
    params, _, bench = open_task(TASKS[given.tasks[0]], raw, data, given.out / given.tasks[0])
    methods = len(every_contender(params, given.methods))
    texts = tuple(row.prompt for row in bench.rows("train")) * 40
    text = Text(texts, TASKS[given.tasks[0]].folder)
    announce(subject_of(bench, text), _work(raw, given.tasks, methods) / given.workers)


def _share(raw: Mapping[str, Any], given: Any, data: Path) -> None:
    """Make every cell, each method of each task in a process of its own, some at once.

    Raises:
        PipelineError: if one of them fails; those that are under way end before it is raised.
    """
    parts = []
    for task in given.tasks:
        params, shop, _ = open_task(TASKS[task], raw, data, given.out / task)
        shop.base()
        parts += [(task, method.name) for method in every_contender(params, given.methods)]
    compared = raw["compare"]
    same = [
        *("--again", "--root", given.root, "--out", given.out),
        *("--threads", raw["run"]["threads"], "--dtype", raw["base"]["dtype"], "--epochs", compared["epochs"]),
        *("--rows", ",".join(str(compared[f"{kind}_rows"]) for kind in ROWS)),
        *("--seeds", ",".join(map(str, compared["seeds"]))),
    ]
    with ThreadPoolExecutor(given.workers) as pool, tqdm(total=len(parts), desc="methods", unit="method") as bar:
        runs = {pool.submit(_run, part, given.out, same): part for part in parts}
        for run in as_completed(runs):
            if (error := run.exception()) is not None:
                pool.shutdown(cancel_futures=True)
                raise error
            bar.set_postfix_str(", ".join(runs[run]))
            bar.update()


def _run(part: tuple[str, str], out: Path, same: Sequence[object]) -> None:
    task, method = part
    log = out / task / f"{re.sub(r'[^a-z0-9]+', '-', method.lower())}.log"
    words = [sys.executable, "-m", "benchmarks.quality", "--tasks", task, "--methods", method, *map(str, same)]
    with log.open("w", encoding="utf-8") as messages:
        code = subprocess.run(words, stdout=messages, stderr=messages, check=False).returncode
    if code:
        raise PipelineError(f"{method} on {task} must end with exit code 0", got=code, do=f"Read {log}.")


def subject_of(bench: Bench, text: Text) -> Subject:
    """Base and tokenizer as the other benchmarks take them."""
    if bench.tokenizer.pad_token_id is None:
        bench.tokenizer.pad_token = bench.tokenizer.eos_token
    return Subject(bench.base, bench.tokenizer, text, bench.base_source)


if __name__ == "__main__":
    sys.exit(main())
