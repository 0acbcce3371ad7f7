"""Rollback: the champion before the live one is live again, in one command that asks no row and needs no server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pipelines.errors import PipelineError, printable
from pipelines.registry.aliases import (
    CHAMPION,
    PREVIOUS,
    WITHDRAWN,
    alias_version,
    model_tags,
    number_of,
    restore,
    settle,
    unfinished,
)
from pipelines.registry.lock import Confirm, registry_lock
from pipelines.registry.promote import LONGEST, WAIT_SECONDS, check_reason, end_moves, has_files
from pipelines.tracking.runs import Store, store_errors
from pipelines.tracking.store import unreachable

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

Check = Callable[["ModelVersion"], None]
"""Raises PipelineError if a version does not load."""


@dataclass(frozen=True)
class RolledBack:
    """What a rollback did: the number that is live now, and the one that was; None: there was no champion."""

    model: str
    version: int
    before: int | None

    def words(self) -> str:
        """In one sentence."""
        old = "there was no champion" if self.before is None else f"version {self.before} was, and is out of use"
        return f"version {self.version} of {self.model} is champion again; {old}"


def roll_back(store: Store, model: str, *, reason: str, check: Check) -> RolledBack:
    """Make the previous champion live again. One that was begun and killed is ended, and goes no further back.

    The version that is taken out of use is marked, so that no run promotes it again by itself.

    Args:
        store: of the model.
        model: the registered model.
        reason: kept with the version that is taken out of use.
        check: whether the previous one loads, which is asked without the lock.

    Raises:
        PipelineError: if there is no previous champion, it does not load, or the store does not answer.
        BusyError: if another process holds the registry for too long.
    """
    check_reason(reason)
    try:
        ended = _ended(store, model)
        if ended is not None:
            return ended
        target = _previous(store, model)
        check(target)
        with registry_lock(store, model, wait_seconds=WAIT_SECONDS) as confirm:
            settle(store.client, model, confirm)
            if number_of(_previous(store, model)) != number_of(target):
                raise PipelineError(
                    "the champion must stay who it is while a rollback looks at the one before",
                    got="another process moved the aliases meanwhile",
                    do="Look at `reft registry`, then run the command again.",
                )
            return _restored(store, model, target, reason, confirm)
    except store_errors() as error:
        raise unreachable(store.uri, error, rule="the registry must take what a rollback writes") from error


def withhold(store: Store, model: str, version: int, *, reason: str) -> None:
    """Mark a version that a person refused, so that no run promotes it by itself.

    A reason that is too long to be kept, or holds what is no text, is cut: a run may have waited hours for the word.

    Raises:
        PipelineError: if the store does not answer.
        BusyError: if another process holds the registry for too long.
    """
    try:
        with registry_lock(store, model, wait_seconds=WAIT_SECONDS) as confirm:
            confirm()
            store.client.set_model_version_tag(
                model, str(version), WITHDRAWN, _note(f"refused: {printable(reason)[:LONGEST]}")
            )
    except store_errors() as error:
        raise unreachable(store.uri, error, rule="the registry must take a refusal") from error


def _note(reason: str) -> str:
    """When, and why."""
    return f"{datetime.now(UTC).isoformat(timespec='seconds')}: {reason}"


def _ended(store: Store, model: str) -> RolledBack | None:
    """End what a killed process began; what that was, where it was a rollback."""
    move = unfinished(model_tags(store.client, model))
    if end_moves(store, model) is None or move is None or move.kind != "rollback":
        return None
    live = number_of(alias_version(store.client, model, CHAMPION))
    if live != move.to:
        return None
    return RolledBack(model, int(move.to), None if move.champion is None else int(move.champion))


def _previous(store: Store, model: str) -> ModelVersion:
    found = alias_version(store.client, model, PREVIOUS)
    if found is None:
        raise PipelineError(
            f"{model} must have a champion before the live one to go back to",
            got="no version has the alias previous",
            do="`reft registry` lists the versions; `reft promote NUMBER --reason TEXT` makes one of them live.",
        )
    return found


def _restored(store: Store, model: str, target: ModelVersion, reason: str, confirm: Confirm) -> RolledBack:
    if not has_files(store, target):
        raise PipelineError(
            "a version must have the files that were registered",
            got=f"version {target.version} has not",
            do="`reft registry` lists the versions; `reft promote NUMBER --reason TEXT` makes one of them live.",
        )
    champion = number_of(alias_version(store.client, model, CHAMPION))
    restore(store.client, model, str(target.version), note=_note(reason), confirm=confirm)
    return RolledBack(model, int(target.version), None if champion is None else int(champion))
