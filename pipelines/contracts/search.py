"""metrics/search.json: what the stage search leaves of a study, in figures."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from pipelines.contracts.reading import read_metrics, write_metrics

_IDENTITIES = ("study", "input_hash")


@dataclass(frozen=True)
class SearchResult:
    """What metrics/search.json holds.

    Values are of ``measure``. ``best_value`` is the one that the recipe was chosen by: of its trial, or the mean of the
    runs that confirm it; ``best_spread`` is the standard deviation of those; ``best_origin`` is where it came from.
    ``first_value`` is that of the recipe that was tried first, ``base_value`` that of the frozen base, on the same
    rows. A trial that was killed with its process and run again is not counted as failed. The seconds are those of all
    trials that ended, of computing what is constant of base and rows beside them, of the runs that confirm the best,
    and, about, those that pruning saved.
    """

    measure: str
    study: str
    input_hash: str
    complete: int
    pruned: int
    failed: int
    best_trial: int
    best_origin: str
    best_value: float
    best_spread: float | None
    first_value: float | None
    base_value: float | None
    seconds: float
    fill_seconds: float
    confirm_seconds: float
    saved_seconds: float


def write_search(path: Path, result: SearchResult) -> None:
    """Write search.json."""
    write_metrics(path, asdict(result), identities=_IDENTITIES)


def read_search(path: Path) -> SearchResult:
    """Read search.json; raises :class:`PipelineError` if it is not what the stage writes."""
    return read_metrics(path, lambda raw: SearchResult(**raw), stage="search")
