"""metrics/train.json: what the stage train leaves."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from pipelines.contracts.reading import read_metrics, write_metrics

_IDENTITIES = ("adapter_sha256", "study", "input_hash")


@dataclass(frozen=True)
class TrainResult:
    """What metrics/train.json holds. Losses are means of the first and last tenth of the steps, in nats a token.

    ``recipe`` is whole; ``chosen`` is what of it the search chose.
    """

    adapter_sha256: str
    trainable_parameters: int
    adapter_bytes: int
    steps: int
    first_loss: float
    last_loss: float
    recipe: dict[str, object]
    chosen: dict[str, object]
    study: str
    trial: int
    input_hash: str


def write_training(path: Path, result: TrainResult) -> None:
    """Write train.json."""
    write_metrics(path, asdict(result), identities=_IDENTITIES)


def read_training(path: Path) -> TrainResult:
    """Read train.json; raises :class:`PipelineError` if it is not what the stage writes."""
    return read_metrics(path, lambda raw: TrainResult(**raw), stage="train")
