"""`reft compare-methods`: stale stages base and prepare, then the comparison in a process of its own."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from flows.runs import dvc, orphans
from flows.runs.dvc import StageFailedError
from flows.runs.notify import notify_of_failure
from flows.runs.project import check_ready
from flows.runs.server import Told, kept_alive
from flows.runs.tasks import repro_stage
from flows.runs.titles import project_name
from pipelines.contracts.task import read_task
from pipelines.errors import PipelineError
from pipelines.intake.library import data_folder, read_task_file, split_files
from pipelines.params.whole import Params
from pipelines.project.code import refresh_code
from pipelines.project.graph import read_graph
from pipelines.runtime.process import locked
from pipelines.wording import measure_words, relative, share

BEFORE = ("base", "prepare")  # the stages whose outputs are read
SEARCH = "search"  # and that one, for a method with a part that is searched
UNTRAINED = "untrained.csv"  # which is there if such tasks were asked
REFUSED = 2  # exit code of a process that told of a user's mistake


@dataclass(frozen=True)
class Untrained:
    """Tasks that no method is trained on, and how many rows of each are asked; None: as many as of the own task."""

    tasks: tuple[str, ...] = ()
    data: Path | None = None
    prepared: tuple[Path, ...] = ()
    rows: int | None = None

    def check(self) -> None:
        """Refuse tasks and folders that are not there.

        Raises:
            PipelineError: for an unknown task, files that are missing, or a folder without prepared rows.
        """
        if not (self.tasks or self.prepared) and self.rows is not None:
            raise PipelineError("--rows goes with --tasks or --prepared", got=self.rows, do="Name a task as well.")
        if self.tasks:
            data = data_folder(self.data)
            for name in self.tasks:
                split_files(read_task_file(name), data)
        for folder in self.prepared:
            read_task(folder)

    def words(self) -> list[str]:
        """The same on a command line."""
        words = [word for name in self.tasks for word in ("--task", name)]
        words += [word for folder in self.prepared for word in ("--untrained", str(folder.resolve()))]
        words += [] if self.data is None else ["--data", str(self.data.resolve())]
        return words + ([] if self.rows is None else ["--rows", str(self.rows)])


NOTHING = Untrained()


@dataclass(frozen=True)
class Compared:
    """The folder of a comparison's table and picture, and what it measured."""

    out: Path
    measure: str

    def table(self) -> RenderableType:
        """The tables, for a terminal."""
        untrained = self.out / UNTRAINED
        return Group(self._methods(), *([_changes(untrained)] if untrained.is_file() else []))

    def _methods(self) -> Table:
        rows = _records(self.out / "table.csv")
        made = Table(title=f"Methods side by side ({self.out}/table.md, {self.measure}.png)", title_justify="left")
        words = measure_words(self.measure)
        numbers = ("trained numbers", "seconds", "MB")
        for column in ("method", f"{words} (interval)", "spread", "difference", "verdict", "perplexity", *numbers):
            made.add_column(column, overflow="fold")
        for row in rows:
            made.add_row(
                Text(row["method"]), _interval(row, self.measure, row["note"]),
                _points(row["spread"]), _interval(row, "difference", ""), row["verdict"], _perplexity(row),
                f"{int(row['parameters']):,}", f"{float(row['train_seconds']):.0f}", f"{float(row['memory_mb']):,.0f}",
            )  # fmt: skip
        return made


_told = Told[Compared]()


def run(project: Path, *, only: Sequence[str] = (), untrained: Untrained = NOTHING) -> Compared:
    """Run the flow in this process; what stopped it is raised as it was.

    Args:
        project: the project folder.
        only: names of compare.methods; all of them if none is given.
        untrained: tasks that each method is asked beside its own.

    Raises:
        PipelineError: for a name that is none, more rows than there are to be, or tasks that are not there, before
            anything is done.
    """
    params = check_ready(project.resolve())
    params.require_decoder("reft compare-methods")
    _check_names(params, only)
    _check_rows(params)
    untrained.check()
    orphans.mark_children()
    with kept_alive():
        return _told.outcome(
            lambda: compare_methods(str(project.resolve()), list(only), untrained.words(), return_state=True)
        )


