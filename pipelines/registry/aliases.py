"""Aliases of registered versions: which is champion, which is challenger."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from pipelines.project.lineage import in_experiment

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


log = logging.getLogger(__name__)
CHAMPION, CHALLENGER = "champion", "challenger"
ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # what stores say of an alias that is not there


def alias_version(client: MlflowClient, model: str, alias: str) -> ModelVersion | None:
    """The version that an alias points to; None when there is no such alias, or its version has been deleted."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(model, alias)
    except MlflowException as error:
        if error.error_code in ABSENT:
            return None
        raise


def place_alias(
    client: MlflowClient, model: str, version: str, *, better: bool, confirm: Callable[[], None]
) -> str | None:
    """Make a version that beats the base the champion, if there is none, or else the challenger.

    A champion stays one: only a promotion replaces it. In an experiment of DVC nothing moves.

    Args:
        client: of the store.
        model: the registered model, whose lock is the caller's, since MLflow's aliases have no compare-and-set.
        version: its version.
        better: whether that beats the base.
        confirm: raises if the lock is lost.

    Returns:
        The alias that the registry then says the version has.
    """
    champion, challenger = alias_version(client, model, CHAMPION), alias_version(client, model, CHALLENGER)
    if champion is not None and str(champion.version) == version:
        return CHAMPION
    if in_experiment():
        log.info("this is an experiment of DVC: no alias moves")
        return alias_of(client, model, version)
    challenges = challenger is not None and str(challenger.version) == version
    alias = (CHALLENGER if champion is not None else CHAMPION) if better else None
    confirm()
    if challenges and alias != CHALLENGER:
        client.delete_registered_model_alias(model, CHALLENGER)
    if alias is not None:
        client.set_registered_model_alias(model, alias, version)
    return alias_of(client, model, version)


def alias_of(client: MlflowClient, model: str, version: str) -> str | None:
    """The alias that a version has in the registry, champion before challenger."""
    aliases = client.get_model_version(model, version).aliases
    return next((alias for alias in (CHAMPION, CHALLENGER) if alias in aliases), None)
