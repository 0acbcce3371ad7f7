"""What the search chose: best.yaml, which the stage train takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pipelines.errors import PipelineError
from pipelines.files import write_text
from pipelines.yaml_file import dump_yaml, read_yaml

AGAIN = "Run: dvc repro -f -s search"


@dataclass(frozen=True)
class Best:
    """What best.yaml holds: the parts that the search chose, of which trial, where that came from, and its value.

    ``value`` is None where no trial was run for it, as for a recipe that is published.
    """

    chosen: dict[str, object]
    study: str
    trial: int
    origin: str
    value: float | None
    spread: float | None


def write_best(path: Path, best: Best) -> None:
    """Write best.yaml."""
    write_text(path, dump_yaml(asdict(best)))


def read_chosen(path: Path) -> Best:
    """Read best.yaml as it stands, whatever params.yaml leaves to the search today.

    Raises:
        PipelineError: if it is not what the search stage writes.
    """
    raw = read_yaml(path)
    try:
        if not isinstance(raw, Mapping):
            raise TypeError(f"a {type(raw).__name__}")
        return Best(**{**raw, "chosen": {str(part): value for part, value in dict(raw["chosen"]).items()}})
    except (TypeError, KeyError, ValueError) as error:
        raise PipelineError(
            "best.yaml must hold the recipe that the search wrote",
            got=f"{path}: {type(error).__name__}: {error}",
            do=AGAIN,
        ) from None
