"""Aliases of registered versions: champion, challenger and previous; how they move, and how a move is ended.

MLflow has no move of two aliases at once. So a move is announced in a tag of the model before its first write, and the
tag is taken away after the last. Whoever finds it under the lock ends what a killed process began.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from pipelines.project.lineage import in_experiment
from pipelines.registry.lock import Confirm

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


log = logging.getLogger(__name__)
CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
ALIASES = (CHAMPION, CHALLENGER, PREVIOUS)
ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # what stores say of an alias that is not there
MOVE = "reft.move"  # tag of a model: the move that is being made
REPLACED = "reft.replaced"  # tag of a version that became champion: the champion before it; "" for none
WITHDRAWN = "reft.withdrawn"  # tag of a version: when a person took it out of use, and why


@dataclass(frozen=True)
class Move:
    """A change of the champion.

    Attributes:
        kind: a rollback that was begun is what a person asked for, and is ended; a promotion is decided anew.
        to: the number of the version that becomes champion.
        champion: of the one that is, None if there is none.
        previous: where that alias was.
        note: why, of a rollback.
    """

    kind: Literal["promotion", "rollback"]
    to: str
    champion: str | None
    previous: str | None
    note: str = ""


def alias_version(client: MlflowClient, model: str, alias: str) -> ModelVersion | None:
    """The version that an alias points to; None when there is no such alias, or its version has been deleted."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(model, alias)
    except MlflowException as error:
        if error.error_code in ABSENT:
            return None
        raise


def model_tags(client: MlflowClient, model: str) -> dict[str, str]:
    """The tags of a registered model; none of one that is not there."""
    from mlflow.exceptions import MlflowException

    try:
        return dict(client.get_registered_model(model).tags)
    except MlflowException as error:
        if error.error_code in ABSENT:
            return {}
        raise


def number_of(version: ModelVersion | None) -> str | None:
    """A version's number, as aliases name it."""
    return None if version is None else str(version.version)


def challenge(client: MlflowClient, model: str, version: str, *, better: bool, confirm: Confirm) -> str | None:
    """Make a version that beats the base the challenger, unless it is the champion; that is for the gate to say.

    In an experiment of DVC nothing moves.

    Args:
        client: of the store.
        model: the registered model, whose lock is the caller's, since MLflow's aliases have no compare-and-set.
        version: its version.
        better: whether that beats the base.
        confirm: raises if the lock is lost.

    Returns:
        The alias that the registry then says the version has.
    """
    if number_of(alias_version(client, model, CHAMPION)) == version:
        return CHAMPION
    if in_experiment():
        log.info("this is an experiment of DVC: no alias moves")
        return alias_of(client, model, version)
    challenges = number_of(alias_version(client, model, CHALLENGER)) == version
    confirm()
    if better and not challenges:
        client.set_registered_model_alias(model, CHALLENGER, version)
    elif challenges and not better:
        client.delete_registered_model_alias(model, CHALLENGER)
    return alias_of(client, model, version)


def alias_of(client: MlflowClient, model: str, version: str) -> str | None:
    """The alias that a version has in the registry, champion first."""
    aliases = client.get_model_version(model, version).aliases
    return next((alias for alias in ALIASES if alias in aliases), None)


def crown(client: MlflowClient, model: str, version: str, confirm: Confirm) -> None:
    """Make a version champion, the champion previous, and take the alias challenger from it. The lock is the caller's.

    The alias champion moves in one write, after those that a killed process can leave undone.
    """
    champion, previous = (number_of(alias_version(client, model, alias)) for alias in (CHAMPION, PREVIOUS))
    move, before = Move("promotion", version, champion, previous), champion or previous  # whose champion was deleted
    confirm()
    _announce(client, model, move)
    client.set_model_version_tag(model, version, REPLACED, before or "")
    _point(client, model, PREVIOUS, before)
    confirm()
    client.set_registered_model_alias(model, CHAMPION, version)
    _end(client, model, move)


def restore(client: MlflowClient, model: str, version: str, *, note: str, confirm: Confirm) -> None:
    """Make an earlier champion champion again, as a rollback does; what it had replaced becomes previous.

    Nobody is challenger then: no run makes another version live behind the back of the person who has just gone back,
    who can name one.
    """
    champion = number_of(alias_version(client, model, CHAMPION))
    move = Move("rollback", version, champion, number_of(alias_version(client, model, PREVIOUS)), note)
    confirm()
    _announce(client, model, move)
    _end(client, model, move)


def settle(client: MlflowClient, model: str, confirm: Confirm) -> str | None:
    """End the move that a killed process left, if there is one; the lock is the caller's. Returns what was done."""
    tags = model_tags(client, model)
    move = unfinished(tags)
    if move is None:
        if MOVE in tags:  # nobody's writing
            client.delete_registered_model_tag(model, MOVE)
        return None
    champion = number_of(alias_version(client, model, CHAMPION))
    confirm()
    if champion == move.to or (move.kind == "rollback" and champion == move.champion):
        _end(client, model, move)
        said = f"the {move.kind} of version {move.to}, which a killed process had begun, was finished"
    elif champion == move.champion:
        _point(client, model, PREVIOUS, move.previous)
        client.delete_registered_model_tag(model, MOVE)
        said = f"the promotion of version {move.to}, which a killed process had begun, was undone"
    else:  # somebody moved the alias by hand meanwhile, and that holds
        client.delete_registered_model_tag(model, MOVE)
        said = f"the {move.kind} of version {move.to} was given up: another version is champion now"
    log.warning("%s", said)
    return said


def unfinished(tags: Mapping[str, str]) -> Move | None:
    """The move that a model's tags announce; one that cannot be read is none."""
    try:
        raw: Any = json.loads(tags[MOVE])
        return Move(**raw)
    except (KeyError, ValueError, TypeError):
        return None


def _announce(client: MlflowClient, model: str, move: Move) -> None:
    client.set_registered_model_tag(model, MOVE, json.dumps(asdict(move)))


def _end(client: MlflowClient, model: str, move: Move) -> None:
    """What a move still needs; each write again changes nothing."""
    if move.kind == "rollback":
        if move.champion is not None and move.champion != move.to:
            client.set_model_version_tag(model, move.champion, WITHDRAWN, move.note)
        client.set_registered_model_alias(model, CHAMPION, move.to)
        before = client.get_model_version(model, move.to).tags.get(REPLACED) or None
        _point(client, model, PREVIOUS, before)
    if WITHDRAWN in client.get_model_version(model, move.to).tags:  # a person had a reason, or it were not live again
        client.delete_model_version_tag(model, move.to, WITHDRAWN)
    challenger = number_of(alias_version(client, model, CHALLENGER))
    if challenger is not None and (move.kind == "rollback" or challenger == move.to):
        client.delete_registered_model_alias(model, CHALLENGER)
    client.delete_registered_model_tag(model, MOVE)


def _point(client: MlflowClient, model: str, alias: str, version: str | None) -> None:
    if version is not None and _is_there(client, model, version):
        client.set_registered_model_alias(model, alias, version)
    elif alias_version(client, model, alias) is not None:
        client.delete_registered_model_alias(model, alias)


def _is_there(client: MlflowClient, model: str, version: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version(model, version).current_stage != "Deleted_Internal"
    except MlflowException as error:
        if error.error_code in ABSENT:
            return False
        raise
