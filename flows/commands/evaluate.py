"""``reft evaluate``: an adapter asked test rows beside its frozen base, or tasks of lm-evaluation-harness."""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, Group, RenderableType
from rich.table import Table

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
from flows.commands.summary import evaluation_rows, tasks_table
from pipelines.contracts.evaluation import Evaluation, read_evaluation
from pipelines.contracts.task import read_task
from pipelines.errors import PipelineError
from pipelines.files import write_json
from pipelines.params.whole import Params, load_params
from pipelines.project.graph import read_graph
from pipelines.runtime.process import importing

if TYPE_CHECKING:
    from pipelines.evaluation.alone import Evaluated
    from pipelines.exchange.named import Naming
    from pipelines.serving.harness import HarnessFigure

STAGE = "evaluate"
console = Console(highlight=False, markup=False)


def evaluate_command(
    adapter: Annotated[str | None, typer.Argument(help=f"{ADAPTER}. Default: the project's own.")] = None,
    project: Project = Path(),
    tasks: Tasks = None,
    data: Data = None,
    rows: Rows = None,
    prepared: Prepared = None,
    harness: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TASKS",
            help="Tasks of lm-evaluation-harness by name, or folders of task files, with commas between; may be given "
            "again. Needs the extra `harness`.",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Of each --harness task's documents, the first.")] = None,
    download: Download = False,
    out: Annotated[Path | None, typer.Option(help="A .json file for the figures of tasks, or of ADAPTER.")] = None,
    base: Base = None,
    positions: Positions = None,
    activation: Activation = None,
    method: Method = None,
    dtype: Dtype = "float32",
) -> None:
    """Ask an adapter test rows, beside its frozen base, and show the figures; the files of the stages stay as they are.

    Alone, the project's adapter is asked its test rows again, with all that stage evaluate looks at. With ADAPTER,
    --tasks or --rows, answers are kept in .reft/answers as they come: what was stopped goes on, and nothing is asked
    twice. With --prepared, what it has lost or won on a task that it was not trained on. With --harness, tasks of
    lm-evaluation-harness, with the edits on each context as on a prompt.

    reft evaluate @champion --rows 200

    reft evaluate ~/loreft-llama --positions f7+l7 --tasks boolq,piqa --data ~/tasks

    reft evaluate hub:org/films@COMMIT --download

    reft evaluate --harness arc_easy,my-tasks --limit 200
    """
    root = project.resolve()
    params = load_params(root / "params.yaml")
    named = naming(
        root, download=download, base=base, dtype=dtype, positions=positions, activation=activation, method=method
    )
    _check_words(harness, limit, (prepared, tasks, rows))
    if harness is not None:
        _show_harness(adapter, named, params, HarnessWords(harness, limit, download, out))
        return
    if adapter is None and not tasks and rows is None:
        if download or out is not None:
            raise PipelineError("--download and --out go with ADAPTER, --tasks, --rows or --harness", do="Give one.")
        if prepared:
            params.require_decoder("reft evaluate --prepared")  # an encoder's head answers its own task alone
        console.print(Group(*map(_shown, _asked_anew(root, prepared or []))))
        return
    wanted = wanted_rows(tasks, data, prepared, rows)
    with importing():
        from pipelines.evaluation.alone import evaluate_adapter
        from pipelines.evaluation.wanted import every_asked, opened_systems
    with opened_systems([adapter], named) as (system,):
        found = evaluate_adapter(system, every_asked(wanted, [system], params, root=root), params, root=root)
    for one in found:
        console.print(_shown((f"{one.adapter}, {one.asked.title}", one.evaluation)))
        console.print(kept_words(one.asked, one.anew, one.unknown))
    if out is not None:
        write_json(out, [_record(one) for one in found])


def _record(one: Evaluated) -> dict[str, object]:
    return {"adapter": one.adapter, "rows": one.asked.title, "figures": asdict(one.evaluation)}


@dataclass(frozen=True)
class HarnessWords:
    """What is said of tasks of lm-evaluation-harness."""

    tasks: Sequence[str]
    limit: int | None
    download: bool
    out: Path | None


def _check_words(harness: object, limit: int | None, of_rows: Sequence[object]) -> None:
    if harness is None and limit is not None:
        raise PipelineError("--limit goes with --harness", do="Name tasks with --harness, or give --rows.")
    if harness is not None and any(given is not None and given != [] for given in of_rows):
        raise PipelineError(
            "--harness and rows of this project's kind (--tasks, --prepared, --rows) are asked one after the other",
            do="Give one of them.",
        )


def _show_harness(adapter: str | None, named: Naming, params: Params, words: HarnessWords) -> None:
    with importing():
        from pipelines.exchange.named import named_adapter
        from pipelines.serving.harness import HarnessAsked, run_harness

    names = tuple(name for part in words.tasks for name in part.split(",") if name)
    asked = HarnessAsked(names, words.limit, words.download)
    with named_adapter(adapter, named) as one:
        found = run_harness(params, asked, root=named.root, base=one.base, adapter=one.folder)
    console.print(harness_table(found))
    if words.out is not None:
        write_json(words.out, [vars(figure) for figure in found])


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
