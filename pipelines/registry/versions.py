"""Stage register: complete the runs, then make the version and, when it earned one, its alias; each of them once."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.files import read_json, write_json
from pipelines.params.data import template_fields
from pipelines.params.whole import Params
from pipelines.project.lineage import UNKNOWN, in_experiment, lineage_tags, package_version
from pipelines.registry.history import Facts, StageFiles, complete_runs, evaluation_metrics, read_facts
from pipelines.runtime.process import locked
from pipelines.tracking.runs import Run, Store, open_store, store_errors
from pipelines.tracking.store import public_uri, unreachable

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

log = logging.getLogger(__name__)

CHAMPION, CHALLENGER = "champion", "challenger"
ADAPTER = "reft.adapter_sha256"  # the tag that keys a version
REGISTRY_LOCK, LOCK_SECONDS = "registry", 120.0
ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # what stores say of an alias that is not there
SERVING = ("mlflow", "peft", "reft-pipeline", "safetensors", "torch", "transformers")
EXAMPLE = "An example text."


@dataclass(frozen=True)
class Registration:
    """What registration.json holds beside its format number; ``alias`` is None for a version without one."""

    model: str
    version: int
    alias: str | None
    run_id: str
    adapter_sha256: str
    tracking_uri: str
    model_uri: str


def run(
    params: Params, *, root: Path, base: Path, prepared: Path, card: Path, search: Path, search_metrics: Path,
    adapter: Path, train_metrics: Path, train_plots: Path, evaluation: Path, predictions: Path, evaluate_plots: Path,
    out: Path,
) -> Registration:  # fmt: skip
    """Complete the runs, make the version if this adapter has none, give it its alias, then write registration.json.

    Raises:
        PipelineError: if a file is missing, the adapter is not the one that was measured, or the store does not answer.
    """
    files = StageFiles(
        base=base, prepared=prepared, card=card, search=search, search_metrics=search_metrics, adapter=adapter,
        train_metrics=train_metrics, train_plots=train_plots, evaluation=evaluation, predictions=predictions,
        evaluate_plots=evaluate_plots,
    )  # fmt: skip
    facts = read_facts(params, files)
    store = open_store(params, root)
    try:
        registration = _register(store, params, facts, root)
    except store_errors() as error:
        raise unreachable(store.uri, error, rule="the tracking store must take what register logs") from error
    write_json(out, {"format": 1, **asdict(registration)})
    return registration


def registered(params: Params, root: Path, registration: Path) -> bool:
    """Whether the version of registration.json is in the registry of params.yaml, with that adapter.

    Raises:
        PipelineError: if the store does not answer.
    """
    if not registration.is_file():
        return False
    raw = read_json(registration)
    model = params.register_.model
    if (raw.get("model"), raw.get("tracking_uri")) != (model, public_uri(params.tracking.uri)):
        return False
    store = open_store(params, root)
    from mlflow.exceptions import MlflowException

    try:
        version = store.client.get_model_version(model, str(raw["version"]))
    except MlflowException as error:
        if error.error_code in ABSENT:
            return False
        raise unreachable(store.uri, error) from error
    return bool(version.tags.get(ADAPTER) == raw["adapter_sha256"])


def alias_version(client: MlflowClient, model: str, alias: str) -> ModelVersion | None:
    """The version that an alias points to; None when there is no such alias, or its version has been deleted."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(model, alias)
    except MlflowException as error:
        if error.error_code in ABSENT:
            return None
        raise


def _register(store: Store, params: Params, facts: Facts, root: Path) -> Registration:
    model = params.register_.model
    pipeline = complete_runs(store, params, facts)
    with locked(root, REGISTRY_LOCK, wait_seconds=LOCK_SECONDS):
        version = _ensure_version(store, model, pipeline, facts, root)
        alias = place_alias(store.client, model, str(version), better=bool(facts.evaluation["better"]))
    return Registration(
        model=model,
        version=version,
        alias=alias,
        run_id=pipeline.id,
        adapter_sha256=facts.adapter_sha256,
        tracking_uri=public_uri(params.tracking.uri),
        model_uri=f"models:/{model}/{version}",
    )


def place_alias(client: MlflowClient, model: str, version: str, *, better: bool) -> str | None:
    """Make a version that beats the base the champion, if there is none, or else the challenger.

    A champion stays one: only a promotion replaces it. In an experiment of DVC nothing moves. The registry lock is the
    caller's, since MLflow's aliases have no compare-and-set.

    Returns:
        The alias that the version has now.
    """
    champion, challenger = alias_version(client, model, CHAMPION), alias_version(client, model, CHALLENGER)
    challenges = challenger is not None and str(challenger.version) == version
    if champion is not None and str(champion.version) == version:
        return CHAMPION
    if in_experiment():
        log.info("this is an experiment of DVC: no alias moves")
        return CHALLENGER if challenges else None
    alias = (CHALLENGER if champion is not None else CHAMPION) if better else None
    if challenges and alias != CHALLENGER:
        client.delete_registered_model_alias(model, CHALLENGER)
    if alias is not None:
        client.set_registered_model_alias(model, alias, version)
    return alias


