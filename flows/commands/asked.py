"""What `reft evaluate ADAPTER` and `reft compare` have in common: how adapters are named, and which rows are asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pipelines.errors import PipelineError
from pipelines.wording import many

if TYPE_CHECKING:
    from pipelines.evaluation.rows import Asked
    from pipelines.evaluation.wanted import WantedRows
    from pipelines.exchange.named import Naming

ADAPTER = (
    "An adapter: a folder (also one that pyreft or AdapterHub saved), hub:NAME@COMMIT, a version of the registry (3, "
    "@champion, models:/NAME/3)"
)
Project = Annotated[Path, typer.Option("--project", "-p", help="The project folder: for its rows, base and registry.")]
Tasks = Annotated[
    list[str] | None,
    typer.Option(help="Tasks of the library (reft tasks), with commas between; may be given again."),
]
Data = Annotated[
    Path | None,
    typer.Option(help="A folder of the tasks' files; default: the one that the variable REFT_BENCH_DATA names."),
]
Rows = Annotated[int | None, typer.Option(min=1, help="Of each task's test rows, the first so many, in drawn order.")]
Prepared = Annotated[
    list[Path] | None,
    typer.Option(
        help="The folder data/prepared of another project on the same base: a task that was not trained. May be given "
        "again."
    ),
]
Download = Annotated[
    bool, typer.Option("--download", help="Let adapters, bases and data sets be fetched; without it all is offline.")
]
Base = Annotated[
    str | None,
    typer.Option(help="pyreft, AdapterHub: the base: a base.json, hub:NAME@COMMIT, file:PATH. Default: the project's."),
]
Positions = Annotated[
    str | None, typer.Option(help="pyreft: the prompt tokens that are edited, as in training: f7+l7.")
]
Activation = Annotated[str | None, typer.Option(help="pyreft: f in the formula. Default: linear.")]
Method = Annotated[str | None, typer.Option(help="AdapterHub without orthogonality: noreft or direft.")]
Dtype = Annotated[
    Literal["float32", "bfloat16", "float16"], typer.Option(help="Of a base that is given by its address.")
]


def naming(
    root: Path,
    *,
    download: bool,
    base: str | None,
    dtype: str,
    positions: str | None,
    activation: str | None,
    method: str | None,
) -> Naming:
    """How names of adapters are read."""
    from pipelines.exchange.imports import BaseChoice, DeclaredSettings
    from pipelines.exchange.named import Naming

    declared = DeclaredSettings(positions=positions, activation=activation, method=method)
    choice = None if base is None else BaseChoice(base, dtype)
    if choice is not None and choice.address.startswith("hub:") and not download:
        raise PipelineError("a base of a hub is fetched only where that is asked for", got=base, do="Give --download.")
    return Naming(root, download=download, declared=declared, base=choice)


def wanted_rows(
    tasks: Sequence[str] | None, data: Path | None, prepared: Sequence[Path] | None, rows: int | None
) -> WantedRows:
    """Which rows are asked."""
    from pipelines.evaluation.wanted import WantedRows

    names = tuple(name for part in tasks or () for name in part.split(",") if name)
    if data is not None and not names:
        raise PipelineError("--data goes with --tasks", got=data, do="Name tasks with --tasks.")
    return WantedRows(names, data, tuple(prepared or ()), rows)


def kept_words(asked: Asked, anew: int, unknown: Sequence[str]) -> str:
    """How many answers were computed and how many kept from before, and what is to be known of the rows."""
    from pipelines.evaluation.rows import rows_words

    said = f"{many(anew, 'answer')} computed now; what was asked before is kept in .reft/answers."
    return "\n".join([said, *rows_words(asked, unknown)])
