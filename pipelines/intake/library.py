"""The library of public tasks: one YAML each in `tasks/library`, with the keys that params.yaml would have for it."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from pipelines.contracts.prepared import SPLITS, Split
from pipelines.errors import PipelineError
from pipelines.intake.proposal import Changes, lowered
from pipelines.params.whole import Params
from pipelines.sections import Section
from pipelines.sources.addresses import HubSource, parse_source
from pipelines.tasks.keys.mixture import MIXTURE, MixtureParams, PrepareSection
from pipelines.tasks.keys.prepare import PrepareParams
from pipelines.tasks.keys.table import AnyPrepareParams, Families
from pipelines.yaml_file import read_yaml

LIBRARY = Path(__file__).parents[1] / "tasks" / "library"
DATA = "REFT_BENCH_DATA"  # the variable that names a folder of the publishers' files
KINDS = ("commonsense", "arithmetic", "language", "instructions")
DRAWN = 0.9  # of a mixture: the part of the smallest task's training rows that each gives
_KEYS: TypeAdapter[Families] = TypeAdapter(AnyPrepareParams)
_SECTION: TypeAdapter[Families | MixtureParams] = TypeAdapter(PrepareSection)


class HubForm(Section):
    """The same rows on the hub: the data set (and its configuration), its splits, and what of the keys differs."""

    name: str
    splits: dict[Split, str | None]
    prepare: dict[str, Any]


class TaskFile(Section):
    """One YAML of the library.

    Attributes:
        about: what is asked, and the publication.
        kind: which of the literature's four kinds of tasks it is.
        home: where the publisher's files are.
        licence: as it is known for the original; some forbid commercial use.
        folder: what the publisher's files lie in, in a folder of several data sets.
        extension: of the files train, validation and test; one that is missing is cut from the others.
        hub: None where the hub has no such rows.
        prepare: the section of params.yaml, but for the sources.
    """

    about: str
    kind: Literal["commonsense", "arithmetic", "language", "instructions"]
    home: str
    licence: str
    folder: str
    extension: str
    hub: HubForm | None
    prepare: dict[str, Any]


@dataclass(frozen=True)
class Sources:
    """Where the rows of the splits are, and what of the task's keys differs there."""

    addresses: Mapping[Split, str]
    changes: Mapping[str, Any]


def task_names() -> list[str]:
    """The names of the tasks, by kind."""
    return sorted((path.stem for path in LIBRARY.glob("*.yaml")), key=lambda name: (_kind(name), name))


def read_task_file(name: str) -> TaskFile:
    """Read a task of the library.

    Raises:
        PipelineError: if there is none of that name.
    """
    path = LIBRARY / f"{name}.yaml"
    if name not in {each.stem for each in LIBRARY.glob("*.yaml")}:
        raise PipelineError(
            "a task is one of the library's",
            got=name,
            do="Run `reft tasks` to see them, or `reft data add` for others.",
        )
    try:
        return TaskFile.model_validate(read_yaml(path))
    except ValidationError as error:
        raise PipelineError(f"{path.name} must be a task of the library", got=error) from None


def data_folder(given: Path | None) -> Path:
    """The folder of the publishers' files, given or named by the variable :data:`DATA`.

    Raises:
        PipelineError: if neither is there.
    """
    named = os.environ.get(DATA)
    if given is None and not named:
        raise PipelineError(
            "--tasks needs a folder of the tasks' files",
            got=f"no --data, and no variable {DATA}",
            do="Give --data FOLDER; `reft tasks` shows the tasks, and their YAML files where to fetch them.",
        )
    return given or Path(str(named))


def split_files(task: TaskFile, data: Path) -> dict[Split, Path]:
    """The publisher's files, by the split that each is for, in their folder or in one of several data sets.

    Raises:
        PipelineError: if there is none.
    """
    for folder in (data / task.folder, data):
        found: dict[Split, Path] = {split: folder / f"{split}.{task.extension}" for split in SPLITS}
        there = {split: path for split, path in found.items() if path.is_file()}
        if there:
            return there
    raise PipelineError(
        f"the folder must have {', '.join(f'{split}.{task.extension}' for split in SPLITS)}, or some of them",
        got=f"none in {data / task.folder} and {data}",
        do=f"Fetch the task from {task.home}, and name its files so.",
    )


def hub_sources(task: TaskFile, address: str) -> Sources:
    """The sources of the splits on the hub.

    Args:
        task: of the library.
        address: hub:NAME[:CONFIG]@COMMIT.

    Raises:
        PipelineError: if it is no such address, or the task has no form there.
    """
    source = parse_source(address)
    if task.hub is None or not isinstance(source, HubSource) or source.split is not None:
        known = f"hub:{task.hub.name}@COMMIT" if task.hub else "a folder, since the hub's form is not known"
        raise PipelineError(f"the data of this task are {known}", got=address, do=f"See {task.home}.")
    named = {split: f"{address}#{name}" for split, name in task.hub.splits.items() if name is not None}
    return Sources(named, {"format": "hub", "columns": None, **task.hub.prepare})


def prepare_keys(task: TaskFile, sources: Sources) -> dict[str, Any]:
    """The section ``prepare`` that reads these sources: the first is cut for the splits that have none of their own.

    Raises:
        PipelineError: if it breaks a rule of params.yaml.
    """
    first, *others = [split for split in SPLITS if split in sources.addresses]
    where: dict[str, Any] = {"source": sources.addresses[first], "sha256": None, "growing": None}
    where |= {f"{split}_source": sources.addresses[split] if split in others else None for split in SPLITS[1:]}
    keys = {**where, **task.prepare, **sources.changes}
    try:
        _KEYS.validate_python(keys)
    except ValidationError as error:
        raise PipelineError("the keys of a task must be those of params.yaml", got=error) from None
    return keys


def task_section(task: TaskFile, sources: Sources) -> PrepareParams:
    """The same as the section ``prepare`` of a project of this task, read and checked."""
    return _KEYS.validate_python(prepare_keys(task, sources))


def mixture_keys(tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The section ``prepare`` of a mixture of tasks, by their names, with these keys: each gives as many rows."""
    least = min(keys["train_rows"] for keys in tasks.values())
    return {
        "task": MIXTURE,
        # A part is left for rows that cannot be trained on, because another task measures on them.
        "train_rows": max(len(tasks), math.floor(DRAWN * least * len(tasks))),
        "weights": dict.fromkeys(tasks, 1.0),
        "tasks": {name: dict(keys) for name, keys in tasks.items()},
    }


def task_changes(params: Params, keys: Mapping[str, Any]) -> Changes:
    """What params.yaml would say for a task, or a mixture, with these keys, in all its sections."""
    section = _SECTION.validate_python(dict(keys))
    changes = {"prepare": dict(keys), **lowered(params, {split: getattr(section, f"{split}_rows") for split in SPLITS})}
    objectives = [section.measure_name(), *params.search.objectives[1:]]
    changes["search"] = {**changes.get("search", {}), "objectives": objectives}
    return changes


def measure_of(task: TaskFile) -> str:
    """What the task is measured by."""
    return task_section(task, Sources({"train": "file:data/own/rows"}, {})).measure_name()


def _kind(name: str) -> int:
    return KINDS.index(read_task_file(name).kind)
