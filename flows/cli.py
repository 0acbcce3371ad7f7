"""``reft``: the command line. Heavy things are imported by the command that needs them, so that --help is quick."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipelines.errors import PipelineError

app = typer.Typer(
    help="Representation fine-tuning of language models: search a LoReFT recipe, train, evaluate, register.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console()

Project = Annotated[Path, typer.Option("--project", "-p", help="The project folder: the one with params.yaml.")]


@app.callback()
def _common() -> None:
    """Settings that every command shares."""


@app.command()
def run(project: Project = Path()) -> None:
    """Bring every stage up to date: base, prepare, search, train, evaluate, register; then push.

    Only what params.yaml, the data or the code made stale is run again. A run that was stopped goes on where it was.
    """
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")  # the stages speak for themselves
    from flows.finetune import finetune
    from flows.summary import summary

    console.print(summary(finetune(str(project))))


@app.command()
def setup(project: Project = Path()) -> None:
    """Make a fresh clone ready: give DVC a remote of its own when it has none, and check git."""
    from flows.project import set_up

    result = set_up(project.resolve())
    console.print(f"DVC's default remote: {result.remote}")
    if not result.git_identity:
        console.print(
            "git does not know who you are, so commits and [bold]dvc exp run[/bold] will fail. Tell it:\n"
            '  git config user.name "Your Name"\n  git config user.email you@example.org'
        )


def main() -> None:
    """Run the command line; a user's mistake is one message and exit code 2."""
    try:
        app()
    except PipelineError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
