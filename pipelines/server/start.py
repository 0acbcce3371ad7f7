"""A server from a project: its registry, the base of the version that is live, and the adapters on it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import uvicorn

from pipelines.bases.load import LoadedBase, load_base
from pipelines.contracts.base import read_base
from pipelines.errors import PipelineError
from pipelines.params.whole import Params
from pipelines.registry.download import VersionFiles
from pipelines.registry.live import LiveRegistry
from pipelines.runtime.device import resolve_device
from pipelines.server.app import create_app
from pipelines.server.classifier import Classifier
from pipelines.server.guard import LOCAL, Bounds
from pipelines.server.served import Served, load_served
from pipelines.server.service import Service
from pipelines.server.shelf import Follower, Registry, Shelf
from pipelines.tracking.traces import Traces
from reft import ConeConfig, set_cone
from reft.batching.engine import Engine, Limits
from reft.models.limits import longest_row

log = logging.getLogger(__name__)
TOKEN = "REFT_SERVE_TOKEN"  # noqa: S105  the name of a variable
GRACE_SECONDS = 10.0  # for an answer to be read, once its time to be written is over
STOP_SECONDS = 30  # for requests that run when the server is told to stop
HEADER_BYTES = 16 * 1024
CONNECTIONS = 1024  # at once; one more is answered 503


@dataclass(frozen=True)
class Asked:
    """What is to be served, and within which limits.

    Attributes:
        aliases: of the registered model; the first one's base is the one in memory.
        rows: prompts that are continued together.
        tokens: of a prompt and its answer.
        waiting: requests that wait.
        body_bytes: of a request.
        seconds: for an answer.
        body_seconds: for a request's body to come.
        poll_seconds: between two looks at the registry.
        adapters: versions that are kept beside those of the aliases.
    """

    aliases: tuple[str, ...]
    rows: int
    tokens: int
    waiting: int
    body_bytes: int
    seconds: float
    body_seconds: float
    poll_seconds: float
    adapters: int


@dataclass(frozen=True)
class Address:
    """Where a server listens, and the token that requests must bear; "" for none.

    Raises:
        PipelineError: if other machines could ask without a token.
    """

    host: str
    port: int
    token: str

    def __post_init__(self) -> None:
        if not self.token and self.host not in (*LOCAL, "::1"):
            raise PipelineError(
                "a server that other machines reach must ask for a token",
                got=f"--host {self.host}, and no {TOKEN} in the environment",
                do=f"Set {TOKEN}, or leave --host out.",
            )

    def bounds(self, asked: Asked) -> Bounds:
        """What a request may take."""
        return Bounds(
            token=self.token,
            hosts=() if self.token else LOCAL,
            body_bytes=asked.body_bytes,
            body_seconds=asked.body_seconds,
            seconds=asked.seconds + GRACE_SECONDS,
        )


class Versions(Registry, Protocol):
    """A registry whose versions can be loaded; :class:`LiveRegistry` is one."""

    def files(self, version: int) -> AbstractContextManager[VersionFiles]:
        """A version's files, for as long as the context is open."""


@contextmanager
def open_service(asked: Asked, params: Params, root: Path) -> Iterator[Service]:
    """Load the base and the aliases' versions, and follow the registry for as long as the context is open.

    Raises:
        PipelineError: if the registry does not answer, the first alias is not there, or its version cannot be served.
    """
    registry = LiveRegistry(params, root)
    first = registry.must_have(registry.aliases(), asked.aliases[0])
    with registry.files(first) as files:
        base = load_base(read_base(files.base), device=resolve_device("auto"), root=root)
    set_cone(base.model, ConeConfig(enabled=False))  # a prompt is not asked about again, so nothing of it is kept
    with open_shelf(asked, registry, base) as service:
        if asked.aliases[0] not in service.shelf.live:
            raise PipelineError(service.shelf.refusals[asked.aliases[0]].reason)
        yield service


@contextmanager
def open_shelf(asked: Asked, registry: Versions, base: LoadedBase) -> Iterator[Service]:
    """Serve what a registry has on a base that is there; see :func:`open_service`."""
    columns = min(asked.tokens, longest_row(base.model) or asked.tokens)
    limits = Limits(asked.rows, columns, asked.rows * columns, max(columns, 2048), asked.waiting)
    try:
        engine = Engine(base.model, limits)
    except ValueError as error:
        do = "Serve another base, or ask this one by `reft predict` and `mlflow models serve`, which batch nothing."
        raise PipelineError("prompts of one batch must not change each other's answers", got=error, do=do) from None

    def load(version: int) -> Served:
        with registry.files(version) as files:
            return load_served(version, files, base, engine, longest=columns)

    shelf = Shelf(registry, load, aliases=asked.aliases, most=asked.adapters)
    shelf.follow()
    follower = Follower(shelf, asked.poll_seconds)
    try:
        with ThreadPoolExecutor(1, thread_name_prefix="loading") as loading:
            yield Service(engine, base, shelf, asked.seconds, Classifier(engine, base.tokenizer), loading)
    finally:
        follower.close()
        engine.close()


def serve(service: Service, asked: Asked, address: Address, traces: Traces | None = None) -> None:
    """Answer requests until the process is told to stop; those that run then are answered first."""
    app = create_app(service, address.bounds(asked), traces)
    config = uvicorn.Config(
        app,
        host=address.host,
        port=address.port,
        log_level="warning",
        access_log=False,
        server_header=False,
        h11_max_incomplete_event_size=HEADER_BYTES,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=STOP_SECONDS,
        http="h11",
        ws="none",
        lifespan="off",
    )
    uvicorn.Server(config).run()
