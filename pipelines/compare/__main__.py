"""Methods side by side on the prepared rows: each with the best of its learning rates, then with every seed.

``python -m pipelines.compare`` in a project folder, which `reft compare-methods` calls. A training is a cell, and a
cell a JSON file that is written whole: a comparison that was stopped goes on with the first cell that is not there.
A learning rate is chosen on validation rows with the first seed; test rows are read with the chosen one alone.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipelines.compare.beside import untrained_tasks
from pipelines.compare.cells import Budget, CellMaker
from pipelines.compare.choose import compare
from pipelines.compare.contenders import contenders
from pipelines.compare.table import Comparison
from pipelines.compare.write import write_comparison
from pipelines.errors import PipelineError
from pipelines.evaluation.wanted import WantedRows
from pipelines.model.workspace import open_workspace
from pipelines.params.whole import Params, load_params
from pipelines.runtime.process import DYING_SECONDS, begin_process, locked

log = logging.getLogger(__name__)

NO_TASKS = WantedRows()


def run(
    params: Params,
    *,
    root: Path,
    base: Path,
    prepared: Path,
    search: Path,
    out: Path,
    only: Sequence[str] = (),
    untrained: WantedRows = NO_TASKS,
) -> Comparison:
    """Compare, and write table.md, table.csv and a picture to ``out``; with ``untrained`` tasks untrained.csv as well.

    Raises:
        PipelineError: for a recipe that is not whole, or fewer rows than the section asks for; as
            :func:`untrained_tasks`.
    """
    params.require_decoder("reft compare-methods")
    methods = contenders(params, best=search / "best.yaml", only=only)
    wanted = replace(untrained, limit=params.compare.test_rows) if untrained.limit is None else untrained
    trained = [method.method for method in methods]
    others = untrained_tasks(wanted, trained, params, root=root, base=base, prepared=prepared)
    workspace = open_workspace(params.computation(), root=root, base=base, prepared=prepared)
    maker = CellMaker(workspace, params, Budget.of(params.compare), root=root, others=others)
    found = compare(maker, methods, params.compare.seeds)
    write_comparison(found, params.evaluate, out, title=f"{workspace.base_source}, {params.prepare.source}")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Compare the methods of the project in the current folder; the exit code is as a stage's."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.compare", description="Methods side by side.")
    for flag in ("base", "prepared", "search", "out"):
        parser.add_argument(f"--{flag}", type=Path, required=True)
    parser.add_argument("--method", action="append", default=[], help="one of compare.methods; all without it")
    parser.add_argument("--task", action="append", default=[], help="of the library: one that is not trained")
    parser.add_argument("--data", type=Path, help="folder of the tasks' files")
    parser.add_argument("--untrained", type=Path, action="append", default=[], help="prepared rows of other projects")
    parser.add_argument("--rows", type=int, help="test rows of each of these (default: compare.test_rows)")
    given = parser.parse_args(argv)
    begin_process()
    root = Path.cwd()
    try:
        params = load_params(root / "params.yaml")
        with locked(root, "compare", wait_seconds=DYING_SECONDS + params.run.wait_seconds):
            paths = {name: getattr(given, name) for name in ("base", "prepared", "search", "out")}
            untrained = WantedRows(tuple(given.task), given.data, tuple(given.untrained), given.rows)
            run(params, root=root, **paths, only=given.method, untrained=untrained)
    except PipelineError as error:
        sys.stderr.write(f"error: compare: {error}\n")
        return 2
    except KeyboardInterrupt:  # what was measured is kept
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
