"""``reft align``: in which layer, at which token and in how many dimensions a model holds a causal variable.

Each cell of the search is one layer, one place in the prompt and one dimension: a rotation is learned on training rows
and measured on rows of other prompts, beside the swap of the whole state and beside rotations that nothing was learned
of; and, where ``align.blocks`` asks for it, beside the best block of neighbouring units, for which all are tried (a
localist alignment). A finished cell is a JSON file in a folder whose name hashes all that its figures depend on, so a
search that was stopped goes on where it was.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

import torch
from tqdm import tqdm

from pipelines.align.files import write_map
from pipelines.align.map import UNITS, UNLEARNED, WHOLE, AlignResult, Cell, Figures
from pipelines.align.workspace import AlignWorkspace, open_alignment
from pipelines.files import read_kept, write_json
from pipelines.params.align import AlignParams
from pipelines.params.whole import Params
from pipelines.runtime.process import locked, work_folder
from pipelines.tracking.live import LiveRun, live_run
from reft.causal import (
    BoundlessSwap,
    DasConfig,
    LayerSite,
    RotatedSwap,
    VectorSwap,
    answer_accuracy,
    interchange_accuracy,
    learn_rotation,
    measured,
    search_units,
    unchanged_accuracy,
    unit_blocks,
)


def run(params: Params, *, root: Path, out: Path) -> AlignResult:
    """Compute each cell of the map that is not there yet, then write map.json, map.csv and map.png.

    Args:
        params: the whole of params.yaml.
        root: the project folder.
        out: the folder for the map.

    Raises:
        PipelineError: for data, a base or an adapter that cannot be used, or another run in the same folder.
    """
    with locked(root, "align", wait_seconds=params.run.wait_seconds):
        workspace = open_alignment(params, root=root)
        key = workspace.key(params)
        with live_run(
            params.tracking, root=root, stage="align", input_hash=key, name=f"align-{params.align.variable}"
        ) as live:
            live.log_params(params.align.model_dump())
            workspace.teach(params, folder=work_folder(root) / "align" / key / "taught", live=live)
            result = _search(params, workspace, work_folder(root) / "align" / key, live)
            write_map(out, result)
            live.log_files("alignment", [out])
    return result


def _search(params: Params, workspace: AlignWorkspace, folder: Path, live: LiveRun) -> AlignResult:
    align, cells, resumed = params.align, [], 0
    wanted = list(_wanted(workspace, align))
    with tqdm(total=len(wanted), desc="align", unit="cell") as bar:
        for site, method, dimension in wanted:
            path = folder / f"{site.layer}-{site.positions.replace(':', '_')}-{method}-{dimension}.json"
            kept = read_kept(path, Cell.from_dict)
            if kept is not None:
                cell, resumed = kept, resumed + 1
            else:
                cell = _measure(params, workspace, site, method, dimension, live)
                write_json(path, asdict(cell))
                _say(cell, bar)
            cells.append(cell)
            live.log_metrics(
                {f"{cell.positions.replace(':', '-')}/{method}-{dimension}": cell.test.value}, step=site.layer
            )
            bar.update()
    learned = [cell for cell in cells if cell.method not in UNLEARNED]
    size, data = params.evaluate.batch_size, workspace.data
    result = AlignResult(
        variable=align.variable,
        data=align.data,
        model=align.model,
        accuracy=Figures.of(answer_accuracy(workspace.probe, data.asked, data.labels, batch_size=size)),
        taught_from=workspace.untaught,
        unchanged=Figures.of(unchanged_accuracy(workspace.probe, data.test, batch_size=size)),
        tokens={positions: workspace.text_at(positions) for positions in align.positions},
        cells=tuple(cells),
        best=max(learned, key=lambda cell: (cell.validation.value, -cell.dimension)),
        resumed=resumed,
        input_hash=workspace.key(params),
    )
    live.log_metrics({"model_accuracy": result.accuracy.value, "best_test_accuracy": result.best.test.value})
    return result


def _wanted(workspace: AlignWorkspace, align: AlignParams) -> Iterator[tuple[LayerSite, str, int]]:
    """Yield each cell's site, method and dimension."""
    for layer in workspace.layers:
        for positions in align.positions:
            site = LayerSite(layer, positions)
            yield site, WHOLE, workspace.hidden_size
            for size in align.blocks:
                yield site, UNITS, size
            for dimension in align.dimensions:
                yield site, align.method, dimension


