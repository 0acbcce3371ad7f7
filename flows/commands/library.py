"""``reft tasks`` and ``reft init --task``: the library's tasks, and a project for one of them."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table
from rich.text import Text

from flows.commands.data import Addition, take_in
from flows.commands.init import make_project
from flows.runs.project import SetupResult
from pipelines.contracts.prepared import SPLITS
from pipelines.files import write_text
from pipelines.intake.library import (
    Sources,
    hub_sources,
    measure_of,
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


def make_task_project(folder: Path, name: str, data: str) -> SetupResult:
    """Make a project for a task of the library, with its rows under DVC and its keys in params.yaml.

    What can be refused is refused before the folder is made.

    Args:
        folder: empty or not there yet.
        name: of the task.
        data: a folder with the publisher's files, or hub:NAME[:CONFIG]@COMMIT.

    Raises:
        PipelineError: for an unknown task, or data that are not there.
    """
    task = read_task_file(name)
    files = {} if data.startswith("hub:") else split_files(task, Path(data))
    own = {split: f"data/own/{name}-{path.name}" for split, path in files.items()}
    there = hub_sources(task, data) if not files else Sources({s: f"file:{path}" for s, path in own.items()}, {})
    template = shipped("params.yaml")
    text = apply_changes(template, task_changes(load_params(template), prepare_keys(task, there)))
    made = make_project(folder)
    root = folder.resolve()
    for split, path in files.items():
        take_in(root, Addition(path, own[split], None), force=False)
    write_text(root / "params.yaml", text)
    return made
