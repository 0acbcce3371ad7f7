"""The lock of a registry, which belongs to its store: whoever writes versions or aliases holds it, from any project."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from pipelines.registry.claim import claim
from pipelines.runtime.database_lock import database_lock, locks
from pipelines.tracking.runs import Store, store_errors
from pipelines.tracking.store import unreachable

RULE = "the tracking store must take what is registered"

Confirm = Callable[[], None]
"""Raises PipelineError if the lock is lost; for before a write that cannot be taken back, and after the last."""


@contextlib.contextmanager
def registry_lock(store: Store, model: str, *, wait_seconds: float) -> Iterator[Confirm]:
    """Hold a registered model, made if it is not there; yields what confirms that it is still held.

    A database is locked by its own lock. The claim in the store stands beside that, since others may reach the same
    store through a server, which has no lock to offer.

    Raises:
        BusyError: if another process holds it for longer than ``wait_seconds``; the message names that process.
        PipelineError: if the store does not answer.
    """
    with contextlib.ExitStack() as held:
        try:
            covered = locks(store.uri)
            still = held.enter_context(
                database_lock(store.uri, "registry", wait_seconds=wait_seconds) if covered else contextlib.nullcontext()
            )
            _ensure_model(store, model)
            own = held.enter_context(claim(store.client, model, covered=covered, wait_seconds=wait_seconds))
        except store_errors() as error:
            raise unreachable(store.uri, error, rule=RULE) from error

        def confirm() -> None:
            try:
                if still is not None:
                    still()
                own.confirm()
            except store_errors() as error:
                raise unreachable(store.uri, error, rule=RULE) from error

        yield confirm


def _ensure_model(store: Store, model: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        store.client.create_registered_model(model)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
