"""The picture of ``reft align``: interchange accuracy over layers and tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipelines.align.map import UNITS, WHOLE, AlignResult, Cell
from pipelines.reports.plots import plt, save


def draw_map(path: Path, result: AlignResult) -> None:
    """Draw a panel for the whole state and each size of blocks, and two for each dimension: learned, and random."""
    layers = sorted({cell.layer for cell in result.cells})
    positions = list(result.tokens)
    panels = _panels(result)
    size = (1.2 + len(panels) * (0.8 + 0.62 * len(positions)), 2.6 + 0.45 * len(layers))
    figure, axes = plt.subplots(1, len(panels), figsize=size, squeeze=False, sharey=True)
    for axis, (title, values) in zip(axes[0], panels.items(), strict=True):
        grid = np.array([[values[layer, place] for place in positions] for layer in layers])
        axis.imshow(grid, cmap="RdYlGn", vmin=0, vmax=1, origin="lower", aspect="auto")
        for (row, column), value in np.ndenumerate(grid):
            axis.text(column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize="small")
        names = [f"{place}\n{result.tokens[place].strip()!r}" for place in positions]
        axis.set_xticks(range(len(positions)), names, fontsize="small")
        axis.set_yticks(range(len(layers)), [str(layer) for layer in layers])
        axis.set_title(title, fontsize="medium")
    axes[0][0].set_ylabel("layer")
    figure.suptitle(
        f"Interchange accuracy of {result.variable!r} in per cent ({result.cells[0].test.rows} test rows); "
        f"no swap: {100 * result.unchanged.value:.0f}, the model on its task: {100 * result.accuracy.value:.0f}"
    )
    save(figure, path)


def _panels(result: AlignResult) -> dict[str, dict[tuple[int, str], float]]:
    """Return title -> layer and positions -> value."""
    panels: dict[str, dict[tuple[int, str], float]] = {}
    for cell in result.cells:
        place = (cell.layer, cell.positions)
        panels.setdefault(_title(cell), {})[place] = cell.test.value
    for cell in result.cells:
        if cell.chance is not None:
            title = _title(cell).replace(cell.method, "random", 1)
            panels.setdefault(title, {})[cell.layer, cell.positions] = cell.chance
    return panels


def _title(cell: Cell) -> str:
    if cell.method == WHOLE:
        return "whole state"
    if cell.method == UNITS:
        return f"best of all blocks of {cell.dimension} units"
    return "boundless" if cell.method == "boundless" else f"{cell.method}, dimension {cell.dimension}"
