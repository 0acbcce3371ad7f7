"""The versions of a registered model with aliases, figures and ages, and where one of them comes from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pipelines.errors import PipelineError
from pipelines.registry.aliases import ABSENT, WITHDRAWN, alias_version
from pipelines.registry.stored import ADAPTER, BASE
from pipelines.tracking.runs import Store, store_errors
from pipelines.tracking.store import unreachable

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

CHAIN = {
    "adapter": ADAPTER,
    "trial": "optuna.trial",
    "study": "optuna.study",
    "rows": "data.sha256",
    "where the rows are from": "data.source",
    "base": BASE,
    "where the base is from": "base.source",
    "commit": "git.commit",
    "with changes that were not committed": "git.dirty",
    "dvc.lock": "dvc.lock_sha256",
    "Python": "python.version",
}


@dataclass(frozen=True)
class Listed:
    """A version in a list.

    Attributes:
        version: its number.
        aliases: that it has.
        value: of the measure on its test rows when it was registered; None if its tags do not say.
        lead: over the frozen base, there.
        made: when it was registered.
        gate: what the gate said of it last; "" if it was never asked.
        withdrawn: when a rollback took it out of use, and why; "" if none did.
    """

    version: int
    aliases: tuple[str, ...]
    value: float | None
    lead: float | None
    made: datetime
    gate: str
    withdrawn: str


def versions_of(store: Store, model: str, measure: str) -> list[Listed]:
    """All versions of a model, the newest first.

    Args:
        store: of the model.
        model: its name.
        measure: of the project's task, by which figures are named.
    """
    try:
        aliases: dict[str, list[str]] = {}
        for alias, number in _aliases(store, model).items():
            aliases.setdefault(str(number), []).append(alias)
        found = [_listed(each, aliases.get(str(each.version), []), measure) for each in all_versions(store, model)]
    except store_errors() as error:
        raise unreachable(store.uri, error) from error
    return sorted(found, key=lambda one: -one.version)


def lineage_of(store: Store, model: str, number: int) -> dict[str, str]:
    """Where a version comes from, by what each part is called, then the packages that made it.

    Raises:
        PipelineError: if there is no such version.
    """
    version = version_of(store, model, number)
    tags = version.tags
    packages = {name.removeprefix("package."): tags[name] for name in sorted(tags) if name.startswith("package.")}
    return {
        **{words: tags.get(name, "not known") for words, name in CHAIN.items()},
        "run in MLflow": str(version.run_id),
        **packages,
    }


def version_of(store: Store, model: str, number: int) -> ModelVersion:
    """A version by its number.

    Raises:
        PipelineError: if there is none, or the store does not answer.
    """
    try:
        return store.client.get_model_version(model, str(number))
    except store_errors() as error:
        if getattr(error, "error_code", None) in ABSENT:
            do = "`reft registry` lists its versions."
            raise PipelineError(f"{model} must have the version", got=number, do=do) from None
        raise unreachable(store.uri, error) from error


def _aliases(store: Store, model: str) -> dict[str, str]:
    from mlflow.exceptions import MlflowException

    try:
        return dict(store.client.get_registered_model(model).aliases)
    except MlflowException as error:
        if error.error_code in ABSENT:
            return {}
        raise


def all_versions(store: Store, model: str) -> Iterator[ModelVersion]:
    """All versions of a model; none where there is no such model."""
    token: str | None = None
    while token != "":
        page = store.client.search_model_versions(f"name = '{model}'", page_token=token)
        yield from page
        token = page.token or ""


def _listed(version: ModelVersion, aliases: list[str], measure: str) -> Listed:
    tags = version.tags
    said = {"": "", "true": "passed", "false": f"refused: {tags.get('gate.reasons', '')}"}
    return Listed(
        version=int(version.version),
        aliases=tuple(sorted(aliases)),
        value=_number(tags.get(f"evaluation.adapter.{measure}")),
        lead=_number(tags.get("evaluation.difference.value")),
        made=datetime.fromtimestamp(version.creation_timestamp / 1000, UTC),
        gate=said.get(tags.get("gate.promote", ""), ""),
        withdrawn=tags.get(WITHDRAWN, ""),
    )


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def live_version(store: Store, model: str, alias: str) -> int | None:
    """The number of the version that an alias points to; None for none.

    Raises:
        PipelineError: if the store does not answer.
    """
    try:
        found = alias_version(store.client, model, alias)
    except store_errors() as error:
        raise unreachable(store.uri, error) from error
    return None if found is None else int(found.version)
