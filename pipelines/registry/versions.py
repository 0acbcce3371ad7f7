"""Stage register: complete the runs, then make the version and, when it earned one, its alias; each of them once."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.contracts.registration import read_registration
from pipelines.errors import PipelineError
from pipelines.params.whole import Params
from pipelines.project.lineage import lineage_tags
from pipelines.registry.aliases import ABSENT
from pipelines.registry.facts import Facts
from pipelines.registry.history import evaluation_metrics
from pipelines.registry.package import save_pyfunc
from pipelines.registry.stored import ADAPTER, BASE, holds, model_id
from pipelines.tracking.runs import Run, Store, open_store
from pipelines.tracking.store import public_uri, unreachable

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


log = logging.getLogger(__name__)


def registered(params: Params, root: Path, registration: Path) -> bool:
    """Whether the version of registration.json is in the registry of params.yaml, and its files are that adapter's.

    A registration.json that cannot be read is none: stage register writes it anew.

    Raises:
        PipelineError: if the store does not answer.
    """
    try:
        made = read_registration(registration)
    except PipelineError:
        return False
    model = params.register_.model
    if (made.model, made.tracking_uri) != (model, public_uri(params.tracking.uri)):
        return False
    store = open_store(params.tracking, root)
    from mlflow.exceptions import MlflowException

    try:
        version = store.client.get_model_version(model, str(made.version))
        return bool(version.tags.get(ADAPTER) == made.adapter_sha256) and _files_are_there(store, version)
    except MlflowException as error:
        if error.error_code in ABSENT:
            return False
        raise unreachable(store.uri, error) from error


def _files_are_there(store: Store, version: ModelVersion) -> bool:
    tags = version.tags
    if holds(store.client, model_id(version), tags[ADAPTER], tags.get(BASE)):
        return True
    log.warning("version %s of %s has not the files that were registered", version.version, version.name)
    return False


def ensure_version(store: Store, model: str, pipeline: Run, facts: Facts, root: Path) -> int:
    """The version that carries this adapter, made if there is none; its figures are brought up to date.

    The registry's lock is the caller's.
    """
    chain, figures = version_tags(facts, root), _figure_tags(facts)
    found = find_version(store.client, model, facts.adapter_sha256)
    if found is None:
        logged = _ensure_logged_model(store, model, pipeline, facts)
        made = store.client.create_model_version(
            model, f"models:/{logged}", pipeline.id, tags={**chain, **figures}, model_id=logged
        )
        return _only_version(store.client, model, facts.adapter_sha256, str(made.version))
    if not _files_are_there(store, found):
        _put_files(store, model_id(found), pipeline, facts)
    # The same bits from a clean commit tell more than the first registration from a dirty tree did.
    cleaner = found.tags.get("git.dirty") != "false" and chain["git.dirty"] == "false"
    for key, value in {**(chain if cleaner else {}), **figures}.items():
        if found.tags.get(key) != value:
            store.client.set_model_version_tag(model, found.version, key, value)
    return int(found.version)


@dataclass(frozen=True)
class References:
    """What the versions in the registry come from: bases by sha256, studies by name."""

    bases: frozenset[str]
    studies: frozenset[str]


def referenced(params: Params, root: Path) -> References:
    """What some version of some model in the registry refers to.

    Raises:
        PipelineError: if the tracking store does not answer.
    """
    client = open_store(params.tracking, root).client
    tags: list[Mapping[str, str]] = []
    token: str | None = None
    while token != "":
        page = client.search_model_versions(page_token=token)
        tags += [version.tags for version in page]
        token = page.token or ""
    bases, studies = ({tag[key] for tag in tags if key in tag} for key in ("base.sha256", "optuna.study"))
    return References(frozenset(bases), frozenset(studies))


def find_version(client: MlflowClient, model: str, adapter_sha256: str) -> ModelVersion | None:
    """The first version of the model that carries this adapter."""
    found = client.search_model_versions(f"name = '{model}' AND tags.`{ADAPTER}` = '{adapter_sha256}'")
    return min(found, key=lambda version: int(version.version), default=None)


def _only_version(client: MlflowClient, model: str, adapter_sha256: str, made: str) -> int:
    """The adapter's first version; one that was made beside it, by who knows no lock or asked twice, is taken back."""
    first = find_version(client, model, adapter_sha256)
    if first is None or str(first.version) == made:
        return int(made)
    client.delete_model_version(model, made)
    return int(first.version)


def _ensure_logged_model(store: Store, name: str, pipeline: Run, facts: Facts) -> str:
    """The id of the adapter as an MLflow model; one that a killed register finished is taken again."""
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    client = store.client
    where = f"tags.`{ADAPTER}` = '{facts.adapter_sha256}'"
    for earlier in client.search_logged_models([store.experiment_id], filter_string=where):
        if earlier.status == LoggedModelStatus.READY and holds(
            client, earlier.model_id, facts.adapter_sha256, facts.base.sha256
        ):
            return str(earlier.model_id)
    made = client.create_logged_model(
        store.experiment_id, name, source_run_id=pipeline.id, tags={ADAPTER: facts.adapter_sha256}
    )
    _put_files(store, str(made.model_id), pipeline, facts)
    client.finalize_logged_model(made.model_id, LoggedModelStatus.READY)
    client.log_outputs(pipeline.id, [LoggedModelOutput(made.model_id, step=0)])
    return str(made.model_id)


def _put_files(store: Store, logged_model: str, pipeline: Run, facts: Facts) -> None:
    """Put the files of the adapter as an MLflow model into the store; the same names are replaced."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        save_pyfunc(path, facts.files, model_id=logged_model, run_id=pipeline.id)
        store.client.log_model_artifacts(logged_model, str(path))


def version_tags(facts: Facts, root: Path) -> dict[str, str]:
    """The whole chain from code and data to this version."""
    return {
        **lineage_tags(root),
        ADAPTER: facts.adapter_sha256,
        BASE: facts.base.sha256,
        "base.source": facts.base.source,
        "data.sha256": facts.data_sha256,
        "data.source": facts.data_source,
        "optuna.study": facts.train.study,
        "optuna.trial": str(facts.train.trial),
    }


def _figure_tags(facts: Facts) -> dict[str, str]:
    evaluation = facts.evaluation
    flat = {f"evaluation.{key}": str(value) for key, value in evaluation_metrics(evaluation).items()}
    return {**flat, "evaluation.rows": str(evaluation.rows), "evaluation.better": str(evaluation.better).lower()}
