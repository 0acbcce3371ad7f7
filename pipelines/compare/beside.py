"""Which tasks methods are asked beside the one that they are trained on, opened before anything is trained."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from pipelines.compare.untrained import Untrained
from pipelines.contracts.base import read_base
from pipelines.contracts.identities import MADE_WITH, Identity, read_identities, seen_of
from pipelines.contracts.prepared import Row, Split, data_sha256, read_rows
from pipelines.contracts.task import TaskSpec, read_task, task_sha256
from pipelines.diagnostics.near_rows import near_rows
from pipelines.errors import PipelineError
from pipelines.evaluation.rows import Asked
from pipelines.evaluation.systems import System, check_can_answer
from pipelines.evaluation.wanted import WantedRows, every_asked
from pipelines.files import sha256_json
from pipelines.params.whole import Params
from pipelines.recipes.methods.table import READS_DOMAIN
from pipelines.registry.contest import differing_parts
from pipelines.tasks.family import open_family
from pipelines.tasks.rows import comparable
from pipelines.wording import many

BY_CHANCE = 0.05  # of the texts of the smaller of two tasks, which the other may have as well


def untrained_tasks(
    wanted: WantedRows, methods: Sequence[str], params: Params, *, root: Path, base: Path, prepared: Path
) -> list[Untrained]:
    """Open the tasks that are wanted, without rows that methods are trained on, or nearly, or their rates chosen on.

    Args:
        wanted: tasks of the library, and prepared rows of other projects; none of both: no task.
        methods: how those that are compared train.
        params: of params.yaml.
        root: the project's root.
        base: base.json.
        prepared: the rows that methods are trained on.

    Raises:
        PipelineError: as :func:`every_asked` and :func:`check_can_answer`; for the task that is trained, the same rows
            twice, and rows without a number where a method reads one.
    """
    if not (wanted.tasks or wanted.prepared):
        return []
    record, identities = read_base(base), read_identities(prepared)
    frozen = System(f"frozen base {record.sha256[:12]}", base, record, seen=seen_of(identities))
    learned = [row for split in MADE_WITH for row in read_rows(prepared, split)]
    reading = sorted(set(methods) & set(READS_DOMAIN))
    found: dict[str, Untrained] = {}
    for whole in every_asked(replace(wanted, limit=None), [frozen], params, root=root):
        asked = whole
        if whole.untrained:  # a folder, which is called as it is found from the project, on whatever machine
            asked = replace(whole, title=os.path.relpath(whole.prepared, root))
        check_can_answer(frozen, asked)
        _check_untrained(asked, prepared, identities)
        asked = _without_near(asked, learned, wanted.limit)
        _check_numbers(asked, reading)
        ids = [row.id for row in asked.rows]
        key = sha256_json([data_sha256(asked.prepared), task_sha256(asked.prepared), ids])
        if key in found:
            raise PipelineError(
                "each task is named once",
                got=f"{found[key].title} and {asked.title}, which are the same rows",
                do="Name it once.",
            )
        found[key] = Untrained(asked.title, open_family(asked.task), asked.rows, asked.left_out, key)
    return list(found.values())


def _check_untrained(asked: Asked, prepared: Path, own: Sequence[Identity]) -> None:
    """Refuse the task that methods are trained on, whatever its template: its rows are the project's.

    Two that ask the same way share none, and others by chance alone, as two collections of short texts do.
    """
    here, there = ({one.text for one in identities} for identities in (own, read_identities(asked.prepared)))
    shared = len(here & there)
    trained = list(_specs(read_task(prepared)))
    alike = not all(differing_parts(each, other) for each in _specs(asked.task) for other in trained)
    if shared > (0 if alike else max(1, BY_CHANCE * min(len(here), len(there)))):
        raise PipelineError(
            "a task that is asked beside those that are trained must be another one",
            got=f"{asked.title}, which has {many(shared, 'row')} of this project",
            do="Name another task.",
        )


def _without_near(asked: Asked, learned: Sequence[Row], limit: int | None) -> Asked:
    """The rows that nothing is nearly the same as that methods are trained on, the first so many."""
    test: dict[Split, Sequence[Row]] = {
        "train": _with_contents(learned), "validation": [], "test": _with_contents(asked.rows)
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="reft-") as folder:
        near = {one.id for one in near_rows(test, Path(folder))}
    rows = [row for row in asked.rows if row.id not in near][:limit]
    if not rows:
        raise PipelineError(
            f"{asked.title} must have test rows unlike those that methods are trained on",
            got=f"none of {len(asked.rows)}",
            do="Name another task.",
        )
    places = {row.id: place for place, row in enumerate(read_rows(asked.prepared, "test"))}
    looked_at = places[rows[-1].id] + 1 if len(rows) == limit else len(places)
    return replace(asked, rows=tuple(rows), left_out=looked_at - len(rows))


def _with_contents(rows: Sequence[Row]) -> list[Row]:
    """Rows with what differs between their prompts for the text by which they are compared: the template is no part."""
    prompts = [row.prompt for row in rows]
    before = _in_common(prompts) if len(rows) > 1 else 0
    behind = _in_common([prompt[before:][::-1] for prompt in prompts]) if len(rows) > 1 else 0
    return [
        replace(row, key=comparable(prompt[before : len(prompt) - behind]))
        for row, prompt in zip(rows, prompts, strict=True)
    ]


def _in_common(texts: Sequence[str]) -> int:
    """How many signs all of the texts begin with; the first and the last in their order have no more in common."""
    pairs = enumerate(zip(first := min(texts), max(texts), strict=False))
    return next((place for place, (one, other) in pairs if one != other), len(first))


def _specs(spec: TaskSpec) -> Iterator[TaskSpec]:
    """Of a mixture each task's."""
    yield from [part.spec for part in open_family(spec).parts().values()] or [spec]


def _check_numbers(asked: Asked, methods: Sequence[str]) -> None:
    missing = next((row.id for row in asked.rows if row.domain is None), None)
    if methods and missing is not None:
        raise PipelineError(
            f"each row must have a number where {', '.join(methods)} is compared, which reads one",
            got=f"none in {missing} of {asked.title}",
            do="Leave that method out with --method, or ask rows that have it.",
        )
