"""``reft predict``: answers to the rows of a file, by an adapter of the project, of its registry, or of a folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from pipelines.runtime.process import importing

if TYPE_CHECKING:
    from pipelines.serving.answerer import Answerer

console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


def predict_command(
    file: Annotated[str, typer.Argument(help="Rows: a csv, tsv, json, jsonl or parquet file; - is standard input.")],
    adapter: Annotated[
        str | None,
        typer.Option(
            help="An adapter folder, hub:NAME@COMMIT, a version: 3, @champion, models:/NAME/3. Default: the project's."
        ),
    ] = None,
    out: Annotated[str, typer.Option(help="A .jsonl or .csv file; - is standard output, as JSON Lines.")] = "-",
    rejected: Annotated[
        Path | None, typer.Option(help="A .jsonl file for rows that cannot be answered; without it there must be none.")
    ] = None,
    layout: Annotated[
        Literal["csv", "tsv", "ssv", "psv", "json", "jsonl", "parquet"] | None,
        typer.Option("--format", help="Of the rows. Default: as the name ends; jsonl on standard input."),
    ] = None,
    scale: Annotated[
        float,
        typer.Option(help="The adapter's strength: 1 is the adapter as trained, 0 the frozen base, 0.5 half of it."),
    ] = 1.0,
    quoting: Annotated[bool, typer.Option(help="csv and its like: whether double quotes hold cells together.")] = True,
    project: Annotated[
        Path, typer.Option("--project", "-p", help="The project folder: for its adapter and store.")
    ] = Path(),
) -> None:
    """Answer every row of a file: of a classification the label, and the probability of each.

    Rows are chosen by the names of the template's columns and read as training read them; other columns are passed
    over. Each answer has the line of its row. A row that training would have rejected (an empty text, too many tokens)
    is an error before anything is answered, with its line and the rule, or goes to --rejected.

    reft predict reviews.csv --adapter models:/reft-adapter@champion --out answers.csv
    """
    with importing():
        from pipelines.serving.predict import Asked, predict

    asked = Asked(file=file, out=out, rejected=rejected, format=layout, quoting=quoting, scale=scale)
    with _answerer(adapter, project.resolve()) as answerer:
        try:
            done = predict(asked, answerer)
        except BrokenPipeError:  # whoever read the answers has read enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None
    rate = done.rows / max(done.seconds, 1e-9)
    said = f"{done.rows:,} rows answered in {done.seconds:.1f} s, {rate:,.0f} a second"
    console.print(f"{said}; {done.rejected:,} rejected." if rejected else f"{said}.")


@contextmanager
def _answerer(source: str | None, root: Path) -> Iterator[Answerer]:
    """The adapter that is named, on its base."""
    from pipelines.contracts.base import read_base
    from pipelines.exchange.imports import refusals
    from pipelines.exchange.named import Naming, named_adapter
    from pipelines.serving.answerer import open_answerer

    with named_adapter(source, Naming(root, download=True)) as named:
        with refusals():
            answerer = open_answerer(named.folder, read_base(named.base), root=root)
        yield answerer