def _measure(
    params: Params, workspace: AlignWorkspace, site: LayerSite, method: str, dimension: int, live: LiveRun
) -> Cell:
    """Learn and measure one cell."""
    if method == UNITS:
        return _measure_units(params, workspace, site, dimension)
    started = time.monotonic()
    align, data, probe, size = params.align, workspace.data, workspace.probe, params.evaluate.batch_size
    swap = _swap(workspace.hidden_size, align.variable, method, dimension, params.seed).to(workspace.device)
    losses: list[float] = []
    if not isinstance(swap, VectorSwap):
        settings = DasConfig(align.epochs, align.batch_size, align.learning_rate, params.seed)
        with live.child(f"{site.layer} {site.positions} {method} {dimension}") as child:
            for step in learn_rotation(probe, site, swap, data.train, settings):
                losses.append(step.loss)
                child.log_metrics({"loss": step.loss}, step=step.step)
    final = measured(swap)
    if isinstance(final, RotatedSwap):
        dimension = final.ranks[align.variable]
    validation, test = (
        Figures.of(interchange_accuracy(probe, site, final, rows, batch_size=size))
        for rows in (data.validation, data.test)
    )
    controls = range(1, align.random_rotations + 1) if losses else ()
    random = [
        _swap(workspace.hidden_size, align.variable, "das", dimension, params.seed + place).to(workspace.device)
        for place in controls
    ]
    return Cell(
        layer=site.layer,
        positions=site.positions,
        method=method,
        dimension=dimension,
        validation=validation,
        test=test,
        random=tuple(interchange_accuracy(probe, site, each, data.test, batch_size=size).value for each in random),
        losses=_ends(losses),
        seconds=round(time.monotonic() - started, 3),
    )


def _measure_units(params: Params, workspace: AlignWorkspace, site: LayerSite, size: int) -> Cell:
    """Try every block of neighbouring units on the training rows, and measure the best one."""
    started = time.monotonic()
    data, probe = workspace.data, workspace.probe
    blocks = unit_blocks(workspace.hidden_size, params.align.variable, size)
    best = search_units(probe, site, data.train, blocks, chunk=1)[0].units  # all rows at once are enough for a pass
    validation, test = (
        Figures.of(search_units(probe, site, rows, [best])[0].accuracy) for rows in (data.validation, data.test)
    )
    return Cell(
        layer=site.layer,
        positions=site.positions,
        method=UNITS,
        dimension=size,
        validation=validation,
        test=test,
        random=(),
        losses=(),
        seconds=round(time.monotonic() - started, 3),
        first_unit=best[params.align.variable][0],
    )


def _swap(
    hidden_size: int, variable: str, method: str, dimension: int, seed: int
) -> VectorSwap | RotatedSwap | BoundlessSwap:
    generator = torch.Generator().manual_seed(seed)
    if method == WHOLE:
        return VectorSwap([variable])
    if method == "boundless":
        return BoundlessSwap(hidden_size, variable, generator)
    return RotatedSwap(hidden_size, {variable: dimension}, generator)


def _ends(losses: list[float]) -> tuple[float, ...]:
    share = max(1, len(losses) // 10)
    return (sum(losses[:share]) / share, sum(losses[-share:]) / share) if losses else ()


def _say(cell: Cell, bar: tqdm[NoReturn]) -> None:
    random = f", random rotations {sum(cell.random) / len(cell.random):.1%}" if cell.random else ""
    bar.write(f"{cell.name}: interchange accuracy {cell.test.value:.1%}{random}", file=sys.stderr)
