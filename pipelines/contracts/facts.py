"""The files of all stages, as the stage register is given them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class StageFiles:
    """The paths of what the stages left."""

    base: Path
    prepared: Path
    card: Path
    search: Path
    search_metrics: Path
    adapter: Path
    train_metrics: Path
    train_plots: Path
    evaluation: Path
    predictions: Path
    evaluate_plots: Path
    evaluation_page: Path
    model_card: Path
