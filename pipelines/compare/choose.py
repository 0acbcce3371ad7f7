"""A comparison: learning rates chosen on validation rows, then each method measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tqdm import tqdm

from pipelines.compare.cells import Cell, CellMaker, Contender
from pipelines.compare.table import Comparison


def compare(maker: CellMaker, methods: Sequence[Contender], seeds: Sequence[int]) -> Comparison:
    """Make every cell that is not there yet, with a progress bar; return all of them."""
    total = 1 + sum(len(method.learning_rates) * (len(method.learning_rates) > 1) + len(seeds) for method in methods)
    with tqdm(total=total, desc="compare", unit="cell") as bar:

        def told(cell: Cell) -> Cell:
            bar.set_postfix_str(f"{cell.name} {cell.value:.3f}" if cell.value is not None else cell.name)
            bar.update()
            return cell

        base = told(maker.base())
        lines = []
        for method in methods:
            tuning = [told(cell) for cell in _tuning(maker, method, seeds[0])]
            rate = _chosen(method, tuning)
            cells = [] if rate is None else [told(maker.measured(method, rate, seed)) for seed in seeds]
            bar.update(0 if cells else len(seeds))
            lines.append((method, tuple(tuning), tuple(cells)))
    return Comparison(
        maker.measure, base, tuple(lines), maker.baselines(), maker.groups(), maker.passages(), maker.others
    )


def _tuning(maker: CellMaker, method: Contender, seed: int) -> Iterator[Cell]:
    if len(method.learning_rates) > 1:
        yield from (maker.tuned(method, rate, seed) for rate in method.learning_rates)


def _chosen(method: Contender, tuning: Sequence[Cell]) -> float | None:
    """The learning rate with the best value on validation rows, of equal ones the lowest; None if none trained."""
    if not tuning:
        return method.learning_rates[0]
    stood = [cell for cell in tuning if cell.value is not None]
    best = min(stood, key=lambda cell: (-(cell.value or 0.0), cell.learning_rate or 0.0), default=None)
    return None if best is None else best.learning_rate
