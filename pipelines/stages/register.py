"""Stage register: the runs and the adapter are in MLflow, as one version with its whole lineage."""

from __future__ import annotations

import logging
from pathlib import Path

from pipelines.contracts.facts import StageFiles
from pipelines.contracts.registration import Registration, write_registration
from pipelines.params.whole import Params
from pipelines.registry.aliases import CHALLENGER, challenge, settle
from pipelines.registry.facts import Facts, read_facts
from pipelines.registry.history import complete_runs
from pipelines.registry.lock import Confirm, registry_lock
from pipelines.registry.versions import ensure_version
from pipelines.tracking.runs import Store, open_store, store_errors
from pipelines.tracking.store import public_uri, unreachable

log = logging.getLogger(__name__)

WAIT_SECONDS = 300.0  # a registration takes seconds; those of many projects may stand in line


def run(params: Params, *, root: Path, files: StageFiles, out: Path) -> Registration:
    """Complete the runs, make the version if this adapter has none, let it challenge, then write registration.json.

    All of that under the registry's lock, so that registration.json is true when the stage ends.

    Raises:
        PipelineError: if a file is missing, the adapter is not the one that was measured, the store does not answer, or
            another process holds the registry for too long.
    """
    facts = read_facts(params, files)
    store = open_store(params.tracking, root)
    with registry_lock(store, params.register_.model, wait_seconds=WAIT_SECONDS) as confirm:
        try:
            registration = _register(store, params, facts, root, confirm)
        except store_errors() as error:
            raise unreachable(store.uri, error, rule="the tracking store must take what register logs") from error
        confirm()
        write_registration(out, registration)
    if registration.alias == CHALLENGER:
        log.info(
            "version %d of %s challenges; `reft promote` asks the gate, as `reft run` does by itself",
            registration.version,
            registration.model,
        )
    return registration


def _register(store: Store, params: Params, facts: Facts, root: Path, confirm: Confirm) -> Registration:
    model = params.register_.model
    pipeline = complete_runs(store, params, facts, project=root.resolve().name)
    version = ensure_version(store, model, pipeline, facts, root)
    settle(store.client, model, confirm)
    alias = challenge(store.client, model, str(version), better=facts.evaluation.better, confirm=confirm)
    return Registration(
        model=model,
        version=version,
        alias=alias,
        run_id=pipeline.id,
        adapter_sha256=facts.adapter_sha256,
        tracking_uri=public_uri(params.tracking.uri),
        model_uri=f"models:/{model}/{version}",
    )
