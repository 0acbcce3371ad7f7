"""What the store of artifacts holds of a version, beside what its tags say: an adapter is there when its bytes are."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.contracts.base import read_base
from pipelines.errors import PipelineError
from reft.adapters.files import adapter_sha256

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

ADAPTER, BASE = "reft.adapter_sha256", "base.sha256"  # tags: the first keys a version
FOLDER = "artifacts"  # of an MLflow model from code, where package.py puts adapter and base
LOCAL = "file:"


def model_id(version: ModelVersion) -> str:
    """The logged model whose files a version has."""
    return str(version.source).removeprefix("models:/")


def holds(client: MlflowClient, logged_model: str, adapter: str, base: str | None) -> bool:
    """Whether the files of a logged model are there and are that adapter and, where one is named, that base's record.

    They are read, and fetched where the store is another machine's: kilobytes, but for a fully tuned model.

    Args:
        client: of the store.
        logged_model: its id.
        adapter: the adapter's sha256.
        base: the base's.
    """
    from mlflow.artifacts import download_artifacts

    if len(client.list_logged_model_artifacts(logged_model, FOLDER)) < 2:  # asked to be fetched, they would be an error
        return False
    location = client.get_logged_model(logged_model).artifact_location.rstrip("/")
    with tempfile.TemporaryDirectory() as scratch:
        target = None if location.startswith(LOCAL) else scratch
        folder = Path(download_artifacts(artifact_uri=f"{location}/{FOLDER}", dst_path=target))
        try:
            named = read_base(folder / "base.json").sha256
            return adapter_sha256(folder / "adapter") == adapter and base in (None, named)
        except (ValueError, OSError, PipelineError):
            return False
