"""A server of three versions, in process; its engine is the tests' own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from pipelines.server.app import create_app
from pipelines.server.service import Service
from pipelines.server.start import Address, Asked, open_shelf
from tests.pipelines.server.folders import FolderRegistry, tiny_base

LIVE = {"champion": 1, "challenger": 3}
ASKED = Asked(
    aliases=tuple(LIVE), rows=8, tokens=96, waiting=64, body_bytes=20_000, seconds=60.0,
    body_seconds=0.3, poll_seconds=3600.0, adapters=2,
)  # fmt: skip


@pytest.fixture(scope="package")
def folders(tmp_path_factory: pytest.TempPathFactory) -> FolderRegistry:
    """The versions."""
    return FolderRegistry(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="package")
def opened(folders: FolderRegistry) -> Iterator[Service]:
    """What answers."""
    folders.live = dict(LIVE)
    with open_shelf(ASKED, folders, tiny_base()) as service:
        yield service


@pytest.fixture
def registry(folders: FolderRegistry) -> FolderRegistry:
    """The versions, of which 1 is champion and 3 challenger."""
    folders.live = dict(LIVE)
    return folders


@pytest.fixture
def service(opened: Service, registry: FolderRegistry) -> Service:
    """What answers, serving those."""
    opened.shelf.follow()
    assert {alias: served.version for alias, served in opened.shelf.live.items()} == registry.live
    return opened


@pytest.fixture
def client(service: Service) -> TestClient:
    """Asks it from this machine."""
    return client_of(service)


def client_of(service: Service, *, token: str = "") -> TestClient:
    """Asks a service behind the bounds of an address."""
    app = create_app(service, Address("127.0.0.1", 0, token).bounds(ASKED))
    return TestClient(app, base_url="http://localhost", raise_server_exceptions=False)
