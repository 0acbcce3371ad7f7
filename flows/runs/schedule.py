"""``reft schedule``: put the flow on a Prefect server's schedule, from prefect.yaml."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx2
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectNotFound
from prefect.workers.process import ProcessWorker

from flows.runs import dvc
from flows.runs.server import server_address
from pipelines.errors import PipelineError
from pipelines.files import write_text
from pipelines.roundtrip import dump_document, load_document, set_section
from pipelines.runtime.process import work_folder
from pipelines.yaml_file import read_yaml

PING_SECONDS = 5.0
WANTS_KEY = (401, 403)
START = (
    "Start one with `prefect server start`, and say where it is: "
    "`prefect config set PREFECT_API_URL=http://127.0.0.1:4200/api`."
)


@dataclass(frozen=True)
class Scheduled:
    """What was deployed, where to, and when it runs (cron, UTC)."""

    deployment: str
    api: str
    pool: str
    pool_is_new: bool
    crons: list[str]


def schedule(root: Path, *, name: str, pool: str, cron: str | None, replace: bool = False) -> Scheduled:
    """Make the process work pool if there is none, and deploy the flow; doing it again brings both up to date.

    Args:
        root: the project folder.
        name: of the deployment.
        pool: the work pool, from which a worker takes the runs.
        cron: when to run, in UTC; None: as prefect.yaml says.
        replace: whether the deployment may be another project's, which is then on the schedule no longer.

    Raises:
        PipelineError: without a project, prefect.yaml or a server that answers; for a cron that is none, or a name that
            is another project's.
    """
    dvc.check_project(root)
    if not (root / "prefect.yaml").is_file():
        raise PipelineError("a scheduled project must hold prefect.yaml", got=root, do="Take it from this repository.")
    if cron is not None:
        _check_cron(cron)
    api = check_server()
    if not replace:
        _check_free(root, name)
    is_new = _ensure_pool(pool)
    _deploy(root, name, pool, cron)
    with get_client(sync_client=True) as client:
        made = client.read_deployment_by_name(f"finetune/{name}")
    crons = [s.schedule.cron for s in made.schedules if isinstance(s.schedule, CronSchedule)]
    return Scheduled(f"finetune/{name}", api, pool, is_new, crons)


def check_server(*, do: str = START) -> str:
    """The address of the Prefect server that is set and answers.

    Args:
        do: what to say to somebody whose server does not answer.

    Raises:
        PipelineError: if none is set (a flow then starts a server for itself, which keeps no schedule) or answers.
    """
    api = server_address()
    if api is None:
        raise PipelineError("a schedule needs a Prefect server", got="no PREFECT_API_URL", do=START)
    try:
        answer = httpx2.get(f"{api.rstrip('/')}/health", timeout=PING_SECONDS)
        if answer.status_code not in WANTS_KEY:  # those are answers too: Prefect's client, not this look, has the key
            answer.raise_for_status()
    except httpx2.HTTPError as error:
        raise PipelineError("the Prefect server must answer", got=f"{api}: {error}", do=do) from None
    return api


def _check_cron(cron: str) -> None:
    try:
        CronSchedule(cron=cron, timezone="UTC")
    except ValueError:
        raise PipelineError(
            "a cron is minute, hour, day of month, month and day of week", got=cron, do='For one: "0 3 * * 1".'
        ) from None


def _with_cron(root: Path, cron: str) -> Path:
    """Write a prefect.yaml with that cron; Prefect's own --cron would add a schedule to that of the file.

    The slug is kept, since Prefect replaces a schedule by one of the same slug and keeps any other. All else stays as
    it is written: Prefect reads it by YAML 1.1, and this project reads 1.2.

    Raises:
        PipelineError: if a deployment of the file has no schedule.
    """
    read_yaml(root / "prefect.yaml")  # refuses what a safe reader must not take
    document = load_document((root / "prefect.yaml").read_text(encoding="utf-8"))
    try:
        for deployment in document["deployments"]:
            schedules = deployment["schedules"]
            set_section(schedules[0], {"cron": cron, "timezone": "UTC", "active": True})
            while len(schedules) > 1:
                schedules.pop()
    except (KeyError, IndexError, TypeError):
        raise PipelineError(
            "each deployment in prefect.yaml must have a schedule that --cron can move",
            got=root / "prefect.yaml",
            do="Give it `schedules` with one entry, as in this repository.",
        ) from None
    path = work_folder(root) / "prefect.yaml"
    write_text(path, dump_document(document))
    return path


def _check_free(root: Path, name: str) -> None:
    """Refuse the name of another project's deployment: Prefect would put this project in its place."""
    with get_client(sync_client=True) as client:
        try:
            other = client.read_deployment_by_name(f"finetune/{name}").parameters.get("project")
        except ObjectNotFound:
            return
    if other is not None and Path(other).resolve() != root.resolve():
        raise PipelineError(
            "a deployment belongs to one project",
            got=f"finetune/{name}, which runs {other}",
            do=f"Give this one another name: --name {root.resolve().name}. Or take that one's place: --replace.",
        )


def _ensure_pool(pool: str) -> bool:
    """Whether the pool had to be made."""
    with get_client(sync_client=True) as client:
        try:
            found = client.read_work_pool(pool)
        except ObjectNotFound:
            template = ProcessWorker.get_default_base_job_template()
            client.create_work_pool(WorkPoolCreate(name=pool, type="process", base_job_template=template))
            return True
    if found.type != "process":
        raise PipelineError(
            "the work pool must be of the type process", got=f"{pool}, a {found.type} pool", do="Name another: --pool."
        )
    return False


def _deploy(root: Path, name: str, pool: str, cron: str | None) -> None:
    file = root / "prefect.yaml" if cron is None else _with_cron(root, cron)
    command = [
        sys.executable, "-m", "prefect", "--no-prompt", "deploy",
        "--prefect-file", str(file), "--name", name, "--pool", pool,
    ]  # fmt: skip
    # The width keeps Prefect from breaking the lines of its error, of which the last is shown.
    env = os.environ | {"COLUMNS": "500", "NO_COLOR": "1"}
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise PipelineError(
            "prefect deploy must succeed", got=said[-1] if said else done.returncode, do="Is prefect.yaml as it was?"
        )
