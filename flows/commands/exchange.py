"""``reft import`` and ``reft export``: adapters from and for other libraries and hubs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from pipelines.errors import PipelineError, printable

console = Console(soft_wrap=True, highlight=False, markup=False)

Project = Annotated[Path, typer.Option("--project", "-p", help="The project folder: for its base, adapter and store.")]


def import_command(
    source: Annotated[str, typer.Argument(metavar="PATH", help="A folder with the adapter, or hub:NAME@COMMIT.")],
    out: Annotated[Path, typer.Option(help="The new adapter folder; must not be there yet.")],
    library: Annotated[
        Literal["pyreft", "adapterhub", "hub"],
        typer.Option("--format", help="What saved it; hub: `reft export --format hub`, which needs none of the rest."),
    ],
    base: Annotated[
        str | None,
        typer.Option(help="The model it is for: a base.json, hub:NAME@COMMIT, or file:PATH. Default: the project's."),
    ] = None,
    positions: Annotated[
        str | None, typer.Option(help="pyreft: the prompt tokens that are edited, as in training, like f7+l7 or l1.")
    ] = None,
    activation: Annotated[
        str | None, typer.Option(help="pyreft: f in the formula; it does not store it. Default: linear.")
    ] = None,
    dropout: Annotated[
        float | None, typer.Option(help="pyreft: for training on; it does not store it. Default: 0.")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(help="Where the files leave it open: noreft or direft for AdapterHub's without orthogonality."),
    ] = None,
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"], typer.Option(help="Of a base that is given by its address.")
    ] = "float32",
    project: Project = Path(),
) -> None:
    """Make an adapter of this project from one that pyreft or AdapterHub saved, or that was published.

    Nothing in its files is run. The result is tied to the base that you name, by content: which one the adapter was
    trained on is not in pyreft's files, so a wrong one of the same size cannot be told from the right one.

    reft import ~/loreft-llama --format pyreft --base hub:org/llama@COMMIT --positions f7+l7 --out models/imported
    """
    from pipelines.exchange.imports import BaseChoice, DeclaredSettings, import_adapter

    root = project.resolve()
    declared = DeclaredSettings(positions=positions, activation=activation, dropout=dropout, method=method)
    if base is None and library != "hub":
        base = _project_base(root)
    choice = None if base is None else BaseChoice(base, dtype=dtype)
    made = import_adapter(source, out, library=library, root=root, declared=declared, base=choice)
    console.print(
        f"{out}: {made.method} at {made.positions} of {made.layers} layers, {made.trained:,} trained numbers, for the "
        f"base {printable(made.base.source)} ({made.base.sha256[:12]})."
    )
    for note in made.notes:
        console.print(f"note: {note}")
    console.print("It loads with reft.load_adapter, or pipelines.exchange.load_published with its base.")


def export_command(
    out: Annotated[Path, typer.Option(help="The new folder; must not be there yet.")],
    layout: Annotated[
        Literal["pyreft", "hub", "standalone", "vllm", "easysteer"],
        typer.Option(
            "--format",
            help="pyreft: what pyreft.ReftModel.load reads; hub: a repository with a model card; standalone: a folder "
            "with a loader that needs torch and transformers alone; vllm: what the plug-in reft-vllm serves; "
            "easysteer: what requests to EasySteer carry.",
        ),
    ],
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="ADAPTER",
            help="An adapter folder, hub:NAME@COMMIT, a version: 3, @champion, models:/NAME/3. Default: the project's.",
        ),
    ] = None,
    project: Project = Path(),
) -> None:
    """Write an adapter for others: as pyreft's directory, as a hub's repository, or with a loader that stands alone.

    pyreft loads four methods again (loreft, direft_orthogonal, consreft, lobireft), with a linear activation; others
    are refused. It stores no positions, so a README.md says them. The hub's layout holds the adapter, the record of
    its base and the card; `hf upload ORG/NAME FOLDER` puts it on a hub. The standalone folder has every edit of hidden
    states that a prompt's length places: load_reft.py is to be read, then run, where nothing of this project is.

    reft export @champion --format pyreft --out for-pyreft
    """
    from pipelines.exchange.export import export_adapter

    sha256 = export_adapter(source, out, layout=layout, root=project.resolve())
    console.print(f"{out}: the adapter {sha256[:12]} in the layout {layout}.")


def _project_base(root: Path) -> str:
    from pipelines.project.graph import read_graph

    path = root / read_graph(root).paths["base"] if (root / "dvc.yaml").is_file() else None
    if path is None or not path.is_file():
        raise PipelineError(
            "the base must be named where no project has one",
            got=f"no {path.relative_to(root) if path else 'dvc.yaml'} in {root}",
            do="Give --base: a base.json, or an address like hub:NAME@COMMIT.",
        )
    return str(path)
