"""``reft tasks`` and ``reft init --task``: the library's tasks, and a project for one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from flows.commands.data import Addition, take_in
from flows.commands.init import make_project
from flows.runs.project import SetupResult
from pipelines.contracts.prepared import SPLITS, Split
from pipelines.errors import PipelineError
from pipelines.files import write_text
from pipelines.intake.library import (
    Sources,
    TaskFile,
    hub_sources,
    measure_of,
    mixture_keys,
    prepare_keys,
    read_task_file,
    split_files,
    task_changes,
    task_names,
)
from pipelines.intake.proposal import apply_changes
from pipelines.params.whole import load_params
from pipelines.project.code import shipped
from pipelines.wording import measure_words


def tasks_table() -> Table:
    """Each task with its kind, what it is measured by, the rows that it takes, and whether the hub has it."""
    table = Table(title="Tasks of the library", title_justify="left")
    for column in ("task", "kind", "family", "measure"):
        table.add_column(column)
    table.add_column("rows: train, validation, test", justify="right")
    table.add_column("on the hub")
    table.add_column("what is asked", overflow="fold")
    for name in task_names():
        task = read_task_file(name)
        rows = ", ".join(str(task.prepare[f"{split}_rows"]) for split in SPLITS)
        hub = task.hub.name if task.hub else ""
        cells = (name, task.kind, task.prepare["task"], measure_words(measure_of(task)), rows, hub, task.about)
        table.add_row(*map(Text, cells))
    return table


def make_task_project(folder: Path, names: Sequence[str], data: str) -> SetupResult:
    """Make a project for tasks of the library, with their rows under DVC and their keys in params.yaml.

    What can be refused is refused before the folder is made.

    Args:
        folder: empty or not there yet.
        names: of the tasks; of several one adapter is trained on all, and each is tested alone.
        data: a folder with the publisher's files, of several tasks in a folder each; or, of one task,
            hub:NAME[:CONFIG]@COMMIT.

    Raises:
        PipelineError: for an unknown task, one that is named twice, or data that are not there.
    """
    if len(set(names)) < len(names):
        raise PipelineError("each task is named once", got=", ".join(names), do="Name each task once.")
    tasks = {name: read_task_file(name) for name in names}
    files = {} if data.startswith("hub:") else {name: split_files(task, Path(data)) for name, task in tasks.items()}
    if len(names) > 1 and len({path.parent for own in files.values() for path in own.values()}) < len(names):
        raise PipelineError(
            "several tasks need a folder that holds a folder for each of them",
            got=data,
            do=f"Name one with {', '.join(task.folder for task in tasks.values())}.",
        )
    own = {
        (name, split): f"data/own/{name}-{path.name}" for name, found in files.items() for split, path in found.items()
    }
    template = shipped("params.yaml")
    keys = {name: prepare_keys(task, _sources(task, data, own, name)) for name, task in tasks.items()}
    section = mixture_keys(keys) if len(names) > 1 else keys[names[0]]
    text = apply_changes(template, task_changes(load_params(template), section))
    made = make_project(folder)
    root = folder.resolve()
    for (name, split), path in own.items():
        take_in(root, Addition(files[name][split], path, None), force=False)
    write_text(root / "params.yaml", text)
    return made


def _sources(task: TaskFile, data: str, own: Mapping[tuple[str, Split], str], name: str) -> Sources:
    """Where the project has a task's rows: on the hub, or in files of its own."""
    if not own:
        return hub_sources(task, data)
    return Sources({split: f"file:{path}" for (task_name, split), path in own.items() if task_name == name}, {})
