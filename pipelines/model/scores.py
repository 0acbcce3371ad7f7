"""The probabilities that a model gives to the answers of rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import numpy as np
from tqdm import tqdm

from pipelines.contracts.prepared import Row
from pipelines.errors import PipelineError
from pipelines.model.intervals import Floats
from pipelines.model.workspace import Workspace
from reft import CausalModel, score_choices


class ScoresError(PipelineError):
    """A score is NaN or infinite, so it says nothing of any label."""


def probabilities(
    workspace: Workspace, model: CausalModel, rows: Sequence[Row], *, batch_size: int, title: str
) -> Floats:
    """The probability of each label, normalised over the labels' words: [rows, labels].

    Raises:
        ScoresError: if a score is NaN or infinite.
    """
    encoded = [workspace.encode_row(row) for row in rows]
    with tqdm(total=len(rows), desc=f"score {title}", unit="row", leave=False) as bar:
        scores = score_choices(
            model, [row.prompt_ids for row in encoded], workspace.choices(), batch_size=batch_size,
            domains=[row.domain for row in encoded], progress=lambda n: _advance(bar, n),
        )  # fmt: skip
    found = np.asarray(scores.double().softmax(dim=-1).cpu().numpy())
    if broken := int((~np.isfinite(found).all(1)).sum()):
        raise ScoresError(
            f"scores of {title} must be numbers",
            got=f"NaN or infinity for {broken} of {len(rows)} rows",
            do="Lower the learning rate, or set base.dtype: float32.",
        )
    return found


def _advance(bar: tqdm[NoReturn], rows: int) -> None:
    bar.update(rows)
