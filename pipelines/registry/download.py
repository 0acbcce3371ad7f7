"""A version of the registry as files: its adapter, its base's record and its figures."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipelines.contracts.evaluation import Evaluation, read_evaluation
from pipelines.contracts.identities import Seen, read_seen
from pipelines.errors import PipelineError
from pipelines.params.whole import Params
from pipelines.registry.aliases import ABSENT
from pipelines.registry.history import SEEN
from pipelines.registry.stored import ADAPTER
from pipelines.tracking.runs import Store, open_store, store_errors
from pipelines.tracking.store import unreachable
from reft.adapters.files import adapter_sha256

PREFIX = "models:/"
_SHORT = re.compile(r"[0-9]+|@[^/@]+")
_ADDRESS = re.compile(r"models:/(?P<model>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<number>\d+))")


@dataclass(frozen=True)
class VersionFiles:
    """What a version holds.

    Attributes:
        adapter: the adapter directory.
        base: base.json.
        evaluation: what metrics/evaluation.json held, or None if its run has none.
        training: parameters of its run.
        data_source: the address of the data.
        number: of the version.
        seen: what it was made with; None if its run does not say, as of a version of an earlier release.
    """

    adapter: Path
    base: Path
    evaluation: Evaluation | None
    training: Mapping[str, str]
    data_source: str | None
    number: int
    seen: Seen | None


def is_version(name: str) -> bool:
    """Whether a name is a version's, as people write it: 3, @champion, or an address of the registry."""
    return name.startswith(PREFIX) or _SHORT.fullmatch(name) is not None


def version_address(name: str, model: str) -> str:
    """The address of what :func:`is_version` knows; a short name is of ``model``."""
    if name.startswith(PREFIX):
        return name
    return f"{PREFIX}{model}{name}" if name.startswith("@") else f"{PREFIX}{model}/{name}"


def fetch_version(address: str, into: Path, *, params: Params, root: Path) -> VersionFiles:
    """Copy a version's files out of the registry of params.yaml.

    Args:
        address: ``models:/NAME@ALIAS`` or ``models:/NAME/NUMBER``.
        into: an empty folder.
        params: all of params.yaml; the section ``tracking`` is used.
        root: the project's root.

    Raises:
        PipelineError: for another address, a version that is not there or not of this project, or a store that does
            not answer.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None:
        do = "Write models:/reft-adapter@champion or models:/reft-adapter/3."
        raise PipelineError("a version is models:/NAME@ALIAS or models:/NAME/NUMBER", got=address, do=do)
    store = open_store(params.tracking, root)
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    try:
        if match["alias"]:
            version = store.client.get_model_version_by_alias(match["model"], match["alias"])
        else:
            version = store.client.get_model_version(match["model"], match["number"])
        uri = f"models:/{version.name}/{version.version}"
        folder = Path(download_artifacts(artifact_uri=uri, dst_path=str(into), tracking_uri=store.uri))
        run = store.client.get_run(version.run_id)
        names = {Path(file.path).name for file in store.client.list_artifacts(version.run_id, "evaluation")}
        evaluation = None
        if "evaluation.json" in names:
            path = store.client.download_artifacts(version.run_id, "evaluation/evaluation.json", str(into))
            evaluation = read_evaluation(Path(path))
        seen = _seen(store, version.run_id, into)
    except MlflowException as error:
        if error.error_code in ABSENT:
            raise _absent(store, match, address) from None
        raise unreachable(store.uri, error) from error
    except store_errors() as error:
        raise unreachable(store.uri, error) from error
    adapter, base = folder / "artifacts" / "adapter", folder / "artifacts" / "base.json"
    if not adapter.is_dir() or not base.is_file():
        raise PipelineError("a version must hold an adapter and its base's record", got=address, do="Name another.")
    _check_adapter(adapter, version.tags.get(ADAPTER), address)
    source = version.tags.get("data.source")
    return VersionFiles(adapter, base, evaluation, dict(run.data.params), source, int(version.version), seen)


def _seen(store: Store, run: str, into: Path) -> Seen | None:
    names = {Path(file.path).name for file in store.client.list_artifacts(run, "data")}
    return read_seen(Path(store.client.download_artifacts(run, f"data/{SEEN}", str(into)))) if SEEN in names else None


def _check_adapter(adapter: Path, registered: str | None, address: str) -> None:
    """Refuse files that are not those that were registered."""
    try:
        found = adapter_sha256(adapter)
    except ValueError as error:
        found = str(error)
    if registered is not None and found != registered:
        raise PipelineError(
            f"the adapter of {address} must be the one that was registered, {registered}",
            got=found,
            do="In the project that made it, `reft run` puts its files into the registry again.",
        )


def _absent(store: Store, match: re.Match[str], address: str) -> PipelineError:
    """Say what there is: no version is champion unless it passed the gate."""
    known = sorted(int(found.version) for found in store.client.search_model_versions(f"name = '{match['model']}'"))
    if match["alias"] is None or not known:
        return PipelineError("the version must be in the registry", got=address, do=f"{_said(known)}")
    return PipelineError(
        f"no version of {match['model']} has the alias {match['alias']}: champion is one that passed the gate, which "
        "`reft run` and `reft promote` ask",
        got=address,
        do=f"{_said(known)}, as models:/{match['model']}/{known[-1]}",
    )


def _said(known: list[int]) -> str:
    return f"Name one of its versions: {', '.join(map(str, known))}" if known else "Run `reft run`, which makes one."