def _ensure_version(store: Store, model: str, pipeline: Run, facts: Facts, root: Path) -> int:
    """The version that carries this adapter, made if there is none; its figures are brought up to date."""
    chain, figures = version_tags(facts, root), _figure_tags(facts)
    found = find_version(store.client, model, facts.adapter_sha256)
    if found is None:
        _ensure_model(store.client, model)
        model_id = _ensure_logged_model(store, model, pipeline, facts)
        made = store.client.create_model_version(
            model, f"models:/{model_id}", pipeline.id, tags={**chain, **figures}, model_id=model_id
        )
        return int(made.version)
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
    client = open_store(params, root).client
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


def _ensure_model(client: MlflowClient, model: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(model)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _ensure_logged_model(store: Store, name: str, pipeline: Run, facts: Facts) -> str:
    """The id of the adapter as an MLflow model; one that a killed register finished is taken again."""
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    client = store.client
    where = f"tags.`{ADAPTER}` = '{facts.adapter_sha256}'"
    for earlier in client.search_logged_models([store.experiment_id], filter_string=where):
        if earlier.status == LoggedModelStatus.READY:
            return str(earlier.model_id)
    made = client.create_logged_model(
        store.experiment_id, name, source_run_id=pipeline.id, tags={ADAPTER: facts.adapter_sha256}
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        save_pyfunc(path, facts.files, model_id=made.model_id, run_id=pipeline.id)
        client.log_model_artifacts(made.model_id, str(path))
    client.finalize_logged_model(made.model_id, LoggedModelStatus.READY)
    client.log_outputs(pipeline.id, [LoggedModelOutput(made.model_id, step=0)])
    return str(made.model_id)


def save_pyfunc(path: Path, files: StageFiles, *, model_id: str, run_id: str) -> None:
    """Write the adapter and the base's record as an MLflow model from code: no pickle, no weights of the base.

    MLflow loads it and answers the example once, so a model that cannot answer is never registered.
    """
    import mlflow.pyfunc
    from mlflow.models import Model

    example, metadata = _input(files.adapter)
    mlflow.pyfunc.save_model(
        path=str(path),
        mlflow_model=Model(model_uuid=model_id, model_id=model_id, run_id=run_id),
        python_model=str(resources.files("pipelines.serving").joinpath("pyfunc.py")),
        artifacts={"adapter": str(files.adapter.resolve()), "base": str(files.base.resolve())},
        pip_requirements=requirements(),
        input_example=[example],
        metadata=metadata,
    )


def _input(adapter: Path) -> tuple[str, dict[str, str] | None]:
    """One input as the model takes it, and what MLflow's signature, a list of strings, cannot say of it.

    An input is a text, or a JSON object of texts where the template has several columns. Where the adapter reads a
    domain, the object has that too, here one that it was trained on.
    """
    from reft.adapters.any_method import read_info, read_method  # load torch, which the flow's process does without
    from reft.peers.methods import TimeLoraConfig

    prompt, config = read_info(adapter).prompt, read_method(adapter)
    values: dict[str, object] = dict.fromkeys(template_fields(str(prompt["template"])), EXAMPLE)
    if not isinstance(config, TimeLoraConfig):
        return EXAMPLE if len(values) == 1 else json.dumps(values), None
    column = str(prompt["domain_column"])
    values[column] = config.low
    texts = ", ".join(name for name in values if name != column)
    said = f"JSON objects of the texts {texts} and the number {column}, the domain: trained on {config.low:g} to "
    return json.dumps(values), {"input": f"{said}{config.high:g}, beyond which the nearer end is taken"}


def requirements() -> list[str]:
    """What a server of the model needs, as installed here."""
    return [name if (got := package_version(name)) == UNKNOWN else f"{name}=={got}" for name in SERVING]


def version_tags(facts: Facts, root: Path) -> dict[str, str]:
    """The whole chain from code and data to this version."""
    return {
        **lineage_tags(root),
        ADAPTER: facts.adapter_sha256,
        "base.sha256": facts.base.sha256,
        "base.source": facts.base.source,
        "data.sha256": facts.data_sha256,
        "data.source": facts.data_source,
        "optuna.study": str(facts.train["study"]),
        "optuna.trial": str(facts.train["trial"]),
    }


def _figure_tags(facts: Facts) -> dict[str, str]:
    evaluation: Mapping[str, object] = facts.evaluation
    flat = {f"evaluation.{key}": str(value) for key, value in evaluation_metrics(facts.evaluation).items()}
    return {**flat, "evaluation.rows": str(evaluation["rows"]), "evaluation.better": str(evaluation["better"]).lower()}
