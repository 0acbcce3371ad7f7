"""Which tasks methods are asked beside the one that they are trained on, opened before anything is trained."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from pipelines.compare.untrained import Untrained
from pipelines.contracts.base import read_base
from pipelines.contracts.identities import read_identities, seen_of
from pipelines.contracts.prepared import data_sha256, read_rows
from pipelines.contracts.task import TaskSpec, read_task, task_sha256
from pipelines.errors import PipelineError
from pipelines.evaluation.rows import Asked
from pipelines.evaluation.systems import System, check_can_answer
from pipelines.evaluation.wanted import WantedRows, every_asked
from pipelines.params.whole import Params
from pipelines.recipes.methods.table import READS_DOMAIN
from pipelines.registry.contest import differing_parts
from pipelines.tasks.family import open_family


def untrained_tasks(
    wanted: WantedRows, methods: Sequence[str], params: Params, *, root: Path, base: Path, prepared: Path
) -> list[Untrained]:
    """Open the tasks that are wanted, without rows that methods are trained on, or their learning rates chosen on.

    Args:
        wanted: tasks of the library, and prepared rows of other projects; none of both: no task.
        methods: how those that are compared train.
        params: of params.yaml.
        root: the project's root.
        base: base.json.
        prepared: the rows that methods are trained on.

    Raises:
        PipelineError: as :func:`every_asked` and :func:`check_can_answer`; for the task that is trained, and for rows
            without a number where a method reads one.
    """
    if not (wanted.tasks or wanted.prepared):
        return []
    record = read_base(base)
    seen = seen_of(read_identities(prepared))
    frozen = System(f"frozen base {record.sha256[:12]}", base, record, seen=seen)
    found = []
    for asked in every_asked(wanted, [frozen], params, root=root):
        if asked.untrained:  # a folder, which is called as it is found from the project, on whatever machine
            asked = replace(asked, title=os.path.relpath(asked.prepared, root))
        check_can_answer(frozen, asked)
        _check_untrained(asked, prepared)
        if reading := sorted(set(methods) & set(READS_DOMAIN)):
            _check_numbers(asked, reading)
        key = (data_sha256(asked.prepared), task_sha256(asked.prepared), str(len(asked.rows)), str(asked.left_out))
        found.append(Untrained(asked.title, open_family(asked.task), asked.rows, asked.left_out, key))
    return found


def _check_untrained(asked: Asked, prepared: Path) -> None:
    """Refuse the very task that methods are trained on: it asks the same way, and rows that the project has as well."""
    trained = list(_specs(read_task(prepared)))
    if all(differing_parts(own, other) for own in _specs(asked.task) for other in trained):
        return
    both = {one.text for one in read_identities(prepared)} & {one.text for one in read_identities(asked.prepared)}
    if both:
        raise PipelineError(
            "a task that is asked beside those that are trained must be another one",
            got=f"{asked.title}, which has {len(both)} rows of this project",
            do="Name another task.",
        )


def _specs(spec: TaskSpec) -> Iterator[TaskSpec]:
    """Of a mixture each task's."""
    yield from [part.spec for part in open_family(spec).parts().values()] or [spec]


def _check_numbers(asked: Asked, methods: Sequence[str]) -> None:
    missing = next((row.id for row in read_rows(asked.prepared, "test") if row.domain is None), None)
    if missing is not None:
        raise PipelineError(
            f"each row must have a number where {', '.join(methods)} is compared, which reads one",
            got=f"none in {missing} of {asked.title}",
            do="Leave that method out with --method, or ask rows that have it.",
        )
