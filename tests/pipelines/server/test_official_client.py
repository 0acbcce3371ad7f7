"""A real server on a port, asked by OpenAI's own client and by clients that behave badly."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import torch
import uvicorn

from pipelines.contracts.facts import StageFiles
from pipelines.server.app import create_app
from pipelines.server.service import Service
from pipelines.server.start import Address, open_service
from pipelines.stages import register
from pipelines.tracking.runs import open_store
from tests.pipelines.finished import finish_stages, make_params
from tests.pipelines.server.alone import alone
from tests.pipelines.server.conftest import ASKED

if TYPE_CHECKING:  # it takes a second to import, and collecting these tests is to take none
    import openai

pytestmark = pytest.mark.long
VERSIONS, REQUESTS, TOKENS = 16, 200, 12
TOKEN = "geheim"
CLOSE = 1e-4  # nats: what is promised
PROMPTS = ("Review: a good film.\nSentiment:", "bad", "so so, it was", "film film a b c d", "it")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Service, Any]]:
    """The address of a server of 16 versions, what answers there, and the registry's store."""
    root = tmp_path_factory.mktemp("sixteen")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFT_HOME", str(tmp_path_factory.mktemp("home")))
        params = make_params("many")
        for seed in range(VERSIONS):
            files = StageFiles(**finish_stages(root, seed=seed))
            register.run(params, root=root, files=files, out=root / "registration.json")
        store = open_store(params.tracking, root)
        store.client.set_registered_model_alias("many", "champion", "1")
        asked = replace(
            ASKED, aliases=("champion",), rows=32, waiting=256, adapters=20, poll_seconds=0.05, body_seconds=5.0
        )
        with open_service(asked, params, root) as service:
            app = create_app(service, Address("127.0.0.1", 0, TOKEN).bounds(asked))
            server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off", http="h11"))
            thread = threading.Thread(target=server.run)
            thread.start()
            while not server.started:
                time.sleep(0.01)
            yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", service, store
            server.should_exit = True
            thread.join(30)


async def ask(
    client: openai.AsyncOpenAI, name: str, prompt: str, *, stream: bool
) -> tuple[str, list[str], list[float]]:
    """Who answered, the tokens and their log-probabilities."""
    same: dict[str, Any] = {"model": name, "prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "logprobs": 2}
    if not stream:
        whole = await client.completions.create(**same)
        known = whole.choices[0].logprobs
        return whole.system_fingerprint, known.tokens, known.token_logprobs
    tokens, logprobs, fingerprint = [], [], ""
    async for part in await client.completions.create(**same, stream=True):
        fingerprint, known = part.system_fingerprint, part.choices[0].logprobs
        tokens += known.tokens
        logprobs += known.token_logprobs
    return fingerprint, tokens, logprobs


def test_200_requests_over_16_adapters_with_a_promotion_and_a_rollback(running: tuple[str, Service, Any]) -> None:
    openai = pytest.importorskip("openai")
    address, service, store = running
    names = ["champion", "base", *map(str, range(1, VERSIONS + 1))]
    wishes = [(names[place % len(names)], PROMPTS[place % len(PROMPTS)]) for place in range(REQUESTS)]

    async def all_of_them() -> list[tuple[str, list[str], list[float]]]:
        async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key=TOKEN, max_retries=0, timeout=120) as client:
            asked = []
            for place, (name, prompt) in enumerate(wishes):
                asked.append(asyncio.create_task(ask(client, name, prompt, stream=place % 2 == 1)))
                if place in (60, 130):
                    await asked[place - place % len(names)]  # of the champion before, which so answers one surely
                    version = 5 if place == 60 else 1
                    await asyncio.to_thread(store.client.set_registered_model_alias, "many", "champion", str(version))
                    while service.shelf.live["champion"].version != version:
                        await asyncio.sleep(0.01)
            return await asyncio.gather(*asked)

    answers = asyncio.run(all_of_them())
    by_version = {found for (found, *_), (name, _) in zip(answers, wishes, strict=True) if name == "champion"}
    assert {found.partition("-")[0] for found in by_version} == {"v1", "v5"}
    reference: dict[tuple[str, str], list[torch.Tensor]] = {}
    decode = service.base.tokenizer.decode
    for (fingerprint, tokens, logprobs), (name, prompt) in zip(answers, wishes, strict=True):
        who = name if name != "champion" else fingerprint.partition("-")[0].removeprefix("v")
        if (who, prompt) not in reference:
            reference[who, prompt] = alone(service, who, prompt, TOKENS, ends=True)
        for place, known in enumerate(reference[who, prompt]):
            (likeliest, second), ids = known.topk(2)
            if place == len(tokens):
                assert int(ids[0]) == service.base.tokenizer.eos_token_id
                break
            if tokens[place] != decode([int(ids[0])]):  # a tie to rounding, from which on the two texts differ
                assert likeliest - second < CLOSE
                break
            assert logprobs[place] == pytest.approx(float(likeliest), abs=CLOSE)


