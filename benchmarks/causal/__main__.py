"""Where does a model hold it? Distributed alignment search on a small network and on the real language model.

Two tables. Hierarchical equality: a small network, taught for each seed; the learned rotation beside every choice of
units. The price-range task: the model of params.yaml as its section `align` says; interchange accuracy by layer, token
and dimension, beside the whole state and random rotations. The second is `reft align` and shares its cells: what either
has finished, the other keeps. About ten minutes on one free core.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks.causal.equality import EqualitySetting, equality_table, measure
from benchmarks.sides import arguments
from benchmarks.speed.tables import table
from pipelines.align import run as align
from pipelines.align.map import AlignResult, Cell, Figures
from pipelines.errors import PipelineError
from pipelines.files import write_json
from pipelines.params.whole import load_params
from pipelines.project.graph import read_graph
from reft.causal import DasConfig
from reft.causal.equality import EqualityTraining

EQUALITY, PRICES = "equality", "prices"
SEEDS = (0, 1, 2)
SETTING = EqualitySetting(
    EqualityTraining(), DasConfig(40, 256, 2e-2, 0), train_rows=12_000, choice_rows=192, test_rows=1500
)


def price_table(result: AlignResult) -> str:
    """Return the map as Markdown, and what to read it beside."""
    header = ["layer", "token", "whole state"]
    for cell in _at(result, result.cells[0]):
        if cell.chance is not None:
            header += [f"learned, {cell.dimension} of d", f"random, {cell.dimension} of d"]
    rows = []
    for first in (cell for cell in result.cells if cell.chance is None):
        row: list[object] = [first.layer, f"{first.positions} {result.tokens[first.positions].strip()!r}"]
        for cell in _at(result, first):
            row += [_share(cell.test.value), *([] if cell.chance is None else [_share(cell.chance)])]
        rows.append(row)
    before = "" if result.taught_from is None else f"; before it was taught: {_with_interval(result.taught_from)}"
    return (
        f"{table(header, rows)}\nThe model on its task: {_with_interval(result.accuracy)}{before}. No swap at all: "
        f"{_with_interval(result.unchanged)}. Best place on the validation rows: {result.best.name}, "
        f"{_with_interval(result.best.test)} on {result.best.test.rows} test rows.\n"
    )


def _at(result: AlignResult, like: Cell) -> list[Cell]:
    return [cell for cell in result.cells if (cell.layer, cell.positions) == (like.layer, like.positions)]


def _share(value: float) -> str:
    return f"{value:.1%}"


def _with_interval(figures: Figures) -> str:
    return f"{figures.value:.1%} ({figures.low:.1%} to {figures.high:.1%})"


def main(words: Sequence[str] | None = None) -> int:
    """Print the tables; write every figure to ``--out``; 1 after a message where params.yaml cannot be used."""
    parser = arguments.parser("benchmarks.causal", __doc__)
    parser.add_argument("--parts", type=arguments.names((EQUALITY, PRICES)), default=[EQUALITY, PRICES])
    given = parser.parse_args(words)
    figures: dict[str, object] = {}
    started = time.monotonic()
    try:
        params = load_params(given.root / "params.yaml")
        if given.threads:
            params = params.model_copy(update={"run": params.run.model_copy(update={"threads": given.threads})})
        torch.set_num_threads(params.run.threads)
        if EQUALITY in given.parts:
            outcomes = [measure(seed, SETTING) for seed in tqdm(SEEDS, desc="equality", unit="seed")]
            print(equality_table(outcomes), flush=True)
            figures[EQUALITY] = [asdict(each) for each in outcomes]
        if PRICES in given.parts:
            out = given.root / read_graph(given.root).paths["alignment"]
            result = align.run(params, root=given.root, out=out)
            print(price_table(result))
            print(f"The picture: {out / 'map.png'}\n")
            figures[PRICES] = asdict(result)
    except PipelineError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{time.monotonic() - started:.0f} s, {time.process_time():.0f} s of processor time")
    if given.out is not None:
        write_json(Path(given.out), figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
