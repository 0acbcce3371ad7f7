"""``reft compare A B``: two adapters, or one and its base, on the same rows, with a page of those that differ."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from flows.commands.asked import (
    ADAPTER,
    Activation,
    Base,
    Data,
    Download,
    Dtype,
    Method,
    Positions,
    Prepared,
    Project,
    Rows,
    Tasks,
    kept_words,
    naming,
    wanted_rows,
)
from pipelines.errors import PipelineError
from pipelines.params.whole import load_params
from pipelines.project.graph import read_graph
from pipelines.runtime.process import importing

if TYPE_CHECKING:
    from pipelines.evaluation.pair import Compared
    from pipelines.evaluation.wanted import WantedRows
    from pipelines.exchange.named import Naming

console = Console(highlight=False, markup=False)


def compare_command(
    one: Annotated[str, typer.Argument(metavar="A", help=f"{ADAPTER}; or base, the frozen base of the other one.")],
    other: Annotated[str, typer.Argument(metavar="B", help="The same.")],
    project: Project = Path(),
    tasks: Tasks = None,
    data: Data = None,
    rows: Rows = None,
    prepared: Prepared = None,
    download: Download = False,
    out: Annotated[Path | None, typer.Option(help="A folder for pages and figures. Default: reports/pairs.")] = None,
    base: Base = None,
    positions: Positions = None,
    activation: Activation = None,
    method: Method = None,
    dtype: Dtype = "float32",
) -> None:
    """Ask two adapters, or one and its frozen base, the same rows: is one better, by how much, and on which rows?

    The paired difference has a bootstrap interval, and an exact test says what chance explains (McNemar's, where
    answers are right or wrong). Rows that a version was trained or chosen on are left out. The page in reports/pairs
    has the rows that one answers better than the other. Answers are kept in .reft/answers: what was stopped goes on.

    reft compare 3 @champion

    reft compare models/adapter base --rows 200

    reft compare @champion ~/loreft-llama --positions f7+l7 --tasks boolq --data ~/tasks

    Methods side by side, trained anew with several seeds: reft compare-methods
    """
    root = project.resolve()
    params = load_params(root / "params.yaml")
    named = naming(
        root, download=download, base=base, dtype=dtype, positions=positions, activation=activation, method=method
    )
    wanted, folder = wanted_rows(tasks, data, prepared, rows), out or _pages(root)
    with importing():
        from pipelines.evaluation.pair import compare_systems
        from pipelines.evaluation.pair_page import write_pair
        from pipelines.evaluation.wanted import every_asked, opened_systems
    with opened_systems([one, other], named) as systems:
        asked = every_asked(wanted, systems, params, root=root)
        found = compare_systems(systems[0], systems[1], asked, params, root=root)
    command = _command(one, other, wanted, named, None if project == Path() else project)
    for each in found:
        path = write_pair(folder, each, command=command, seed=params.seed)
        console.print(Group(*_shown(each)))
        console.print(kept_words(each.asked, each.anew, each.unknown))
        console.print(f"Rows on which they differ: {os.path.relpath(path)}", soft_wrap=True)


def _command(one: str, other: str, wanted: WantedRows, named: Naming, elsewhere: Path | None) -> str:
    """The line that asks the same again; ``elsewhere`` is the project where it is not the folder itself."""
    said = named.declared
    options = {
        "--tasks": ",".join(wanted.tasks) or None, "--data": wanted.data, "--rows": wanted.limit,
        "--base": named.base and named.base.address, "--positions": said.positions, "--activation": said.activation,
        "--method": said.method, "--dtype": named.base and named.base.dtype,
    }  # fmt: skip
    words = [word for name, value in options.items() if value is not None for word in (name, str(value))]
    folders = [word for folder in wanted.prepared for word in ("--prepared", str(folder))]
    if elsewhere:
        folders += ["--project", str(elsewhere)]
    return shlex.join(["reft", "compare", one, other, *words, *folders, *(["--download"] if named.download else [])])


def _shown(found: Compared) -> Iterator[RenderableType]:
    from pipelines.evaluation.pair_page import PAIR_HEADER, pair_answer, pair_rows, pair_task_rows
    from pipelines.reports.differing import differing

    table = Table(title=f"Compared on {found.asked.title}", title_justify="left", show_header=False)
    for name, words in pair_rows(found):
        table.add_row(Text(name), Text(words))
    if (rows := differing(found.predictions)) is not None:
        table.add_row(Text(f"{found.one.title} answers better"), f"{len(rows.won):,} rows")
        table.add_row(Text(f"{found.other.title} answers better"), f"{len(rows.lost):,} rows")
    yield table
    if found.figures.tasks:
        own = Table(title="Tasks", title_justify="left")
        for title in PAIR_HEADER:
            own.add_column(title, overflow="fold")
        for line in pair_task_rows(found.figures):
            own.add_row(*map(Text, line))
        yield own
    yield Text(pair_answer(found))


def _pages(root: Path) -> Path:
    """Where dvc.yaml says that pages of pairs go."""
    paths = read_graph(root).paths
    if "pairs" not in paths:
        raise PipelineError(
            "vars.paths of dvc.yaml must say where pages of comparisons go",
            got="no pairs",
            do="Give --out FOLDER, or run: reft upgrade",
        )
    return root / paths["pairs"]
