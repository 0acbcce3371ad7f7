"""``reft feedback``: labels that came later, of rows that were served, as one more file of the project's rows."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from pipelines.runtime.process import locked
from pipelines.wording import many

if TYPE_CHECKING:
    from pipelines.intake.feedback import Joined

console = Console(soft_wrap=True, highlight=False, markup=False)


def feedback_command(
    labels: Annotated[Path, typer.Argument(help="The labels: with the texts that were asked, or with an id.")],
    served: Annotated[Path, typer.Option(help="The rows that `reft predict` was given.")],
    answers: Annotated[Path, typer.Option(help="What it wrote: .jsonl or .csv.")],
    id_column: Annotated[
        str | None, typer.Option("--id", help="A column of rows and labels to join by. Default: by the texts.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be joined.")] = False,
    project: Annotated[Path, typer.Option("--project", "-p", help="The project folder.")] = Path(),
) -> None:
    """Add rows that were served, with labels that came later, to the folder of rows that prepare.source names.

    Labels stand in the columns that the training rows have them in. Rows whose labels contradict each other are left
    out. The next `reft run --refresh`, or run of a schedule with refresh.scheduled, takes the new file in.

    reft feedback labels.csv --served reviews.csv --answers answers.jsonl --id review
    """
    from flows.runs.dvc import check_project
    from pipelines.intake.feedback import Feedback, growing_folder, join, write_part
    from pipelines.params.whole import load_params

    root = project.resolve()
    check_project(root)
    config = load_params(root / "params.yaml").one_task("reft feedback")
    folder = growing_folder(config, root)
    joined = join(config, Feedback(labels, served, answers, id_column))
    console.print(counts(joined))
    if dry_run:
        console.print("Nothing was written.")
        return
    with locked(root, "run", wait_seconds=0):
        path = write_part(config, joined.rows, folder, today=datetime.now(UTC).date())
    console.print(f"{path.relative_to(root)} has {many(len(joined.rows), 'row')}. Next: reft run --refresh")


def counts(joined: Joined) -> str:
    """What was joined, and what was not."""
    return (
        f"{many(joined.answered, 'row')} answered: {len(joined.rows):,} joined with a label, {joined.unlabelled:,} "
        f"unlabelled, {joined.contradictory:,} with labels that contradict each other, {joined.repeated:,} repeated; "
        f"{many(joined.strange, 'label')} of other rows"
    )
