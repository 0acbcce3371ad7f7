"""Which rows are asked: the project's test rows, those of other prepared rows, or those of a task of the library."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.bases.load import load_tokenizer
from pipelines.contracts.base import BaseRecord
from pipelines.contracts.identities import Seen
from pipelines.contracts.prepared import Row, read_rows
from pipelines.contracts.task import TaskSpec, read_task
from pipelines.diagnostics.near_rows import near_rows
from pipelines.errors import PipelineError
from pipelines.files import sha256_file, temporary_directory, whole_directory
from pipelines.intake.library import Sources, read_task_file, split_files, task_section
from pipelines.params.whole import Params
from pipelines.project.keys import input_key, library_folder
from pipelines.registry.contest import identities_of
from pipelines.stages.prepare import write_prepared
from pipelines.tasks.assemble import RowReading, assembled
from pipelines.tasks.family import family_of
from pipelines.wording import many


@dataclass(frozen=True)
class Asked:
    """Test rows that systems are asked.

    Attributes:
        title: as people read it.
        prepared: the folder that they stand in.
        prepared_for: the sha256 of the base whose tokenizer, and chat template, they were prepared with.
        rows: those of them that are asked.
        left_out: how many are not, because one of the systems was made with them.
        untrained: named as rows of a task that an adapter need not have been trained on.
    """

    title: str
    prepared: Path
    prepared_for: str
    rows: tuple[Row, ...]
    left_out: int = 0
    untrained: bool = False

    @property
    def task(self) -> TaskSpec:
        """What they are of."""
        return read_task(self.prepared)


def rows_of(
    title: str,
    prepared: Path,
    base: BaseRecord,
    *,
    limit: int | None,
    seen: Sequence[Seen] = (),
    untrained: bool = False,
) -> Asked:
    """The test rows of a folder, in whose order the seed has drawn them; without those that a version was made with.

    Args:
        title: as people read it.
        prepared: the folder.
        base: that the rows were prepared for.
        limit: the first so many; None for all.
        seen: what each version that is asked was made with.
        untrained: as :class:`Asked` says.

    Raises:
        PipelineError: if the folder holds no prepared rows, or none is left.
    """
    read_task(prepared)  # says what is missing where nothing is prepared
    rows = read_rows(prepared, "test")
    free = [True] * len(rows)
    if seen:
        owns = identities_of(prepared, rows)
        free = [not any(one.knows(own.text, own.group) for one in seen) for own in owns]
    kept = [place for place, one in enumerate(free) if one][:limit]
    if not kept:
        raise PipelineError(
            f"{title} must have test rows that no version was made with",
            got=f"none of {len(rows)}",
            do="Ask it other rows.",
        )
    last = kept[-1] if len(kept) == limit else len(rows) - 1  # of those behind the last one nothing is asked
    left_out = last + 1 - len(kept)
    return Asked(title, prepared, base.sha256, tuple(rows[place] for place in kept), left_out, untrained)


def rows_words(asked: Asked, unknown: Sequence[str]) -> list[str]:
    """What is to be known of the rows, each in a sentence.

    Args:
        asked: the rows.
        unknown: titles of adapters that may have been trained on some of them.
    """
    said = []
    if asked.left_out:
        said.append(f"{many(asked.left_out, 'test row')} left out, which a version was trained or chosen on.")
    if unknown:
        said.append(f"Whether {' or '.join(unknown)} was trained on some of these rows is not known.")
    return said


def library_task(name: str) -> TaskSpec:
    """What is asked by a task of the library; raises PipelineError if there is none of that name."""
    return family_of(task_section(read_task_file(name), Sources({"train": "file:data/own/rows"}, {}))).spec


def library_rows(name: str, data: Path, base: BaseRecord, params: Params, *, root: Path) -> Path:
    """The prepared rows of a task of the library, as a project that `reft init --task` makes would have them.

    They are kept in the work folder, so that they are read once for each base.

    Args:
        name: of the task.
        data: a folder of the publisher's files, or of several data sets.
        base: whose tokens say how long rows are.
        params: the seed of the splits is read.
        root: the project's root.

    Raises:
        PipelineError: for an unknown task, or files that are not there or hold no such rows.
    """
    task = read_task_file(name)
    files = split_files(task, data)
    names = {split: f"data/own/{name}-{path.name}" for split, path in files.items()}
    section = task_section(task, Sources({split: f"file:{own}" for split, own in names.items()}, {}))
    identities = {split: sha256_file(path) for split, path in files.items()}
    key = input_key("prepare", "library", section.model_dump(mode="json"), identities, base.sha256, params.seed)
    out = library_folder(root) / f"{name}-{key}"
    if out.is_dir():
        return out
    tokenizer = load_tokenizer(base, root=root)
    with temporary_directory(out.with_name(f"{out.name}-sources")) as sources:
        for split, path in files.items():
            (sources / names[split]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, sources / names[split])
        reading = RowReading(tokenizer, base.kind, sources, params.seed)
        with assembled(section, reading, out) as found, whole_directory(out) as folder:
            write_prepared(folder, found, near_rows(found.splits, folder), sliced=False)
    return out
