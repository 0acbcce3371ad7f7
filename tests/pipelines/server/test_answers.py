"""What is answered: each model as it answers alone, whole and streamed, whoever else is in the batch."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient
from torch import Tensor, nn

from pipelines.contracts.prepared import Row
from pipelines.contracts.task import prompt_task
from pipelines.server.service import Service
from pipelines.serving.answerer import Answerer
from pipelines.serving.inputs import input_rows
from pipelines.tasks.prompts import render_turns
from reft import encode, load_adapter
from tests.pipelines.server.alone import alone
from tests.pipelines.server.conftest import client_of
from tests.pipelines.server.folders import PROMPT, FolderRegistry, tiny_base

CLOSE = 1e-4  # nats: what is promised
TEXTS = ("Review: a good film.\nSentiment:", "bad", "so so, it was", "film film film a b c d e", "it", "good film, bad")
MODELS = ("champion", "challenger", "base", "1", "2", "3", "champion", "base")


def post(client: TestClient, route: str, **body: Any) -> Any:
    response = client.post(route, json=body)
    assert response.status_code == 200, response.text
    return response.json()


@contextmanager
def held(service: Service, until: int) -> Iterator[None]:
    """Let the engine wait until so many prompts do, so that they run in one batch."""
    go = threading.Event()
    service.engine.call(lambda: go.wait(30))

    def release() -> None:
        while service.engine.waiting < until:
            threading.Event().wait(0.005)
        go.set()

    releasing = threading.Thread(target=release)
    releasing.start()
    yield
    releasing.join(30)


def test_models_in_one_batch_answer_as_each_alone(service: Service, client: TestClient) -> None:
    asked = [(MODELS[place], TEXTS[place % len(TEXTS)], 3 + place) for place in range(len(MODELS))]
    for name in set(MODELS):
        service.shelf.open(name)

    def complete(each: tuple[str, str, int]) -> Any:
        name, prompt, count = each
        return post(client, "/v1/completions", model=name, prompt=prompt, max_tokens=count, temperature=0, logprobs=0)

    with ThreadPoolExecutor(len(asked)) as pool, held(service, len(asked)):
        answers = list(pool.map(complete, asked))
    decode = service.base.tokenizer.decode
    for (name, prompt, count), answer in zip(asked, answers, strict=True):
        (choice,) = answer["choices"]
        for place, known in enumerate(alone(service, name, prompt, count)):
            best = int(known.argmax())
            if place == len(choice["logprobs"]["tokens"]):
                assert (best, choice["finish_reason"]) == (service.base.tokenizer.eos_token_id, "stop")
                break
            assert choice["logprobs"]["token_logprobs"][place] == pytest.approx(float(known[best]), abs=CLOSE)
            assert choice["logprobs"]["tokens"][place] == decode([best])
        assert answer["usage"]["prompt_tokens"] == len(encode(service.base.tokenizer, prompt, "").input_ids)
    assert answers[0]["system_fingerprint"] != answers[2]["system_fingerprint"]


def streamed(client: TestClient, route: str, **body: Any) -> list[dict[str, Any]]:
    with client.stream("POST", route, json={**body, "stream": True}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        events = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert events[-1] == "[DONE]"
    return [json.loads(event) for event in events[:-1]]


def test_a_stream_is_the_answer_in_parts(client: TestClient) -> None:
    body = {"model": "champion", "prompt": [TEXTS[0], TEXTS[1]], "n": 2, "seed": 5, "max_tokens": 9, "logprobs": 2}
    whole = post(client, "/v1/completions", **body)
    parts = streamed(client, "/v1/completions", **body, stream_options={"include_usage": True})
    assert parts[-1]["usage"] == whole["usage"]
    assert len(whole["choices"]) == 4
    assert len({choice["text"] for choice in whole["choices"]}) > 1, "each choice has a seed of its own"
    for choice in whole["choices"]:
        own = [part["choices"][0] for part in parts[:-1] if part["choices"][0]["index"] == choice["index"]]
        assert "".join(part["text"] for part in own) == choice["text"]
        assert own[-1]["finish_reason"] == choice["finish_reason"]
        told = [value for part in own if part["logprobs"] for value in part["logprobs"]["token_logprobs"]]
        assert told == pytest.approx(choice["logprobs"]["token_logprobs"], abs=CLOSE)


def test_a_conversation_is_continued_by_the_bases_template(service: Service, client: TestClient) -> None:
    turns = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "A good film?"}]
    prompt = render_turns(service.base.tokenizer, turns)
    same = {"model": "challenger", "temperature": 0, "max_tokens": 8}
    completion = post(client, "/v1/completions", prompt=prompt, **same)
    parts = [{"type": "text", "text": "A good "}, {"type": "text", "text": "film?"}]
    chat = post(
        client, "/v1/chat/completions", messages=[turns[0], {"role": "user", "content": parts}],
        logprobs=True, top_logprobs=2, **same,
    )  # fmt: skip
    (choice,) = chat["choices"]
    assert choice["message"] == {"role": "assistant", "content": completion["choices"][0]["text"], "refusal": None}
    assert chat["usage"] == completion["usage"]
    for token in choice["logprobs"]["content"]:
        assert token["top_logprobs"][0]["logprob"] == token["logprob"]
        assert len(token["top_logprobs"]) == 2
    chunks = streamed(client, "/v1/chat/completions", messages=turns, **same)
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    said = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert said == choice["message"]["content"]


def test_a_stop_text_ends_a_choice_and_is_no_part_of_it(client: TestClient) -> None:
    same = {"model": "base", "prompt": TEXTS[3], "temperature": 0, "max_tokens": 12, "logprobs": 0}
    (whole,) = post(client, "/v1/completions", **same)["choices"]
    stop = whole["text"][4:7]
    cut = whole["text"][: whole["text"].index(stop)]
    (choice,) = post(client, "/v1/completions", **same, stop=["never said", stop])["choices"]
    assert (choice["text"], choice["finish_reason"]) == (cut, "stop")
    assert all(offset < len(cut) for offset in choice["logprobs"]["text_offset"])
    parts = streamed(client, "/v1/completions", **same, stop=stop)
    assert "".join(part["choices"][0]["text"] for part in parts) == cut


def test_rows_are_classified_as_on_a_base_of_ones_own(
    registry: FolderRegistry, service: Service, client: TestClient
) -> None:
    base = tiny_base()
    with registry.files(3) as files:
        adapter = load_adapter(files.adapter, base.model, base_sha256=base.record.sha256)
    answerer = Answerer(adapter, base.tokenizer, prompt_task(PROMPT), longest=96)
    texts = ["good film", "bad, bad film", "so so: 8/10"]
    rows = [row for row in map(answerer.read, input_rows(texts, answerer.columns)) if isinstance(row, Row)]
    expected = answerer.answer(rows)
    found = post(client, "/classify", model="3", inputs=[texts[0], texts[1], {"text": texts[2], "id": 7}])["data"]
    assert [one["label"] for one in found] == [one["label"] for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=CLOSE)
    other = post(client, "/classify", model="1", inputs=texts)["data"]
    assert other[0]["probabilities"] != pytest.approx(found[0]["probabilities"], abs=CLOSE)


@contextmanager
def counted_passes(service: Service) -> Iterator[list[int]]:
    """The rows of each pass of the base inside the context."""
    passes: list[int] = []
    layer = service.base.model.get_input_embeddings()
    hook = layer.register_forward_hook(lambda _layer, given, _output: passes.append(len(given[0])))
    yield passes
    hook.remove()


def test_rows_of_several_adapters_are_one_pass_and_answered_as_alone(service: Service, client: TestClient) -> None:
    asked = [("champion", ["good film"]), ("challenger", ["bad, bad film, all of it", "so so"]), ("2", ["it"])]
    alone = [post(client, "/classify", model=name, inputs=inputs)["data"] for name, inputs in asked]

    def submit(each: tuple[str, list[str]]) -> Any:
        return post(client, "/classify", model=each[0], inputs=each[1])["data"]

    with ThreadPoolExecutor(3) as pool, counted_passes(service) as passes, held(service, len(asked)):
        together = list(pool.map(submit, asked))
    assert passes == [4]
    for found, expected in zip(together, alone, strict=True):
        for one, other in zip(found, expected, strict=True):
            assert one["label"] == other["label"]
            assert one["probabilities"] == pytest.approx(other["probabilities"], abs=CLOSE)


@pytest.mark.parametrize(("bias", "status"), [(torch.full((4,), torch.nan), 503), (torch.zeros(7), 500)])
def test_an_adapter_that_fails_is_nobody_elses_fault(
    service: Service, client: TestClient, monkeypatch: pytest.MonkeyPatch, bias: Tensor, status: int
) -> None:
    """Its numbers are none, or its tensors do not fit, so that the pass of all ends with an error."""
    expected = post(client, "/classify", model="champion", inputs=["good film"])["data"]
    served = service.shelf.open("2")
    assert served is not None
    ((_, edit),) = served.adapter.named_interventions()
    monkeypatch.setitem(edit._parameters, "bias", nn.Parameter(bias))
    with ThreadPoolExecutor(2) as pool, held(service, 2):
        fine = pool.submit(post, client, "/classify", model="champion", inputs=["good film"])
        bad = pool.submit(client.post, "/classify", json={"model": "2", "inputs": ["it", "bad"]})
    (found,), (wanted,) = fine.result()["data"], expected
    assert found["probabilities"] == pytest.approx(wanted["probabilities"], abs=CLOSE)
    assert bad.result().status_code == status


def test_models_are_listed_by_their_names(service: Service, client: TestClient) -> None:
    post(client, "/v1/completions", model="2", prompt="a", max_tokens=1)
    listed = client.get("/v1/models").json()["data"]
    roots = {model["id"]: model["root"] for model in listed}
    assert set(roots) == {"base", "champion", "challenger", "1", "2", "3"}
    assert roots["champion"] == roots["1"] == service.fingerprint(service.shelf.ready("1"))
    assert client.get("/v1/models/champion").json()["root"] == roots["champion"]


def test_what_was_done_is_counted(service: Service) -> None:
    client = client_of(service)
    used = post(client, "/v1/completions", model="champion", prompt="a", max_tokens=3)["usage"]
    client.get("/no/such/route")
    text = client.get("/metrics").text
    assert f'reft_tokens_total{{kind="completion"}} {float(used["completion_tokens"])}' in text
    assert 'reft_requests_total{route="/v1/completions",status="200"} 1.0' in text
    assert 'reft_requests_total{route="other",status="404"} 1.0' in text
    assert 'reft_live_version{alias="champion"} 1.0' in text
    assert client.get("/health").json() == {
        "status": "ok", "live": {"champion": 1, "challenger": 3}, "refused": {}, "registry": "ok",
    }  # fmt: skip
