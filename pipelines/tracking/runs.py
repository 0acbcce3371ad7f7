"""MLflow: where the store is, runs that are found again by their tags, and logging while a stage works.

Every call names its run, since MLflow's "active run" belongs to a thread. mlflow is imported inside the functions: it
takes seconds, and most commands never need it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipelines.errors import PipelineError
from pipelines.params.whole import TrackingParams
from pipelines.runtime.database_lock import database_lock, locks
from pipelines.tracking.moved import PROJECT, follow_project, own_database
from pipelines.tracking.store import check_store, store_uri, unreachable

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

log = logging.getLogger(__name__)

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]
PARENT, NOTE = "mlflow.parentRunId", "mlflow.note.content"  # MLflow's own tags: what nests a run, and describes it
STAGE, INPUT_HASH, CHILD = "reft.stage", "reft.input_hash", "reft.child"

LOCK_SECONDS = 120.0
BATCH = 1000  # metrics in one request; MLflow refuses more
BATCH_PARAMS = 100
DIGEST = 32  # characters of a data set's digest; MLflow refuses more than 36
MAX_VALUE = 5000  # characters of a tag's or parameter's value; MLflow refuses more than 6000
# MLflow's own (7 retries, two minutes each) let a stage hang for a quarter of an hour. A user's setting wins.
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # an adapter is a few files, and a bar each would bury the answer
    "GIT_PYTHON_REFRESH": "quiet",
}


@dataclass(frozen=True)
class Store:
    """An open tracking store with our experiment in it."""

    client: MlflowClient
    uri: str
    experiment_id: str


def open_store(tracking: TrackingParams, root: Path) -> Store:
    """Open the store, make its tables and our experiment if they are not there yet.

    Raises:
        PipelineError: if the store does not answer, or the experiment has been deleted.
    """
    check_store(tracking, root)
    uri = store_uri(tracking, root)
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import mlflow

        # What MLflow resolves by itself (a models:/ address, in creating a version) is resolved in its default store,
        # which is otherwise a database that it makes in the current folder.
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        # Two processes that make the tables at once break each other, from whichever folders; a server makes its own.
        with database_lock(uri, "tables", wait_seconds=LOCK_SECONDS) if locks(uri) else contextlib.nullcontext():
            follow_project(tracking, root)
            if locks(uri):
                _make_tables(uri, root)
            client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
            return Store(client, uri, _experiment(client, tracking, root))
    except store_errors() as error:
        raise unreachable(uri, error) from None


def _make_tables(uri: str, root: Path) -> None:
    """Make the tables of a database that has none, with MLflow's own experiment in them.

    MLflow would write the current folder, as that experiment's place, into a statement as Python shows a text: a quote
    or a colon in it breaks the statement. An address has neither.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    SqlAlchemyStore(uri, (root.resolve() / "mlruns").as_uri())


def store_errors() -> tuple[type[Exception], ...]:
    """What a store that fails raises: MLflow's own, the database's, the network's, a missing driver."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return (MlflowException, SQLAlchemyError, sqlite3.Error, OSError, ImportError)


def _experiment(client: MlflowClient, tracking: TrackingParams, root: Path) -> str:
    name = tracking.experiment
    found, tags = client.get_experiment_by_name(name), _own_tags(tracking, root)
    if found is None:
        found = _made_experiment(client, name, _artifacts(tracking, root), tags)
    if found.lifecycle_stage != "active":
        raise PipelineError(
            "the experiment must not be deleted",
            got=name,
            do=f"Run `mlflow experiments restore -x {found.experiment_id}`, or set tracking.experiment in params.yaml.",
        )
    for key, value in tags.items():
        if found.tags.get(key) != value:
            client.set_experiment_tag(found.experiment_id, key, value)
    return str(found.experiment_id)


def _made_experiment(client: MlflowClient, name: str, artifacts: str | None, tags: dict[str, str]) -> Experiment:
    """Make the experiment; one that another process has made in this moment is as good."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_experiment(client.create_experiment(name, artifact_location=artifacts, tags=tags))
    except MlflowException as error:
        found = client.get_experiment_by_name(name) if error.error_code == "RESOURCE_ALREADY_EXISTS" else None
        if found is None:
            raise
        return found


def _own_tags(tracking: TrackingParams, root: Path) -> dict[str, str]:
    """The tag that says which folder a store in the project is for."""
    return {} if own_database(tracking, root) is None else {PROJECT: root.resolve().as_uri()}


def _artifacts(tracking: TrackingParams, root: Path) -> str | None:
    if tracking.uri.startswith("http"):
        return None  # the server has its own
    return (root.resolve() / tracking.artifacts).as_uri()


