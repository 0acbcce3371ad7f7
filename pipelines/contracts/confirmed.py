"""search/confirmed.json: the best trials run again with other seeds, as the stage search leaves them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pipelines.contracts.reading import Fields, read_list
from pipelines.files import write_json


@dataclass(frozen=True)
class Confirmed:
    """A candidate with the values of all its runs: that of the trial, then those with other seeds and other rows.

    Mean and spread (the sample's standard deviation) are of the others alone: the trial's own value was chosen as
    one of the highest, so it is more often too high than too low. A run that failed has None, and its recipe is not
    chosen: it does not stand another seed. The seconds are those of the others together.
    """

    trial: int
    seeds: tuple[int, ...]
    values: tuple[float | None, ...]
    mean: float | None
    spread: float | None
    seconds: float


def write_confirmed(path: Path, runs: Sequence[Confirmed]) -> None:
    """Write confirmed.json."""
    write_json(path, [asdict(one) for one in runs])


def read_confirmed(path: Path) -> list[Confirmed]:
    """Read confirmed.json; raises :class:`PipelineError` if it is not what the stage writes."""
    return read_list(path, _confirmed, stage="search")


def _confirmed(raw: Fields) -> Confirmed:
    return Confirmed(**{**raw, "seeds": tuple(raw["seeds"]), "values": tuple(raw["values"])})
