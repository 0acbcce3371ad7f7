"""What a run is called on Prefect's pages: its project's folder, and when it has ended what came out."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.runtime import flow_run

from flows.runs.server import UNREACHABLE, wait_until_up
from pipelines.contracts.evaluation import Evaluation
from pipelines.contracts.training import TrainResult
from pipelines.wording import points, recipe_words, share


def project_name() -> str:
    """The name of the flow run that begins: of the project that it works in."""
    return Path(str(flow_run.parameters.get("project", "."))).resolve().name


def rename_run(name: str) -> None:
    """Call the run that works in this process otherwise from now on; a server that does not take it fails no run."""
    wait_until_up()
    try:
        with get_client(sync_client=True) as client:
            client.update_flow_run(UUID(flow_run.id), name=name)
    except UNREACHABLE as error:
        get_run_logger().warning("the run keeps its name: %s", error)


def outcome_title(project: str, evaluation: Evaluation, train: TrainResult) -> str:
    """The project, how its adapter fares beside the base, and the recipe that was chosen for it."""
    found = share(evaluation.adapter.value)
    lead = points(evaluation.difference.value)
    recipe = recipe_words(train.chosen)
    return f"{project}: {found}, {lead}" + (f", {recipe}" if recipe else "")
