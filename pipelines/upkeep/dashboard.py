"""The study in the browser: optuna-dashboard, an optional package, on this machine alone."""

from __future__ import annotations

import socket
from pathlib import Path

from pipelines.errors import PipelineError
from pipelines.params.whole import Params
from pipelines.search.study import study_sizes
from pipelines.tracking.store import trials_uri

HOST = "127.0.0.1"  # it asks nobody for a password


def serve(params: Params, root: Path, *, port: int) -> None:
    """Serve the pages of all studies in search.storage until Ctrl-C; trials that run appear as they go.

    Args:
        params: the whole of params.yaml.
        root: the project folder.
        port: where it listens.

    Raises:
        PipelineError: if optuna-dashboard is not installed, the port is taken, or the storage has no study.
    """
    try:
        from optuna_dashboard import run_server
    except ImportError as error:
        raise PipelineError(
            "--dashboard needs optuna-dashboard",
            got=error,
            do="In a clone: make setup. Elsewhere: pip install 'WHEEL[dashboard]', the file that make wheel makes.",
        ) from None
    if not study_sizes(params.search.storage, root):
        raise PipelineError("search.storage must hold a study to show", got="none", do="Start one: reft search")
    _check_port(port)
    run_server(trials_uri(params.search.storage, root), host=HOST, port=port)


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise PipelineError(
                f"port {port} must be free", got=error.strerror, do="Name another one with --port."
            ) from None