def test_a_conversation_and_its_errors_are_read_by_the_client(running: tuple[str, Service, Any]) -> None:
    openai = pytest.importorskip("openai")
    address, _, _ = running
    client = openai.OpenAI(base_url=f"{address}/v1", api_key=TOKEN, max_retries=0)
    turns: Any = [{"role": "user", "content": "A good film?"}]
    same: dict[str, Any] = {"model": "champion", "messages": turns, "temperature": 0, "max_completion_tokens": 6}
    whole = client.chat.completions.create(**same, logprobs=True, top_logprobs=1)
    with client.chat.completions.create(**same, stream=True, stream_options={"include_usage": True}) as stream:
        parts = list(stream)
    said = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
    assert said == whole.choices[0].message.content
    assert parts[-1].usage == whole.usage
    assert {model.id for model in client.models.list()} >= {"champion", "base"}
    with pytest.raises(openai.NotFoundError, match="no model is called '99'"):
        client.completions.create(model="99", prompt="a")
    with pytest.raises(openai.BadRequestError, match="at most 96 tokens"):
        client.completions.create(model="base", prompt="a", max_tokens=500)
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{address}/v1", api_key="other", max_retries=0).models.list()


def test_slow_clients_and_those_that_go_away_hold_nobody_up(running: tuple[str, Service, Any]) -> None:
    address, service, _ = running
    host, port = address.removeprefix("http://").split(":")
    headers = f"Host: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
    body = json.dumps({"model": "base", "prompt": "a", "max_tokens": 80, "n": 8, "stream": True}).encode()
    start = f"POST /v1/completions HTTP/1.1\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode()
    slow, deaf, gone = (socket.create_connection((host, int(port))) for _ in range(3))
    slow.sendall(start + body[:10])  # and no more
    deaf.sendall(start + body)  # and never reads
    gone.sendall(start + body)
    gone.close()
    slow.settimeout(30)
    assert b"408 Request Timeout" in slow.recv(4096)
    answer = httpx.post(
        f"{address}/v1/completions", json={"model": "base", "prompt": "a", "max_tokens": 2},
        headers={"authorization": f"Bearer {TOKEN}"},
    )  # fmt: skip
    assert answer.status_code == 200
    until = time.monotonic() + 30
    while service.engine.running and time.monotonic() < until:
        time.sleep(0.02)
    assert (service.engine.running, service.engine.waiting) == (0, 0)
    deaf.close()
    slow.close()


def test_what_is_no_http_is_no_end(running: tuple[str, Service, Any]) -> None:
    address, _, _ = running
    host, port = address.removeprefix("http://").split(":")
    for noise in (
        b"\x00\xff" * 500,
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(noise)
            connection.settimeout(30)
            assert not connection.recv(4096).startswith(b"HTTP/1.1 200")
    assert httpx.get(f"{address}/health").status_code == 200
