"""The map that ``reft align`` draws: interchange accuracy by layer, place and dimension, as files and as objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reft.causal import Accuracy

WHOLE = "whole"  # the method of a cell that swaps the whole state
UNITS = "units"  # and of one that swaps the best block of neighbouring units
UNLEARNED = (WHOLE, UNITS)
HEADER = ("layer", "positions", "method", "dimension", "validation", "test", "low", "high", "random", "first unit")


@dataclass(frozen=True)
class Figures:
    """A share of right answers, and the bounds of its 95 % interval (Wilson)."""

    value: float
    low: float
    high: float
    rows: int

    @classmethod
    def of(cls, accuracy: Accuracy) -> Figures:
        """Return the figures of an accuracy."""
        return cls(accuracy.value, *accuracy.interval, accuracy.rows)


@dataclass(frozen=True)
class Cell:
    """One cell of the map.

    Attributes:
        layer: at whose output the states are swapped.
        positions: of the tokens at which they are.
        method: ``das``, ``boundless``, ``whole`` or ``units``.
        dimension: of the subspace that is swapped: the one asked for, learned by boundless, the whole state's, or the
            units of a block.
        validation: interchange accuracy on the rows that choose the best cell.
        test: on those that are reported.
        random: on those too, of each random rotation of that dimension; none where nothing was learned.
        losses: the mean loss of the first and the last tenth of the steps, in nats; none where nothing was learned.
        seconds: that the cell took.
        first_unit: of the block of units that had the best interchange accuracy on the training rows; None elsewhere.
    """

    layer: int
    positions: str
    method: str
    dimension: int
    validation: Figures
    test: Figures
    random: tuple[float, ...]
    losses: tuple[float, ...]
    seconds: float
    first_unit: int | None = None

    @property
    def name(self) -> str:
        """What the log and MLflow call it."""
        return f"layer {self.layer}, {self.positions}, {self.method} {self.dimension}"

    @property
    def chance(self) -> float | None:
        """The mean of the random rotations; None where nothing was learned."""
        return sum(self.random) / len(self.random) if self.random else None

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Cell:
        """Build what ``asdict`` and JSON made of a cell."""
        figures = {name: Figures(**raw[name]) for name in ("validation", "test")}
        return cls(**{**raw, **figures, **{name: tuple(raw[name]) for name in ("random", "losses")}})


@dataclass(frozen=True)
class AlignResult:
    """What map.json holds.

    Attributes:
        variable: the causal variable.
        data: where the rows come from.
        model: what was looked at.
        accuracy: of the model itself, on the prompts of the test rows.
        taught_from: of the frozen base on them, where an adapter was taught; None elsewhere.
        unchanged: how often the model's own answer is the counterfactual one: what no swap at all gives.
        tokens: by positions, the text there in the first prompt.
        cells: the map, by layer, positions and dimension.
        best: the learned cell with the best interchange accuracy on the validation rows.
        resumed: how many cells an earlier run had left.
        input_hash: of everything that the figures depend on.
    """

    variable: str
    data: str
    model: str
    accuracy: Figures
    taught_from: Figures | None
    unchanged: Figures
    tokens: dict[str, str]
    cells: tuple[Cell, ...]
    best: Cell
    resumed: int
    input_hash: str
