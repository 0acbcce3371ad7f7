"""Every task of the library through stage prepare: ``python -m benchmarks.quality.tasks``.

Of the rows in the folder that REFT_BENCH_DATA names it prints two tables in Markdown, of what was read, rejected and
kept and of the rejections by reason, and one prompt of each task as the model reads it. docs/tasks.md is its output.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.quality.cells import VARIABLE
from benchmarks.sides.arguments import parser
from benchmarks.speed.tables import table
from pipelines.contracts.card import DataCard, read_card
from pipelines.contracts.prepared import SPLITS, Row, read_rows
from pipelines.contracts.task import read_task
from pipelines.errors import PipelineError
from pipelines.intake.library import Sources, prepare_keys, read_task_file, split_files, task_changes, task_names
from pipelines.markdown import code
from pipelines.params.whole import Params, check_params
from pipelines.stages import base as base_stage
from pipelines.stages import prepare as prepare_stage
from pipelines.tasks.family import open_family
from pipelines.wording import measure_words, share
from pipelines.yaml_file import read_yaml

SHOWN = 900  # characters of a prompt


@dataclass(frozen=True)
class Prepared:
    """A task as stage prepare left it.

    Attributes:
        name: in the library.
        measure: of its answers.
        card: of the data.
        groups: in how many groups the test rows are.
        baselines: figures of answers to the test rows that read no prompt, by name.
        row: the first of the training rows.
    """

    name: str
    measure: str
    card: DataCard
    groups: int
    baselines: Mapping[str, float]
    row: Row


def prepared(name: str, raw: Mapping[str, Any], data: Path, place: Path) -> Prepared:
    """Put a task through the stage, in a folder of its own.

    Raises:
        PipelineError: if its files are not there, or do not give the rows that the library's keys want.
    """
    params = with_task(raw, own_keys(name, data, place))
    base, out, card = place / "base.json", place / "prepared", place / "data.json"
    base_stage.run(params, root=place, out=base)
    prepare_stage.run(params, root=place, base=base, out=out, card=card)
    family, rows = open_family(read_task(out)), read_rows(out, "test")
    baselines = {each: family.measure.add_up(scores) for each, scores in family.baselines(rows).items()}
    groups = len({row.id if row.group is None else row.group for row in rows})
    return Prepared(name, family.measure.name, read_card(card), groups, baselines, read_rows(out, "train")[0])


def own_keys(name: str, data: Path, place: Path) -> dict[str, Any]:
    """The section ``prepare`` of a task whose files are copied to a folder of its own.

    Raises:
        PipelineError: if its files are not there.
    """
    task = read_task_file(name)
    files = split_files(task, data)
    (place / "data" / "own").mkdir(parents=True, exist_ok=True)
    for path in files.values():
        shutil.copyfile(path, place / "data" / "own" / path.name)
    return prepare_keys(task, Sources({split: f"file:data/own/{path.name}" for split, path in files.items()}, {}))


def report(found: Sequence[Prepared]) -> str:
    """The tables and the prompts, in Markdown."""
    header = ["task", "measure", "rows read", "rejected", "train", "validation", "test", "groups of test rows",
        "tokens, median and longest", "majority", "chance"]  # fmt: skip
    lines = [[
        code(each.name), measure_words(each.measure), f"{each.card.read:,}", f"{sum(each.card.rejected.values()):,}",
        *(str(each.card.splits[split].rows) for split in SPLITS), str(each.groups),
        "{p50:g}, {max:g}".format(**each.card.splits["train"].tokens),
        *(share(each.baselines[name]) if name in each.baselines else "" for name in ("majority", "chance")),
    ] for each in found]  # fmt: skip
    reasons = [
        [code(each.name), reason, f"{count:,}"] for each in found for reason, count in each.card.rejected.items()
    ]
    prompts = [f"### {each.name}\n\n{_prompt(each.row)}" for each in found]
    return "\n".join([table(header, lines), table(["task", "why rows are rejected", "rows"], reasons), *prompts])


def _prompt(row: Row) -> str:
    """What the model reads, and what it may answer or is to."""
    answers = "\n".join(f"{'*' if text == row.completion else ' '} {text!r}" for text in row.choices)
    cut = row.prompt if len(row.prompt) <= SHOWN else f"{row.prompt[:SHOWN]} …"
    said = answers or f"* {row.completion[:SHOWN]!r}"
    return f"````text\n{cut}\n````\n\n````text\n{said}\n````\n"


def with_task(raw: Mapping[str, Any], keys: Mapping[str, Any]) -> Params:
    """All of params.yaml with the task in it."""
    shipped = check_params(dict(raw), "params.yaml")
    changes = task_changes(shipped, keys)
    whole = {name: {**raw[name], **changes.get(name, {})} if name in changes else raw[name] for name in raw}
    return check_params({**whole, "prepare": dict(keys)}, "params.yaml")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; 2 if there are no data or none can be read."""
    words = parser("benchmarks.quality.tasks", __doc__, out="file of the tables and prompts (default: printed)")
    words.add_argument("--tasks", type=lambda text: text.split(","), help="some of the library, with , between")
    given = words.parse_args(arguments)
    try:
        data = os.environ.get(VARIABLE)
        if not data:
            raise PipelineError(f"the rows are in the folder that {VARIABLE} names", got="nothing", do="Set it.")
        raw: Any = read_yaml(given.root / "params.yaml")
        found = []
        for name in given.tasks or task_names():
            with tempfile.TemporaryDirectory() as folder:
                found.append(prepared(name, raw, Path(data), Path(folder)))
    except PipelineError as error:
        print(error, file=sys.stderr)
        return 2
    if given.out is None:
        print(report(found))
    else:
        given.out.write_text(report(found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
