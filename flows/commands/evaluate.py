"""``reft evaluate``: the project's adapter asked its test rows again, or tasks of lm-evaluation-harness."""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, Group, RenderableType
from rich.table import Table

from flows.commands.summary import evaluation_rows, tasks_table
from pipelines.contracts.evaluation import Evaluation, read_evaluation
from pipelines.contracts.task import read_task
from pipelines.errors import PipelineError
from pipelines.files import write_json
from pipelines.params.whole import load_params
from pipelines.project.graph import read_graph
from pipelines.runtime.process import importing

if TYPE_CHECKING:
    from pipelines.serving.harness import HarnessFigure

STAGE = "evaluate"
console = Console(highlight=False, markup=False)


def evaluate_command(
    project: Annotated[Path, typer.Option("--project", "-p", help="The project folder.")] = Path(),
    prepared: Annotated[
        list[Path] | None,
        typer.Option(
            help="The folder data/prepared of another project on the same base: a task that was not trained. May be "
            "given again."
        ),
    ] = None,
    harness: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TASKS",
            help="Tasks of lm-evaluation-harness by name, or folders of task files, with commas between; may be given "
            "again. Needs the extra `harness`.",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Of each task's documents, the first so many.")] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Let data sets of tasks be fetched; without it everything is offline.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="A .json file for the figures of tasks.")] = None,
) -> None:
    """Ask the adapter its test rows again and show the figures; the files of the stages stay as they are.

    With --prepared, ask it the test rows of tasks that it was not trained on: what it has lost or won there, beside the
    frozen base. With --harness, ask adapter and frozen base tasks of lm-evaluation-harness, with the edits on each
    context as on a prompt.

    reft evaluate --harness arc_easy,my-tasks --limit 200
    """
    root = project.resolve()
    params = load_params(root / "params.yaml")
    paths = read_graph(root).paths
    if harness is None:
        if limit is not None or download or out is not None:
            raise PipelineError("--limit, --download and --out go with --harness", do="Name tasks with --harness.")
        if prepared:
            params.require_decoder("reft evaluate --prepared")  # an encoder's head answers its own task alone
        console.print(Group(*map(_shown, _asked_anew(root, prepared or []))))
        return
    if prepared:
        raise PipelineError("--prepared and --harness are asked one after the other", do="Give one of them.")
    with importing():
        from pipelines.serving.harness import HarnessAsked, run_harness

    names = tuple(name for part in harness for name in part.split(",") if name)
    asked = HarnessAsked(names, limit, download)
    found = run_harness(params, asked, root=root, base=root / paths["base"], adapter=root / paths["adapter"])
    console.print(harness_table(found))
    if out is not None:
        write_json(out, [vars(figure) for figure in found])


def harness_table(figures: Sequence[HarnessFigure]) -> RenderableType:
    """The tasks' figures, each with its standard error, the base's beside the adapter's."""
    table = Table(title="Tasks of lm-evaluation-harness", title_justify="left")
    for column in ("task", "measure", "documents", "base", "adapter"):
        table.add_column(column, overflow="fold")
    for figure in figures:
        base, adapter = (
            f"{value:.4f}" + ("" if error is None else f" ± {error:.4f}")
            for value, error in ((figure.base, figure.base_error), (figure.adapter, figure.adapter_error))
        )
        table.add_row(figure.task, figure.measure, str(figure.documents), base, adapter)
    return table


def _asked_anew(root: Path, others: Sequence[Path]) -> Iterator[tuple[str, Evaluation]]:
    """Yield the evaluation of the project's own test rows, or of other prepared rows; each by its title."""
    if not others:
        yield "Evaluation", _evaluated(root, {})
    for folder in others:
        read_task(folder)  # before the base is loaded, which takes longer
        found = _evaluated(root, {read_graph(root).paths["prepared"]: str(folder.resolve())})
        yield f"Not trained: {folder}", replace(found, diagnostics=None)  # what they say is of this project's rows


def _evaluated(root: Path, instead: Mapping[str, str]) -> Evaluation:
    """Run the stage in a process of its own, with a folder that is thrown away for its outputs.

    Args:
        root: the project's root.
        instead: paths of its command line that others take the place of.
    """
    stage = read_graph(root).stage(STAGE)
    with tempfile.TemporaryDirectory() as scratch:
        places = {out: str(Path(scratch) / Path(out).name) for out in stage.outs} | dict(instead)
        command = [places.get(word, word) for word in shlex.split(stage.cmd)[1:]]
        code = subprocess.run([sys.executable, *command], cwd=root, check=False).returncode
        if code:
            raise typer.Exit(code)
        return read_evaluation(Path(places[read_graph(root).paths["evaluation"]]))


def _shown(titled: tuple[str, Evaluation]) -> RenderableType:
    title, evaluation = titled
    table = Table(title=title, title_justify="left", show_header=False)
    for name, said in evaluation_rows(evaluation):
        table.add_row(name, said)
    return Group(table, tasks_table(evaluation)) if evaluation.tasks else table
