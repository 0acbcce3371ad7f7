"""How good LoReFT is beside its rivals and beside pyreft, on three tasks of real data.

Rows are SST-2, ARC-Easy and MathQA (arithmetic, five answers to choose from) of the folder that the variable
REFT_BENCH_DATA names; base, methods, learning rates and budgets are those of params.yaml (section compare), as `reft
compare-methods` takes them. Beside them stand pyreft's own training and classes, with the recipes of the two LoReFTs
but learning rates of their own: its loss, its modules, its start (which edits every layer at random, where ours begins
as the frozen base), and the same rows in the same batches with the same schedule. On a base in bfloat16 it trains W and
b in bfloat16, as its modules do; what it trained is asked the test rows by this project's scoring
(tests/reft/models/test_parity.py compares both edits).

Each training is a file in --out. Stopped and started again with the same words, it goes on. Each method has a process
of its own, whose messages are in --out, and --workers says how many there are at once.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.quality.cells import DTYPES, TASKS, VARIABLE, Task, every_contender, open_task, subject_of
from benchmarks.sides.arguments import names, number, numbers, parser
from benchmarks.sides.rows import Text
from benchmarks.sides.setting import announce
from pipelines.compare.choose import compare
from pipelines.compare.table import Comparison, Line, lines_of, markdown
from pipelines.compare.write import write_comparison
from pipelines.errors import PipelineError
from pipelines.model.workspace import Workspace
from pipelines.params.whole import EvaluateParams, Params
from pipelines.yaml_file import read_yaml

ROWS = ("tuning", "train", "validation", "test")

SEARCHED = {"method": "loreft", "layers": "upper-half", "positions": "l4", "rank": 8}
"""What the search of `make run` chose, on other reviews of films; some are in SST-2 too."""

OURS, RIVAL = ("LoReFT, paper", "LoReFT, searched"), "LoRA"
"""What the sentences below a table compare."""


def level(found: Comparison, settings: EvaluateParams) -> str:
    """A sentence for each LoReFT: with what share of LoRA's trained numbers it is level, by the paired interval."""
    by_name = {line[0].name: line for line in found.lines}
    said = []
    for name in OURS:
        if name not in by_name or RIVAL not in by_name:
            said.append(f"{name} and {RIVAL} were not both measured.\n")
            continue
        _, ours, rival = lines_of(replace(found, lines=(by_name[name], by_name[RIVAL])), settings)
        said.append(sentence(ours, rival))
    return "".join(said)


def sentence(ours: Line, rival: Line) -> str:
    """The sentence of two lines, of which the rival's difference is to ours."""
    if ours.value is None or rival.value is None:
        return f"{ours.name} and {rival.name} were not both measured.\n"
    share = f"{ours.parameters / rival.parameters:.0%} of its trained numbers"
    if rival.difference is None:
        return f"{ours.name} answers every test row as {rival.name} does, with {share}.\n"
    low, value, high = (-100 * each for each in (rival.difference.high, rival.difference.value, rival.difference.low))
    verdict = {"better": "is below", "worse": "is above"}.get(rival.verdict, "is level with")  # the rival's, to ours
    return f"With {share}, {ours.name} {verdict} {rival.name} here: {value:+.1f} points ({low:+.1f} to {high:+.1f}).\n"


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
    params, maker, workspace = open_task(task, raw, data, place, again=again)
    methods = every_contender(params, only)
    seeds = params.compare.seeds if task.several_seeds else params.compare.seeds[:1]
    found = compare(maker, methods, seeds)
    if not again:
        write_comparison(found, params.evaluate, place / "compare", title=task.folder)
    return report(task, found, params, workspace)


def report(task: Task, found: Comparison, params: Params, workspace: Workspace) -> str:
    """The table of a task in Markdown, and what it says of LoReFT and LoRA."""
    lines = lines_of(found, params.evaluate)
    rows = f"{params.compare.train_rows} training rows, {params.compare.epochs} epoch(s)"
    base = f"{workspace.base_source.partition('#')[0]} in {params.base.dtype}"
    heading = f"{task.folder}: {len(found.base.scores)} test rows, {rows}, {base}"
    return f"{heading}\n\n{markdown(lines, found.measure.name)}\n{level(found, params.evaluate)}"


def _work(raw: Mapping[str, Any], tasks: Sequence[str], methods: int) -> float:
    """About how many tokens' worth of plain training is ahead, if no cell is there; a third of it is a forward pass."""
    compared, tokens = raw["compare"], {"sst2": 29, "arc": 85, "arithmetic": 90}
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
    """Put what the command line says into the parameters, and the recipe that was searched elsewhere."""
    compared = raw["compare"]
    searched = compared["methods"].get(OURS[1])
    if searched is not None:  # without that line, pyreft's own of it says what is missing
        searched["parts"] = dict(SEARCHED)
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
    params, _, workspace = open_task(TASKS[given.tasks[0]], raw, data, given.out / given.tasks[0])
    methods = len(every_contender(params, given.methods))
    texts = tuple(row.prompt for row in workspace.rows("train")) * 40
    text = Text(texts, TASKS[given.tasks[0]].folder)
    announce(subject_of(workspace, text), _work(raw, given.tasks, methods) / given.workers)


def _share(raw: Mapping[str, Any], given: Any, data: Path) -> None:
    """Make every cell, each method of each task in a process of its own, some at once.

    Raises:
        PipelineError: if one of them fails; those that are under way end before it is raised.
    """
    parts = []
    for task in given.tasks:
        params, _, _ = open_task(TASKS[task], raw, data, given.out / task)
        parts += [(task, method.name) for method in every_contender(params, given.methods)]
    parts.sort(key=lambda part: -_work(raw, part[:1], 1))  # the longest first, so that workers end at about one time
    compared = raw["compare"]
    same = [
        *("--again", "--root", given.root, "--out", given.out),
        *("--threads", raw["run"]["threads"], "--dtype", raw["base"]["dtype"], "--epochs", compared["epochs"]),
        *("--rows", ",".join(str(compared[f"{kind}_rows"]) for kind in ROWS)),
        *("--seeds", ",".join(map(str, compared["seeds"]))),
    ]
    with ThreadPoolExecutor(given.workers) as pool, tqdm(total=len(parts), desc="methods", unit="method") as bar:
        runs = {pool.submit(_run, part, given.out, same): part for part in parts}
        try:
            for run in as_completed(runs):
                run.result()
                bar.set_postfix_str(", ".join(runs[run]))
                bar.update()
        except BaseException:  # Ctrl-C too: what waits is not begun
            pool.shutdown(cancel_futures=True)
            raise


def _run(part: tuple[str, str], out: Path, same: Sequence[object]) -> None:
    task, method = part
    log = out / task / f"{re.sub(r'[^a-z0-9]+', '-', method.lower())}.log"
    words = [sys.executable, "-m", "benchmarks.quality", "--tasks", task, "--methods", method, *map(str, same)]
    with log.open("w", encoding="utf-8") as messages:
        code = subprocess.run(words, stdout=messages, stderr=messages, check=False).returncode
    if code:
        raise PipelineError(f"{method} on {task} must end with exit code 0", got=code, do=f"Read {log}.")


if __name__ == "__main__":
    sys.exit(main())
