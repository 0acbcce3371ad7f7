"""Whether a version of the registry loads: on its own base, as whoever serves it does."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.contracts.base import read_base
from pipelines.errors import PipelineError
from pipelines.params.whole import Params
from pipelines.registry.download import fetch_version
from pipelines.serving.answerer import open_answerer

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


def check_loads(version: ModelVersion, *, params: Params, root: Path) -> None:
    """Fetch a version and load it.

    Raises:
        PipelineError: if it cannot be had, or does not load.
    """
    address = f"models:/{version.name}/{version.version}"
    with tempfile.TemporaryDirectory() as scratch:
        files = fetch_version(address, Path(scratch), params=params, root=root)
        try:
            open_answerer(files.adapter, read_base(files.base), root=root)
        except ValueError as error:
            raise PipelineError(
                "a version must load before it goes live",
                got=f"{address}: {error}",
                do="`reft registry` lists the versions; `reft promote NUMBER --reason TEXT` makes another one live.",
            ) from None
