"""Free disk space, looked at before work starts and not when it is gone."""

from __future__ import annotations

from pathlib import Path

from pipelines.files import require_space

PROJECT_BYTES = 500_000_000  # DVC's cache, MLflow's store, checkpoints, plots


def check_project_space(root: Path) -> None:
    """Make sure that a stage can write in the project folder.

    Raises:
        PipelineError: naming the folder, what is needed and what is free.
    """
    require_space(root, PROJECT_BYTES)
