"""Stage register: the runs and the adapter are in MLflow, as one version with its whole lineage."""

from __future__ import annotations

from pathlib import Path

from pipelines.contracts.facts import StageFiles
from pipelines.contracts.registration import Registration, write_registration
from pipelines.params.whole import Params
from pipelines.registry.aliases import place_alias
from pipelines.registry.facts import Facts, read_facts
from pipelines.registry.history import complete_runs
from pipelines.registry.versions import ensure_version
from pipelines.runtime.process import locked
from pipelines.tracking.runs import Store, open_store, store_errors
from pipelines.tracking.store import public_uri, unreachable

REGISTRY_LOCK, LOCK_SECONDS = "registry", 120.0


def run(params: Params, *, root: Path, files: StageFiles, out: Path) -> Registration:
    """Complete the runs, make the version if this adapter has none, give it its alias, then write registration.json.

    Raises:
        PipelineError: if a file is missing, the adapter is not the one that was measured, or the store does not answer.
    """
    facts = read_facts(params, files)
    store = open_store(params.tracking, root)
    try:
        registration = _register(store, params, facts, root)
    except store_errors() as error:
        raise unreachable(store.uri, error, rule="the tracking store must take what register logs") from error
    write_registration(out, registration)
    return registration


def _register(store: Store, params: Params, facts: Facts, root: Path) -> Registration:
    model = params.register_.model
    pipeline = complete_runs(store, params, facts, project=root.resolve().name)
    with locked(root, REGISTRY_LOCK, wait_seconds=LOCK_SECONDS):
        version = ensure_version(store, model, pipeline, facts, root)
        alias = place_alias(store.client, model, str(version), better=facts.evaluation.better)
    return Registration(
        model=model,
        version=version,
        alias=alias,
        run_id=pipeline.id,
        adapter_sha256=facts.adapter_sha256,
        tracking_uri=public_uri(params.tracking.uri),
        model_uri=f"models:/{model}/{version}",
    )
