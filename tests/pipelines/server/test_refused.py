"""Bad requests: each has its status and the rule, and the server answers the next one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from pipelines.errors import PipelineError
from pipelines.server.service import Service
from pipelines.server.start import TOKEN, Address
from pipelines.serving.answerer import Answerer
from reft.batching.running import RunningBatch
from tests.pipelines.server.conftest import ASKED, client_of

JSON = {"content-type": "application/json"}
GOOD = {"model": "champion", "prompt": "a", "max_tokens": 2}
COMPLETIONS, CHAT, CLASSIFY = "/v1/completions", "/v1/chat/completions", "/classify"
TURNS = [{"role": "user", "content": "a"}]

BAD = {
    "no JSON": (COMPLETIONS, b"{", 400, "JSON"),
    "no UTF-8": (COMPLETIONS, b'{"model": "\xff"}', 400, ""),
    "no object": (COMPLETIONS, b"[]", 400, "body"),
    "deep": (COMPLETIONS, b"[" * 9000, 400, ""),
    "unknown field": (COMPLETIONS, {**GOOD, "top_k": 3}, 400, "top_k: Extra inputs"),
    "unknown name that no terminal takes": (COMPLETIONS, b'{"\\ud800\\u001b": 1}', 400, ""),
    "number as text": (COMPLETIONS, {**GOOD, "max_tokens": "2"}, 400, "max_tokens"),
    "no tokens": (COMPLETIONS, {**GOOD, "max_tokens": 0}, 400, "max_tokens"),
    "no number": (COMPLETIONS, b'{"model": "base", "prompt": "a", "temperature": NaN}', 400, "temperature"),
    "infinite": (COMPLETIONS, b'{"model": "base", "prompt": "a", "temperature": 1e999}', 400, "temperature"),
    "too many tokens": (COMPLETIONS, {**GOOD, "max_tokens": 96}, 400, "at most 96 tokens; got"),
    "too long a prompt": (COMPLETIONS, {**GOOD, "prompt": "good film " * 90}, 400, "at most 96 tokens"),
    "beyond the base": (COMPLETIONS, {**GOOD, "prompt": "zq" * 400}, 400, "256 positions"),
    "empty prompt": (COMPLETIONS, {**GOOD, "prompt": ""}, 400, "prompt"),
    "no prompts": (COMPLETIONS, {**GOOD, "prompt": []}, 400, "prompt"),
    "too many choices": (COMPLETIONS, {**GOOD, "n": 9}, 400, "n: "),
    "half a character": (COMPLETIONS, b'{"model": "base", "prompt": "\\ud800"}', 400, "prompt"),
    "unknown model": (COMPLETIONS, {**GOOD, "model": "previous"}, 404, "'previous'; GET /v1/models"),
    "unknown version": (COMPLETIONS, {**GOOD, "model": "77"}, 404, "'77'"),
    "no number of a version": (COMPLETIONS, {**GOOD, "model": "007"}, 404, "'007'"),
    "a path": (COMPLETIONS, {**GOOD, "model": "../../etc/passwd"}, 400, "model"),
    "an address": (COMPLETIONS, {**GOOD, "model": "models:/lives/1"}, 400, "model"),
    "dots": (COMPLETIONS, {**GOOD, "model": "..", "max_tokens": 1}, 400, "model"),
    "a null byte": (COMPLETIONS, {**GOOD, "model": "1\x00"}, 400, "model"),
    "digits of another script": (COMPLETIONS, {**GOOD, "model": "\u0663"}, 400, "model"),
    "no message": (CHAT, {"model": "base", "messages": []}, 400, "messages"),
    "unknown role": (CHAT, {"model": "base", "messages": [{"role": "tool", "content": "a"}]}, 400, "role"),
    "a picture": (CHAT, {"model": "base", "messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, ""),
    "too long an answer": (CHAT, {"model": "base", "messages": TURNS, "max_completion_tokens": 96}, 400, "at most 96"),
    "labels of the base": (CLASSIFY, {"model": "base", "inputs": ["a"]}, 400, "'base' has none"),
    "no inputs": (CLASSIFY, {"model": "champion", "inputs": []}, 400, "inputs"),
    "another column": (CLASSIFY, {"model": "champion", "inputs": [{"review": "a"}]}, 400, "text"),
    "an empty text": (CLASSIFY, {"model": "champion", "inputs": ["good", " "]}, 400, "for input 1"),
    "too long a row": (CLASSIFY, {"model": "champion", "inputs": ["good film " * 90]}, 400, "for input 0"),
}


def fails(*_: object, **__: object) -> None:
    raise ValueError("a fault of ours")


@pytest.mark.parametrize("route", [COMPLETIONS, CLASSIFY])
def test_a_fault_of_the_server_is_no_fault_of_the_request(
    client: TestClient, route: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    body = GOOD if route == COMPLETIONS else {"model": "champion", "inputs": ["a film"]}
    with monkeypatch.context() as patch:
        patch.setattr(RunningBatch, "admit", fails)
        patch.setattr(Answerer, "told", fails)
        failed = client.post(route, json=body)
    assert (failed.status_code, failed.json()["error"]["type"]) == (500, "server_error")
    assert "a fault of ours" not in failed.text
    assert "a fault of ours" in caplog.text
    assert client.post(route, json=body).status_code == 200


def test_a_stream_ends_with_the_fault_of_the_server(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(RunningBatch, "admit", fails)
        failed = client.post(COMPLETIONS, json={**GOOD, "stream": True})
    last = json.loads(failed.text.strip().splitlines()[-1].removeprefix("data: "))
    assert last["error"]["type"] == "server_error"


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_is_told_its_rule_and_the_next_one_is_answered(client: TestClient, name: str) -> None:
    route, body, status, rule = BAD[name]
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = client.post(route, content=content, headers=JSON)
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert rule in error["message"]
    assert set(error) == {"message", "type", "param", "code"}
    assert client.post(COMPLETIONS, json=GOOD).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/completions", 405),
        ("GET", "/v1/models/..%2f..%2fetc%2fpasswd", 404),
        ("GET", "/v1/models/%2e%2e", 404),
        ("GET", "/v1/models/previous", 404),
        ("GET", "/../params.yaml", 404),
        ("GET", "/docs", 404),
        ("DELETE", "/v1/models/1", 405),
        ("POST", "/v1/embeddings", 415),
    ],
)
def test_other_routes_are_not_there(client: TestClient, method: str, path: str, status: int) -> None:
    response = client.request(method, path)
    assert response.status_code == status
    assert response.json()["error"]["message"]


def test_a_body_is_bounded_in_bytes_and_time(client: TestClient) -> None:
    large = json.dumps({**GOOD, "prompt": "a" * ASKED.body_bytes}).encode()
    said = client.post(COMPLETIONS, content=large, headers=JSON)
    assert (said.status_code, said.json()["error"]["code"]) == (413, "body_too_large")

    def parts() -> Iterator[bytes]:  # of no length that is told before
        for start in range(0, len(large), 1000):
            yield large[start : start + 1000]

    assert client.post(COMPLETIONS, content=parts(), headers=JSON).status_code == 413
    assert client.post(COMPLETIONS, content=b"{}", headers={"content-type": "text/plain"}).status_code == 415
    assert client.post(COMPLETIONS, json=GOOD).status_code == 200


def test_a_server_with_a_token_asks_for_it(service: Service) -> None:
    client = client_of(service, token="geheim")
    good = {"authorization": "Bearer geheim"}
    for headers in ({}, {"authorization": "geheim"}, {"authorization": "Bearer geheim2"}, {"authorization": "Bearer "}):
        for path in ("/v1/models", "/metrics", "/openapi.json"):
            response = client.get(path, headers=headers)
            assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
        assert client.post(COMPLETIONS, json=GOOD, headers=headers).status_code == 401
    assert client.post(COMPLETIONS, json=GOOD, headers=good).status_code == 200
    assert client.get("/health").status_code == 200
    assert client.get("/v1/models", headers={**good, "host": "models.example"}).status_code == 200


def test_a_server_without_a_token_is_this_machines_alone(client: TestClient) -> None:
    for host in ("localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000", "[::1]"):
        assert client.get("/v1/models", headers={"host": host}).status_code == 200
    for host in ("models.example", "localhost.example:8000", "", "[::2]:80"):  # as a page in a browser would reach it
        assert client.get("/v1/models", headers={"host": host}).status_code == 400
    with pytest.raises(PipelineError, match=f"--host 0.0.0.0, and no {TOKEN}"):
        Address("0.0.0.0", 8000, "")
    assert Address("0.0.0.0", 8000, "geheim").host == "0.0.0.0"


def test_who_comes_to_a_full_queue_is_asked_to_come_again(service: Service, client: TestClient) -> None:
    import threading

    go = threading.Event()
    service.engine.call(lambda: go.wait(30))
    body: dict[str, Any] = {**GOOD, "prompt": ["a"] * 32, "n": 3}
    try:
        response = client.post(COMPLETIONS, json=body)  # 96, and 64 may wait
    finally:
        go.set()
    assert (response.status_code, response.headers["retry-after"]) == (429, "1")
    assert client.post(COMPLETIONS, json=GOOD).status_code == 200


def test_an_answer_that_is_not_there_in_time_is_given_up(service: Service) -> None:
    import threading
    from dataclasses import replace

    client = client_of(replace(service, seconds=0.05))
    go = threading.Event()
    service.engine.call(lambda: go.wait(0.3))
    response = client.post(COMPLETIONS, json=GOOD)
    assert (response.status_code, response.json()["error"]["code"]) == (504, "timeout")
    go.set()
    stream = client.post(COMPLETIONS, json={**GOOD, "stream": True, "max_tokens": 80})
    assert stream.status_code == 200
