"""What a command line asks for: which adapters by their names, and which rows; all of it is opened before any work."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pipelines.contracts.base import read_base
from pipelines.errors import PipelineError
from pipelines.evaluation.rows import Asked, library_rows, library_task, rows_of
from pipelines.evaluation.systems import BASE, System, base_of, check_task, system_of
from pipelines.exchange.named import NOTHING_SAID, Naming, named_adapter
from pipelines.intake.library import data_folder, read_task_file, split_files
from pipelines.params.whole import Params
from pipelines.project.graph import read_graph

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WantedRows:
    """Which rows; with neither tasks nor folders the project's test rows.

    Attributes:
        tasks: names of the library.
        data: a folder of the publishers' files; None: the one that the variable ``REFT_BENCH_DATA`` names.
        prepared: folders data/prepared of other projects on the same base.
        limit: of each, the first so many; None for all.

    Raises:
        PipelineError: for a task or folder that is named twice, or a limit below 1.
    """

    tasks: tuple[str, ...] = ()
    data: Path | None = None
    prepared: tuple[Path, ...] = ()
    limit: int | None = None

    def __post_init__(self) -> None:
        """Refuse what would be asked twice, or not at all."""
        if self.limit is not None and self.limit < 1:
            raise PipelineError("of each task at least one row is asked", got=self.limit, do="Give --rows 1 or more.")
        for named in (self.tasks, tuple(folder.resolve() for folder in self.prepared)):
            if len(set(named)) < len(named):
                raise PipelineError(
                    "each task and each folder is named once", got=", ".join(map(str, named)), do="Name each once."
                )


@contextmanager
def opened_systems(names: Sequence[str | None], naming: Naming) -> Iterator[list[System]]:
    """Yield the systems with these names, in their order; ``base`` is the frozen base of the other one.

    Raises:
        PipelineError: as :func:`named_adapter`, :func:`system_of` and :func:`base_of`; if no adapter is named, or more
            is said of adapters than their files leave open.
    """
    adapters = [name for name in names if name != BASE]
    if not adapters:
        raise PipelineError("an adapter must be named", got="the frozen base alone", do="Name an adapter.")
    with ExitStack() as stack:
        named = {name: stack.enter_context(named_adapter(name, naming)) for name in adapters}
        foreign = [one for one in named.values() if one.layout != "own"]
        said = naming.declared != NOTHING_SAID or naming.base is not None
        if said and not foreign:
            raise PipelineError(
                "an adapter of this project says all of itself",
                got=f"{naming.base or naming.declared} for {', '.join(one.title for one in named.values())}",
                do="Name the adapter alone.",
            )
        for one in foreign:
            for note in one.notes:
                log.warning("%s: %s", one.title, note)
        systems = {name: system_of(one, naming) for name, one in named.items()}
        titles = Counter(system.title for system in systems.values())
        systems = {  # two folders of one name in different places
            name: replace(system, title=str(name)) if name is not None and titles[system.title] > 1 else system
            for name, system in systems.items()
        }
        yield [base_of(systems[adapters[0]]) if name == BASE else systems[name] for name in names]


def every_asked(wanted: WantedRows, systems: Sequence[System], params: Params, *, root: Path) -> list[Asked]:
    """The rows that are wanted, each task or folder by itself.

    Raises:
        PipelineError: for rows that are not there, an unknown task, or files that hold no such rows.
    """
    seen = [one.seen for one in systems if one.seen is not None]
    paths = read_graph(root).paths
    if not (wanted.tasks or wanted.prepared):
        prepared, record = root / paths["prepared"], read_base(root / paths["base"])
        return [rows_of("the project's test rows", prepared, record, limit=wanted.limit, seen=seen)]
    found = []
    for folder in wanted.prepared:
        record = read_base(root / paths["base"])
        title = f"not trained: {folder}"
        found.append(rows_of(title, folder.resolve(), record, limit=wanted.limit, seen=seen, untrained=True))
    record = systems[0].record
    for name, prepared in _library(wanted, systems, params, root):
        found.append(rows_of(f"task {name}", prepared, record, limit=wanted.limit, seen=seen))
    return found


def _library(wanted: WantedRows, systems: Sequence[System], params: Params, root: Path) -> list[tuple[str, Path]]:
    """Each task that is named with its prepared rows; tasks and files are checked before the first is read."""
    if not wanted.tasks:
        return []
    record = systems[0].record
    if record.kind != "decoder":
        raise PipelineError(
            "tasks of the library are asked of a language model; the head of an encoder answers its own task alone",
            got=f"an encoder, {record.source}",
            do="Ask it the rows of its project.",
        )
    data = data_folder(wanted.data)
    for name in wanted.tasks:
        split_files(read_task_file(name), data)
        for system in systems:
            check_task(system, library_task(name), title=f"task {name}")
    return [(name, library_rows(name, data, record, params, root=root)) for name in wanted.tasks]
