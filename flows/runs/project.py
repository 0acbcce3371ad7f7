"""What a clone needs once before its first run; safe to repeat."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from flows.runs import dvc
from pipelines.__main__ import STAGES
from pipelines.errors import PipelineError
from pipelines.files import require_writable
from pipelines.params.whole import Params, load_params
from pipelines.project.code import check_graph, refresh_code
from pipelines.project.graph import read_graph
from pipelines.runtime.process import locked
from pipelines.tracking.store import check_store, check_trials

UNSET = (
    "Start it with `prefect server start`; or do without, by `unset PREFECT_API_URL` in the shell "
    "and `prefect config unset PREFECT_API_URL`."
)
REMOTE_FOLDER = "dvc-remote"  # git-ignored, beside dvc.yaml


@dataclass(frozen=True)
class SetupResult:
    """The name of DVC's default remote, and whether git knows who commits."""

    remote: str
    git_identity: bool


def check_ready(root: Path) -> Params:
    """Check what every run needs, before any work: a project, sound parameters, stores that answer.

    Raises:
        PipelineError: for the first of them that fails; in params.yaml, for every broken rule.
    """
    dvc.check_project(root)
    require_writable(root, do="Change its owner or mode, or work in a clone of your own.")
    check_graph(root)
    _check_stages(root)
    params = load_params(root / "params.yaml")
    check_store(params.tracking, root)
    check_trials(params.search.storage, root)
    return params


def _check_stages(root: Path) -> None:
    """Refuse a dvc.yaml that lacks a stage, as one that was cut does: what it still holds may well be YAML."""
    named = {stage.name for stage in read_graph(root).stages}
    missing = [name for name in STAGES if name not in named]
    if missing:
        raise PipelineError(
            "dvc.yaml must have every stage",
            got=f"none called {', '.join(missing)}",
            do="Take the last good one: git checkout HEAD dvc.yaml.",
        )


def check_free(root: Path, params: Params) -> None:
    """Make sure that no other run works in the project; wait ``run.wait_seconds`` for one that does.

    The lock is let go again: the flow takes it, and is refused if another was quicker.

    Raises:
        BusyError: if the other run does not end in that time.
    """
    with locked(root, "run", wait_seconds=params.run.wait_seconds):
        pass


def check_prefect() -> None:
    """Make sure, within some seconds, that a Prefect server answers if one is set; without one a run starts its own.

    Not for a run that a worker started: it has its server.

    Raises:
        PipelineError: if the server that is set does not answer, or there is no place for the database of its own.
    """
    from prefect.settings import get_current_settings

    from flows.runs.schedule import check_server  # Prefect takes seconds to import
    from flows.runs.server import server_address

    if server_address() is not None:
        check_server(do=UNSET)
    else:
        require_writable(get_current_settings().home, do="Set PREFECT_HOME to a folder of yours.")


def set_up(root: Path) -> SetupResult:
    """Give a project that has no DVC remote a folder of its own as one, in .dvc/config.local; refresh code.json.

    Raises:
        PipelineError: if git is missing or the folder is no project.
    """
    if shutil.which("git") is None:
        raise PipelineError("git must be installed", do="Install git and try again.")
    dvc.check_project(root)
    refresh_code(root)
    remotes = dvc.read(root, ["remote", "list"]).split()
    if not remotes:
        (root / REMOTE_FOLDER).mkdir(exist_ok=True)
        dvc.read(root, ["remote", "add", "--local", "--default", "local", REMOTE_FOLDER])
        remotes = ["local"]
    return SetupResult(remote=remotes[0], git_identity=has_git_identity(root))


def has_git_identity(root: Path) -> bool:
    """Whether git knows a name and an address to commit with; ``dvc exp run`` and commits need them."""
    done = subprocess.run(["git", "var", "GIT_COMMITTER_IDENT"], cwd=root, capture_output=True, check=False)
    return done.returncode == 0
