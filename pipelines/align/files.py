"""The files of a causal map: objects, table, picture, written whole."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from pipelines.align.map import HEADER, AlignResult
from pipelines.files import whole_directory, write_json, write_table


def write_map(out: Path, result: AlignResult) -> None:
    """Write map.json, map.csv and map.png, as one folder."""
    from pipelines.align.plot import draw_map  # matplotlib takes a second to import

    rows = [
        (
            *(cell.layer, f'"{cell.positions}"', cell.method, cell.dimension, cell.validation.value, cell.test.value),
            *(cell.test.low, cell.test.high, "" if cell.chance is None else cell.chance),
            "" if cell.first_unit is None else cell.first_unit,
        )
        for cell in result.cells
    ]
    with whole_directory(out) as temporary:
        write_json(temporary / "map.json", asdict(result))
        write_table(temporary / "map.csv", HEADER, rows)
        draw_map(temporary / "map.png", result)
