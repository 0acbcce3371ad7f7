"""``reft align``: the flow that finds where a model holds a causal variable, and what it shows in the end."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from prefect import State, flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from flows.runs.cards import pages, share
from flows.runs.lines import lines_to_copy
from flows.runs.server import Told, kept_alive
from flows.runs.tasks import showing
from flows.runs.titles import project_name
from pipelines.markdown import table, text
from pipelines.params.whole import load_params
from pipelines.project.graph import read_graph
from pipelines.tracking.store import public_store

if TYPE_CHECKING:  # what it imports takes seconds to load
    from pipelines.align.map import AlignResult, Cell


@dataclass(frozen=True)
class AlignRun:
    """The map, the folder that it lies in, and the tracking store's address."""

    result: AlignResult
    out: Path
    store: str


_told = Told[AlignRun]()


def run(project: Path) -> AlignRun:
    """Run the flow in this process; what stopped it is raised as it was. Ctrl-C ends the process."""
    signal.signal(signal.SIGINT, _stop)
    with kept_alive():
        return _told.outcome(lambda: align(str(project.resolve()), return_state=True))


def _stop(_signal: int, _frame: object) -> NoReturn:
    """End at once: finished cells and checkpoints are on the disk, and Prefect would take a minute to note the end."""
    os.write(2, b"\nstopped; the next `reft align` goes on from here\n")
    os._exit(130)


@flow(name="align", flow_run_name=project_name, validate_parameters=False, persist_result=False)
def align(project: str = ".") -> State[AlignRun]:
    """Measure every cell of the map, draw it, and show it on the run's page."""
    root = Path(project).resolve()
    store = public_store(load_params(root / "params.yaml").tracking, root)
    out = root / read_graph(root).paths["alignment"]
    result = search(root, out)
    found = AlignRun(result, out, store)
    _told.came_to(found)
    with showing():
        create_markdown_artifact(key="alignment", markdown=alignment_card(result))
    line = f"interchange accuracy {share(result.best.test.value)} at {result.best.name}"
    get_run_logger().info(line)
    return Completed(message=line, data=found)


@task(name="align", cache_policy=NO_CACHE, persist_result=False)
def search(root: Path, out: Path) -> AlignResult:
    """Compute each cell of the map that is not there yet; what an earlier run finished stays."""
    from pipelines.align.run import run as measure  # loads torch

    return measure(load_params(root / "params.yaml"), root=root, out=out)


def alignment_card(result: AlignResult) -> str:
    """The map as Markdown: a line for each layer and place."""
    columns = _columns(result)
    lines = [
        f"# Where is {text(repr(result.variable))}?",
        "",
        f"The model answers {share(result.accuracy.value)} of its task right, and with no swap "
        f"{share(result.unchanged.value)} of the counterfactual rows. "
        f"Best learned place: {text(result.best.name)}, {share(result.best.test.value)}.",
        "",
    ]
    rows = [
        [str(layer), f"{positions} {result.tokens[positions]}", *(values.get(name, "") for name in columns)]
        for (layer, positions), values in _lines(result).items()
    ]
    header = [text(name) for name in ("layer", "token", *columns)]
    return "\n".join([*lines, *table(header, [[text(cell) for cell in row] for row in rows])])


def alignment_table(found: AlignRun) -> RenderableType:
    """What was found, for the terminal."""
    result = found.result
    table = Table(title=f"Interchange accuracy of {result.variable!r}, {result.cells[0].test.rows} test rows")
    columns = _columns(result)
    for name in ("layer", "token", *columns):
        table.add_column(name, justify="left" if name == "token" else "right")
    for (layer, positions), values in _lines(result).items():
        token = Text(f"{positions} {result.tokens[positions].strip()!r}")
        table.add_row(str(layer), token, *(values.get(name, "") for name in columns))
    facts = Table(show_header=False, title="Outcome", title_justify="left")
    facts.add_row("the model on its task", _interval(result.accuracy))
    if result.taught_from is not None:
        facts.add_row("the same before it was taught", _interval(result.taught_from))
    facts.add_row("no swap at all", _interval(result.unchanged))
    facts.add_row("best learned place", f"{result.best.name}: {_interval(result.best.test)}")
    facts.add_row("cells from an earlier run", f"{result.resumed} of {len(result.cells)}")
    look = [("picture and table", str(found.out)), ("its run", pages(found.store))]
    return Group("", table, "", facts, "", lines_to_copy("Where to look next", look))


def _interval(figures: Any) -> str:
    return f"{share(figures.value)} [{share(figures.low)}, {share(figures.high)}]"


def _columns(result: AlignResult) -> list[str]:
    return list(dict.fromkeys(name for cell in result.cells for name in _values(cell)))


def _lines(result: AlignResult) -> dict[tuple[int, str], dict[str, str]]:
    """Return by layer and positions what stands in each column."""
    lines: dict[tuple[int, str], dict[str, str]] = {}
    for cell in result.cells:
        lines.setdefault((cell.layer, cell.positions), {}).update(_values(cell))
    return lines


def _values(cell: Cell) -> dict[str, str]:
    if cell.chance is None:
        return {"whole state" if cell.method == "whole" else f"block of {cell.dimension}": share(cell.test.value)}
    learned = cell.method if cell.method == "boundless" else f"{cell.method} {cell.dimension}"
    asked = "random" if cell.method == "boundless" else f"random {cell.dimension}"
    return {learned: share(cell.test.value), asked: share(cell.chance)}
