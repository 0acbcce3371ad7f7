"""Requests and their answers in MLflow, as far as they were answered."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from pipelines.server.app import create_app
from pipelines.server.service import Service
from pipelines.server.start import Address
from pipelines.tracking.runs import Store, open_store
from pipelines.tracking.traces import Call, Traces
from tests.pipelines.finished import make_params
from tests.pipelines.server.conftest import ASKED


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(make_params().tracking, tmp_path_factory.mktemp("traced"))


@pytest.fixture
def traced(service: Service, store: Store) -> Iterator[tuple[TestClient, Traces]]:
    traces = Traces(store)
    app = create_app(service, Address("127.0.0.1", 0, "").bounds(ASKED), traces)
    yield TestClient(app, base_url="http://localhost"), traces
    traces.close()


def kept(store: Store) -> list[Any]:
    return list(store.client.search_traces(locations=[store.experiment_id]))


def test_requests_are_kept_with_their_answers(store: Store, traced: tuple[TestClient, Traces]) -> None:
    client, traces = traced
    asked = {"model": "champion", "prompt": "a good film", "max_tokens": 3, "temperature": 0}
    whole = client.post("/v1/completions", json=asked).json()
    with client.stream("POST", "/v1/completions", json=asked | {"stream": True}) as response:
        streamed = [json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: {")]
    label = client.post("/classify", json={"model": "champion", "inputs": ["a good film"]}).json()
    client.post("/v1/completions", json={"model": "nobody", "prompt": "a"})  # is refused, and so not kept
    traces.close()
    spans = sorted((trace.data.spans[0] for trace in kept(store)), key=lambda span: span.start_time_ns)
    assert [span.name for span in spans] == ["/v1/completions", "/v1/completions", "/classify"]
    assert spans[0].inputs == asked
    assert spans[0].outputs == whole
    assert spans[1].outputs["choices"] == whole["choices"]
    assert spans[1].outputs["id"] == streamed[0]["id"]
    assert spans[2].outputs == label
    assert {trace.info.tags["reft.fingerprint"] for trace in kept(store)} == {whole["system_fingerprint"]}
    assert all(span.end_time_ns > span.start_time_ns for span in spans)
    assert traces.lost == 0


def test_a_slow_store_costs_traces_and_no_time(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begun, go = threading.Event(), threading.Event()

    def slow(_self: Traces, _call: Call) -> None:
        begun.set()
        go.wait(30)

    monkeypatch.setattr(Traces, "_write", slow)
    traces, call = Traces(store, most=1), Call("/classify", "champion", "v1-0", {}, {}, 1, 2)
    traces.note(call)
    assert begun.wait(30)
    for _ in range(3):  # one waits, and there is no room for two
        traces.note(call)
    assert traces.lost == 2
    assert "1 traces were not written" in caplog.text
    monkeypatch.setattr("pipelines.tracking.traces.STOP_SECONDS", 0.1)
    traces.close()  # the store still hangs, and whoever stops the server does not wait for it
    assert traces.lost == 3
    assert "3 traces were not written in all" in caplog.text
    go.set()


def test_a_store_that_takes_none_stops_nothing(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    traces = Traces(Store(store.client, store.uri, "no-such-experiment"))
    traces.note(Call("/classify", "champion", "v1-0", {}, {}, 1, 2))
    traces.close()
    assert "no-such-experiment" in caplog.text  # MLflow says why