@flow(
    name="compare-methods",
    flow_run_name=project_name,
    validate_parameters=False,
    persist_result=False,
    on_failure=[notify_of_failure],
    on_crashed=[notify_of_failure],
)
def compare_methods(project: str = ".", only: list[str] | None = None, untrained: list[str] | None = None) -> Compared:
    """Run base and prepare where they are stale, then compare; ``untrained`` are words of :class:`Untrained`."""
    root = Path(project).resolve()
    params = check_ready(root)
    with locked(root, "run", wait_seconds=params.run.wait_seconds):
        orphans.end_orphans(root)
        dvc.repair_lock(root)
        refresh_code(root)
        graph = read_graph(root)
        before = {*BEFORE, *([SEARCH] if params.compare.needs_search(only or (), params.recipe_space().fixed) else ())}
        for stage in graph.stages:
            if stage.name in before:
                repro_stage(root, stage)
        compare(root, only or [], untrained or [])
    compared = Compared(root / graph.paths["comparison"], params.prepare.measure_name())
    _told.came_to(compared)
    return compared


@task(name="compare", cache_policy=NO_CACHE)
def compare(root: Path, only: Sequence[str], untrained: Sequence[str]) -> None:
    """Measure what is not measured yet; the process has the terminal, for its progress bars.

    Raises:
        StageFailedError: if it was killed, or could not go on.
    """
    paths = read_graph(root).paths
    flags = {"base": "base", "prepared": "prepared", "search": "search", "out": "comparison"}
    named = [word for flag, name in flags.items() for word in (f"--{flag}", paths[name])]
    chosen = [word for name in only for word in ("--method", name)]
    command = [sys.executable, "-m", "pipelines.compare", *named, *chosen, *untrained]
    code = subprocess.run(command, cwd=root, check=False).returncode
    if code == REFUSED:
        raise PipelineError("the comparison was refused; its own message stands above")
    if code != 0:
        raise StageFailedError(f"the comparison ended with exit code {code}; what was measured is kept")


def _records(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _changes(path: Path) -> Table:
    """What methods lose or win on tasks that they were not trained on."""
    made = Table(title="On tasks that no method was trained on, against the frozen base", title_justify="left")
    for column in ("method", "task", "figure (interval)", "change, points", "p, Holm", "verdict"):
        made.add_column(column, overflow="fold")
    for row in _records(path):
        p_value = row["p_value_holm"] and f"{float(row['p_value_holm']):.2g}"
        made.add_row(
            Text(row["method"]), Text(row["task"]), _interval(row, "value", ""), _interval(row, "change", ""),
            p_value, row["verdict"],
        )  # fmt: skip
    return made


def _check_names(params: Params, only: Sequence[str]) -> None:
    known = params.compare.methods
    strangers = [name for name in only if name not in known]
    if strangers:
        raise PipelineError(
            f"compare.methods has {', '.join(known)}", got=", ".join(strangers), do="Name some of those."
        )


def _check_rows(params: Params) -> None:
    for split in ("train", "validation", "test"):
        wanted, there = (getattr(section, f"{split}_rows") for section in (params.compare, params.prepare))
        if wanted > there:
            raise PipelineError(
                f"compare.{split}_rows must not be above prepare.{split}_rows, {there}",
                got=wanted,
                do=f"Lower it, or raise prepare.{split}_rows.",
            )


def _interval(row: dict[str, str], name: str, otherwise: str) -> str:
    if not row[name]:
        return otherwise
    value, low, high = (float(row[f"{name}{end}"]) for end in ("", "_low", "_high"))
    if name not in ("difference", "change"):
        return f"{share(value)} ({share(low)} to {share(high)})"
    return f"{100 * value:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def _perplexity(row: dict[str, str]) -> str:
    """Of neutral text, and how far from the base's."""
    if not row["perplexity"]:
        return ""
    change = row["perplexity_change"]
    return f"{float(row['perplexity']):.5g}" + (f" ({relative(float(change))})" if change else "")


def _points(text: str) -> str:
    return f"{100 * float(text):.1f}" if text else ""
