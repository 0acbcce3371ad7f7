"""Every test has its own REFT_HOME and no server of the user's."""

from __future__ import annotations

from pathlib import Path

import pytest

FOREIGN = ("PREFECT_API_URL", "PREFECT_API_KEY", "MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME")


@pytest.fixture(autouse=True)
def reft_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store of bases and downloads; returns its folder."""
    home = tmp_path_factory.mktemp("reft-home")
    monkeypatch.setenv("REFT_HOME", str(home))
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    for variable in FOREIGN:
        monkeypatch.delenv(variable, raising=False)
    return home
