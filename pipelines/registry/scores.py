"""What the gate found of the champions of a model, one decision after the other."""

from __future__ import annotations

import tempfile
from pathlib import Path

from pipelines.contracts.verdict import Decision, read_decision
from pipelines.registry.listing import all_versions
from pipelines.tracking.runs import Store, store_errors
from pipelines.tracking.store import unreachable

FILE = "gate/gate.json"  # among the artifacts of a version's run
MOST = 104  # decisions that are told: of two years, with one a week


def decisions(store: Store, model: str) -> list[Decision]:
    """The last decision of each version that the gate was asked of, the oldest first; of the newest versions.

    Raises:
        PipelineError: if the store does not answer, or a decision that it keeps cannot be read.
    """
    found: list[Decision] = []
    try:
        versions = sorted(all_versions(store, model), key=lambda version: -int(version.version))
        with tempfile.TemporaryDirectory() as folder:
            for version in versions[:MOST]:
                if any(file.path == FILE for file in store.client.list_artifacts(version.run_id, "gate")):
                    path = Path(folder) / str(version.version)
                    path.mkdir()
                    found.append(read_decision(Path(store.client.download_artifacts(version.run_id, FILE, str(path)))))
    except store_errors() as error:
        raise unreachable(store.uri, error) from error
    return sorted(found, key=lambda decision: (decision.at, decision.version))
