"""metrics/train.json: what the stage train leaves."""

from __future__ import annotations

from dataclasses import dataclass


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
