"""A new version is picked up while requests run; one that does not load or fails its example leaves the old one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from starlette.testclient import TestClient

from pipelines.contracts.base import write_record
from pipelines.errors import PipelineError
from pipelines.files import sha256_json
from pipelines.server.served import RefusedVersionError, Served, load_served
from pipelines.server.service import Service
from pipelines.server.shelf import Follower, Shelf, UnknownModelError
from reft import AdapterInfo, LayerOverride, ReftConfig, ReftModel
from reft.adapters.any_method import build_method, save_method
from reft.peers.lora import LoraConfig
from tests.pipelines.server.folders import PROMPT, FolderRegistry, tiny_base


def complete(client: TestClient, model: str) -> tuple[int, str]:
    body = {"model": model, "prompt": "a good film", "max_tokens": 12, "temperature": 0}
    response = client.post("/v1/completions", json=body)
    return response.status_code, response.json().get("system_fingerprint", "")


def test_a_promotion_and_a_rollback_fail_no_request(
    registry: FolderRegistry, service: Service, client: TestClient
) -> None:
    names = ["champion", "challenger", "base", "2"] * 12
    with ThreadPoolExecutor(12) as pool:
        running = [pool.submit(complete, client, name) for name in names]
        registry.live["champion"] = 2
        service.shelf.follow()
        promoted = [complete(client, "champion") for _ in range(2)]
        registry.live["champion"] = 1
        service.shelf.follow()
        back = complete(client, "champion")
        answers = [future.result(60) for future in running]
    assert {status for status, _ in answers} == {200}
    of_champion = {found[:3] for (_, found), name in zip(answers, names, strict=True) if name == "champion"}
    assert of_champion <= {"v1-", "v2-"}
    assert {(status, found[:3]) for status, found in promoted} == {(200, "v2-")}
    assert (back[0], back[1][:3]) == (200, "v1-")
    assert service.shelf.live["champion"].version == 1


def test_the_registry_is_followed_without_being_asked_to(registry: FolderRegistry, service: Service) -> None:
    follower = Follower(service.shelf, 0.02)
    registry.live["champion"] = 2
    until = time.monotonic() + 30
    while service.shelf.live["champion"].version != 2 and time.monotonic() < until:
        time.sleep(0.01)
    follower.close()
    assert service.shelf.live["champion"].version == 2


@contextmanager
def damaged(registry: FolderRegistry, version: int) -> Iterator[None]:
    """One byte of a version's adapter is another inside the context."""
    with registry.files(version) as files:
        file = files.adapter / "adapter.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        yield
    finally:
        file.write_bytes(content)


def test_a_version_that_does_not_load_is_refused_and_the_old_one_answers(
    registry: FolderRegistry, service: Service, client: TestClient
) -> None:
    with damaged(registry, 2):
        service.shelf._by_number = {}
        registry.live["champion"] = 2
        service.shelf.follow()
        assert complete(client, "champion")[1].startswith("v1-")
        assert client.get("/health").json()["status"] == "degraded"
        assert client.get("/health").json()["refused"] == {"champion": 2}
        assert "must have the sha256 in" in service.shelf.refusals["champion"].reason
        assert complete(client, "2")[0] == 503
    service.shelf.follow()  # too soon after the first try
    assert service.shelf.live["champion"].version == 1
    registry.live["champion"] = 1
    service.shelf.follow()
    assert client.get("/health").json()["status"] == "ok"


def test_a_registry_that_is_silent_leaves_what_is_served(
    service: Service, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent() -> dict[str, int]:
        raise PipelineError("the store must answer", got="nothing")

    monkeypatch.setattr(service.shelf._registry, "aliases", silent)
    service.shelf.follow()
    assert client.get("/health").json()["registry"] == "silent"
    assert complete(client, "champion")[0] == 200
    monkeypatch.undo()


def test_no_more_versions_are_kept_than_asked_for(registry: FolderRegistry, service: Service) -> None:
    loaded = []

    def load(version: int) -> Served:
        loaded.append(version)
        return replace(service.shelf.live["champion"], version=version)

    shelf = Shelf(registry, load, aliases=("champion",), most=1)
    shelf.follow()
    for name in ("2", "1", "2", "3", "3", "2"):
        assert getattr(shelf.open(name), "version", None) == int(name)
    assert loaded == [1, 2, 3, 2]  # 1 is there as champion
    assert shelf.names() == ["base", "champion", "1", "2"]
    for name in ("4", "04", "previous", "", "2 "):
        with pytest.raises(UnknownModelError):
            shelf.open(name)


def load(service: Service, registry: FolderRegistry, number: int) -> None:
    with registry.files(number) as files:
        load_served(number, files, service.base, service.engine, longest=96)


def test_an_adapter_that_fails_its_own_example_is_refused(registry: FolderRegistry, service: Service) -> None:
    base = tiny_base()
    model = ReftModel(base.model, ReftConfig((0,), "l1", 2, method="noreft"), seed=3)
    registry.save(11, model, base.record)
    load(service, registry, 11)
    with torch.no_grad():
        for value in model.trainable_parameters().values():
            value.fill_(3e38)  # finite, and their product is not
    registry.save(12, model, base.record)
    with pytest.raises(RefusedVersionError, match="scores must be numbers"):
        load(service, registry, 12)


def test_an_adapter_that_cannot_share_the_base_is_refused(registry: FolderRegistry, service: Service) -> None:
    base = tiny_base()
    spans = ReftConfig((0,), "l1", 2, overrides=(LayerOverride(0, positions="spans"),))
    registry.save(21, ReftModel(base.model, spans, seed=3), base.record)
    with pytest.raises(RefusedVersionError, match="each row names itself"):
        load(service, registry, 21)
    other = replace(base.record, files={"config.json": "c" * 64}, sha256=sha256_json({"config.json": "c" * 64}))
    registry.save(22, ReftModel(base.model, ReftConfig((0,), "l1", 2), seed=3), other)
    with pytest.raises(RefusedVersionError, match="start another server for it"):
        load(service, registry, 22)
    config = LoraConfig((0,), ("q_proj",), 2, 4.0)
    with registry.files(23) as files:
        save_method(
            build_method(base.model, config, seed=1),
            files.adapter,
            AdapterInfo(base.record.sha256, "", None, PROMPT, 1),
        )
        write_record(files.base, base.record)
    with pytest.raises(RefusedVersionError, match="got lora, another method"):
        load(service, registry, 23)
