"""LoReFT, LoRA and the frozen base on tasks of the library: ``python -m benchmarks.quality.library``.

Twelve tasks of four kinds, of the folder that REFT_BENCH_DATA names, with the default base, the same training rows and
steps for both methods, one learning rate a method for all tasks, and one seed.
A task and a method are a JSON file in --out. What is there, of the same code, data and settings, is not done again, so
what was stopped goes on; --tasks adds others of the library by their names, and the table has every task that is there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.quality.cells import VARIABLE
from benchmarks.quality.library_cells import METHODS, LibraryTask, Setting, cell_path
from benchmarks.quality.library_table import report
from benchmarks.sides.arguments import names, number, numbers, parser
from pipelines.errors import PipelineError
from pipelines.intake.library import task_names
from pipelines.params.whole import check_params
from pipelines.yaml_file import read_yaml

TWELVE = (
    "boolq", "piqa", "winogrande", "arc-easy", "mawps", "svamp", "multiarith", "sst2", "cola", "trec", "alpaca",
    "seed-tasks",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 2 if there are no data or none can be read."""
    words = parser("benchmarks.quality.library", __doc__, out="folder of the cells (default: plots/library/cells)")
    words.add_argument("--tasks", type=names(task_names()), help="some of the library (default: the twelve)")
    words.add_argument("--methods", type=names(METHODS), default=list(METHODS), help=f"some of {','.join(METHODS)}")
    words.add_argument("--rows", type=numbers, help="of training, validation and test, at most")
    words.add_argument("--epochs", type=number, help="of each training")
    words.add_argument("--work", type=Path, default=Path("plots/library"), help="folder of data and trainings")
    words.add_argument("--table", action="store_true", help="print the table of what is there, and end")
    given = words.parse_args(arguments)
    out = given.out or given.work / "cells"
    if given.rows is not None and len(given.rows) != len(Setting.rows):
        words.error(f"--rows needs three numbers; got {len(given.rows)}")
    try:
        raw: Any = read_yaml(given.root / "params.yaml")
        if not given.table:
            for name in given.tasks or TWELVE:
                _make(_opened(name, raw, given), given.methods, out)
        print(report(out, check_params(raw, "params.yaml").evaluate.confidence), flush=True)
    except PipelineError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _opened(name: str, raw: Any, given: Any) -> LibraryTask:
    data = os.environ.get(VARIABLE)
    if not data:
        raise PipelineError(f"the rows are in the folder that {VARIABLE} names", got="nothing", do="Set it.")
    asked = {"rows": given.rows and tuple(given.rows), "epochs": given.epochs, "threads": given.threads}
    setting = Setting(**{key: value for key, value in asked.items() if value is not None})
    return LibraryTask(name, setting, raw=raw, data=Path(data), place=given.work / name)


def _make(task: LibraryTask, methods: Sequence[str], out: Path) -> None:
    for method in methods:
        cell = task.cell(method, out)
        seconds = f"{cell.train_seconds:.0f} + {cell.score_seconds:.0f} s"
        print(f"{cell_path(out, task.name, method).name}: {cell.error or seconds}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