@dataclass(frozen=True)
class Run:
    """One run of the store; a call that fails raises."""

    store: Store
    id: str

    def log_params(self, values: Mapping[str, object]) -> None:
        """Log those that are not there yet: MLflow's parameters cannot be changed, and a resumed run has its own."""
        from mlflow.entities import Param

        known = self.store.client.get_run(self.id).data.params
        new = [Param(key, str(value)[:MAX_VALUE]) for key, value in values.items() if key not in known]
        for start in range(0, len(new), BATCH_PARAMS):
            self.store.client.log_batch(self.id, params=new[start : start + BATCH_PARAMS])

    def log_metrics(self, values: Mapping[str, float], *, step: int = 0) -> None:
        """Log values of one step."""
        self.log_curve([(key, step, value) for key, value in values.items()])

    def log_curve(self, points: Sequence[tuple[str, int, float]]) -> None:
        """Log (key, step, value) points, as few requests as MLflow allows."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(key, value, now, step) for key, step, value in points]
        for start in range(0, len(metrics), BATCH):
            self.store.client.log_batch(self.id, metrics=metrics[start : start + BATCH])

    def add_missing(self, points: Sequence[tuple[str, int, float]]) -> None:
        """Log the (key, step, value) points that the run does not hold yet; a value that differs is logged as newer."""
        held: dict[tuple[str, int], float] = {}
        for key in dict.fromkeys(key for key, _, _ in points):
            held |= {(key, m.step): m.value for m in self.store.client.get_metric_history(self.id, key)}
        self.log_curve([point for point in points if held.get(point[:2]) != point[2]])

    def set_tags(self, values: Mapping[str, object]) -> None:
        """Set tags; an earlier value is replaced."""
        from mlflow.entities import RunTag

        self.store.client.log_batch(self.id, tags=[RunTag(k, str(v)[:MAX_VALUE]) for k, v in values.items()])

    def restart(self) -> None:
        """Mark the run as running, also when an earlier process has ended it."""
        self.store.client.update_run(self.id, status="RUNNING")

    def end(self, status: Status, *, seconds: float | None = None) -> None:
        """Give the run its last status; one that has it keeps its end time.

        Args:
            status: the last.
            seconds: how long the run took, where that is known; None: up to now.
        """
        info = self.store.client.get_run(self.id).info
        if info.status == status:
            return
        end = None if seconds is None else info.start_time + int(1000 * seconds)
        self.store.client.set_terminated(self.id, status, end_time=end)

    def seconds(self) -> float:
        """How long an ended run took."""
        info = self.store.client.get_run(self.id).info
        return (info.end_time - info.start_time) / 1000 if info.end_time else 0.0

    def describe(self, name: str, note: str) -> None:
        """Give the run a name and a description for MLflow's pages; it is found again by its tags, not by these."""
        self.store.client.update_run(self.id, name=name)
        self.set_tags({NOTE: note})

    def log_files(self, folder: str, paths: Sequence[Path]) -> None:
        """Put files, or all that lies in directories, into the run's artifacts; the same names are replaced."""
        for path in paths:
            if path.is_dir():
                self.store.client.log_artifacts(self.id, str(path), folder)
            else:
                self.store.client.log_artifact(self.id, str(path), folder)

    def has_dataset(self) -> bool:
        """Whether the run says which data it is made with."""
        return bool(self.store.client.get_run(self.id).inputs.dataset_inputs)

    def log_dataset(self, *, name: str, sha256: str, source: str, profile: str) -> None:
        """Log which data the run is trained on.

        The digest is ours: MLflow's own reads some columns of the first rows, and takes different data for the same.
        """
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(name, sha256[:DIGEST], source_type="reft", source=source, profile=profile)
        context = [InputTag("mlflow.data.context", "training")]
        self.store.client.log_inputs(self.id, datasets=[DatasetInput(dataset, context)])


def ensure_run(store: Store, name: str, tags: Mapping[str, object], *, seconds: float = 0.0) -> Run:
    """The run that carries all these tags, or else a new one; so a killed or repeated stage has one run, not two.

    Args:
        store: where to look.
        name: of a new run.
        tags: what it is found by.
        seconds: how long ago a new run began: what it stands for may be over already.
    """
    found = find_run(store, tags)
    if found is not None:
        return found
    texts = {key: str(value) for key, value in tags.items()}
    start = int(1000 * (time.time() - seconds))
    made = store.client.create_run(store.experiment_id, run_name=name, tags=texts, start_time=start)
    return Run(store, made.info.run_id)


def find_run(store: Store, tags: Mapping[str, object]) -> Run | None:
    """The oldest run (not deleted) that carries all these tags."""
    where = " AND ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    found = store.client.search_runs(
        [store.experiment_id], filter_string=where, order_by=["attributes.start_time ASC"], max_results=1
    )
    return Run(store, found[0].info.run_id) if found else None


def child_tags(parent: Run, name: str) -> dict[str, object]:
    """The tags by which a nested run is found again."""
    return {PARENT: parent.id, STAGE: "trial", CHILD: name}
